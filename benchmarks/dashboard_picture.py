"""A picture of the dashboard, drawn from what a real Prometheus answers to its queries.

`python -m benchmarks.dashboard_picture FILE.png` serves a model under mixed traffic for a minute. It needs the
programs and libraries of Prometheus (Debian: `prometheus`), which no other benchmark does. It is no
copy of Grafana: it shows whether panels have data, and units, legends and scales that make sense.
"""

import argparse
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from benchmarks.mixed_traffic import Traffic, send_all
from benchmarks.panels import Panel, read_panels
from benchmarks.serving_process import serving, wait_until_ready
from benchmarks.watching import Prometheus, watching

_VARIABLES = {"__rate_interval": "5s", "job": "nelbo", "model": ".*"}
_COLUMN, _LINE = 0.72, 0.42  # size of a cell of Grafana's grid, inches; chosen


@dataclass(frozen=True)
class Line:
    """One series: what the legend says, its labels, seconds from the end, values."""

    name: str
    labels: Mapping[str, str]
    times: np.ndarray[Any, np.dtype[np.float64]]
    values: np.ndarray[Any, np.dtype[np.float64]]


def draw(prometheus: Prometheus, panels: Sequence[Panel], seconds: float, output: Path) -> list[str]:
    """Draws every panel.

    Returns:
        The titles of the panels without data.
    """
    height = max(panel.position["y"] + panel.position["h"] for panel in panels)
    figure = pyplot.figure(figsize=(24 * _COLUMN, height * _LINE), dpi=90)
    empty = []
    for panel in panels:
        x, y, w, h = (panel.position[side] for side in ("x", "y", "w", "h"))
        axes = figure.add_axes(
            ((x + 0.85) / 24, 1 - (y + h - 1.9) / height, (w - 1.3) / 24, max(h - 3.4, 0.2) / height)
        )
        if panel.kind == "row":
            axes.set_axis_off()
            figure.text(0.008, 1 - (y + 0.8) / height, panel.title, fontsize=13, weight="bold")
            continue
        lines = [line for query in panel.queries for line in _lines(prometheus, query, seconds)]
        if not lines:
            empty.append(panel.title)
        axes.set_title(panel.title, fontsize=9, loc="left", weight="bold", pad=14)
        first = textwrap.shorten(panel.description, int(w * 9.5), placeholder=" …")
        axes.text(0, 1.02, first, transform=axes.transAxes, fontsize=5.5, color="0.4")
        _DRAWN[panel.kind](axes, panel, lines)
    figure.savefig(output)
    return empty


def _lines(prometheus: Prometheus, query: Any, seconds: float) -> list[Line]:
    found = prometheus.query_range(query.filled(**_VARIABLES), seconds, 1)
    end = time.time()
    lines = []
    for series in found:
        points = np.array([[float(at) - end, float(value)] for at, value in series["values"]])
        lines.append(Line(query.name(series["metric"]), series["metric"], points[:, 0], points[:, 1]))
    return lines


def _draw_lines(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    custom = panel.raw["fieldConfig"]["defaults"]["custom"]
    if custom["stacking"]["mode"] == "normal" and lines:
        times = np.unique(np.concatenate([line.times.round() for line in lines]))
        stacked = [np.interp(times, line.times, np.nan_to_num(line.values), left=0) for line in lines]
        axes.stackplot(times, stacked, labels=[line.name for line in lines], alpha=0.6)
    else:
        for line in lines:
            style = "--" if "effective rate" in line.name else "-"
            axes.plot(line.times, line.values, style, label=line.name, linewidth=1)
    if custom["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.tick_params(labelsize=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=5.5, ncols=3, loc="upper left", bbox_to_anchor=(-0.02, -0.12), frameon=False)


def _draw_stat(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    axes.set_axis_off()
    mappings = panel.raw["fieldConfig"]["defaults"].get("mappings", [])
    texts = {value: found["text"] for mapping in mappings for value, found in mapping["options"].items()}
    for i, line in enumerate(lines):
        last = line.values[np.isfinite(line.values)][-1]
        text = texts.get(f"{last:g}", shown(float(last), panel.unit))
        place = 1 - (i + 0.5) / max(len(lines), 1)
        axes.text(0.5, place, text, fontsize=16, ha="center", va="center", color=_colour(panel, float(last)))
        axes.text(0.5, place - 0.3 / len(lines), line.name, fontsize=7, ha="center", va="center")


def _colour(panel: Panel, value: float) -> str:
    steps = panel.raw["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return str([step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1])


def _draw_heatmap(axes: Axes, _: Panel, lines: Sequence[Line]) -> None:
    ordered = sorted(lines, key=lambda line: float(line.labels["le"]))
    times = np.unique(np.concatenate([line.times.round() for line in ordered]))
    cumulative = np.array([np.interp(times, line.times, np.nan_to_num(line.values)) for line in ordered])
    counts = np.diff(cumulative, axis=0, prepend=0)
    axes.pcolormesh(times, np.arange(len(ordered)), counts, cmap="Blues", shading="nearest")
    axes.set_yticks(np.arange(len(ordered)), [line.labels["le"] for line in ordered], fontsize=5)
    axes.tick_params(labelsize=6, axis="x")


def _draw_table(axes: Axes, _: Panel, lines: Sequence[Line]) -> None:
    axes.set_axis_off()
    if lines:
        rows = [[value if len(value) < 26 else f"{value[:12]}…" for value in line.labels.values()] for line in lines]
        table = axes.table(rows, colLabels=list(lines[0].labels), loc="upper left")
        table.set_fontsize(7)


def shown(value: float, unit: str) -> str:
    """A value with its unit, as Grafana would shorten it."""
    if unit == "percentunit":
        return f"{value:.3g}".rstrip() if value == 0 else f"{value:.1%}"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1e6:.3g} µs"
    if unit == "bytes":
        return f"{value / 2**20:.4g} MiB"
    suffix = {"cps": " /s", "reqps": " req/s"}.get(unit, "")
    return f"{value:,.0f}{suffix}" if value >= 100 else f"{value:.3g}{suffix}"


_DRAWN: dict[str, Callable[[Axes, Panel, Sequence[Line]], None]] = {
    "timeseries": _draw_lines,
    "stat": _draw_stat,
    "heatmap": _draw_heatmap,
    "table": _draw_table,
}


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--name", default="machines")
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    mpl.use("agg")
    rng = np.random.default_rng(0)
    traffic = Traffic(chosen.models, chosen.name, rng)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(chosen.models) as service,
        watching(service.url, Path(folder)) as prometheus,
    ):
        wait_until_ready(service.url)
        end = time.monotonic() + chosen.seconds
        while time.monotonic() < end:
            send_all(service.url, traffic.requests(int(rng.integers(10, 60))), 4)
            time.sleep(0.3)
        time.sleep(2)
        empty = draw(prometheus, read_panels(), chosen.seconds, chosen.output)
    sys.stderr.write(f"panels without data: {', '.join(empty) or 'none'}\n")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(_main())
