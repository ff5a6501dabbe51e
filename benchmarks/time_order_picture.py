"""The false-alarm rate of every run as a picture: beside its band, marked by what drift says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

_LOOK = {"fresh": ("o", "#0b5fa5"), "drifting": ("D", "#d1711b"), "stale": ("s", "#b3261e")}
_BAND, _AGAIN = "#d5dde5", "#555555"
_LEAST = 0.0005  # a share that is drawn for none at all: the axis is logarithmic


@dataclass(frozen=True)
class Mark:
    """One run in one panel.

    Attributes:
        run: its name.
        realised: share flagged.
        low, high: the band of the promise, as shares.
        state: of drift.
        again: share flagged of its last two thirds, calibrated anew on the first.
    """

    run: str
    realised: float
    low: float
    high: float
    state: str
    again: float


def draw(panels: Mapping[str, Sequence[Mark]], rate: float, output: Path) -> None:
    """Writes a PNG of a panel a fit, side by side, whose lines are the runs, the earliest on top.

    Args:
        panels: marks by the panel's title; a run need not be in all of them.
        rate: that was asked for.
        output: the file.
    """
    runs = list(dict.fromkeys(mark.run for marks in panels.values() for mark in marks))
    figure = Figure(figsize=(4.6 * len(panels), 1.9 + 0.25 * len(runs)), dpi=110, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, marks) in zip(all_axes, panels.items(), strict=True):
        _panel(axes, marks, runs, rate, title)
    all_axes[0].set_yticks(range(len(runs)), runs)
    all_axes[0].set_ylim(len(runs) - 0.4, -0.6)
    figure.legend(handles=_legend(), loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(output)


def _panel(axes: Axes, marks: Sequence[Mark], runs: Sequence[str], rate: float, title: str) -> None:
    for mark in marks:
        y = runs.index(mark.run)
        low, high = max(_LEAST, mark.low), max(_LEAST, mark.high)
        axes.barh(y, high - low, left=low, height=0.7, color=_BAND, zorder=1)
        axes.scatter(max(_LEAST, mark.again), y, s=34, facecolors="none", edgecolors=_AGAIN, zorder=2)
        shape, colour = _LOOK[mark.state]
        axes.scatter(max(_LEAST, mark.realised), y, s=34, marker=shape, color=colour, zorder=3)
    axes.axvline(rate, color="#888888", linewidth=1, linestyle=":", zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(_LEAST * 0.8, 1.3)
    axes.set_xticks([_LEAST, 0.001, 0.01, 0.1, 1.0], ["0", "0.1 %", "1 %", "10 %", "100 %"])
    axes.set_xlabel("normal records flagged")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend() -> list[Line2D | Patch]:
    marks: list[Line2D | Patch] = [
        Line2D([], [], linestyle="", marker=shape, color=colour, label=f"drift says {state}")
        for state, (shape, colour) in _LOOK.items()
    ]
    again = Line2D([], [], linestyle="", marker="o", markerfacecolor="none", color=_AGAIN, label="calibrated anew")
    return [*marks, again, Patch(color=_BAND, label="99.9 % of what chance gives")]
