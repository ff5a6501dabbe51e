"""The results as a picture: ours, DTE-NP and the best of all peers on every table."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.quality.results import Row
from benchmarks.quality.summary import OURS, ByTable, Measure, by_table

_RIVAL = "DTE-NP"  # the strongest published non-parametric detector of this setting
_OURS_COLOUR, _RIVAL_COLOUR, _BEST_COLOUR = "#0b5fa5", "#d1711b", "#555555"
_BETTER, _WORSE = "#7fb2dd", "#eec19a"


def draw(rows: Sequence[Row], output: Path) -> None:
    """Writes a PNG of two panels, AUROC and average precision, whose lines are the tables, the hardest below."""
    auroc = by_table(rows, "auroc")
    tables = sorted({row.dataset for row in rows}, key=lambda table: auroc.get(OURS, {}).get(table, 0.0))
    figure = Figure(figsize=(12, 2.2 + 0.3 * len(tables)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    measures: tuple[tuple[Axes, Measure, str], ...] = ((left, "auroc", "AUROC"), (right, "ap", "average precision"))
    for axes, measure, title in measures:
        _panel(axes, by_table(rows, measure), tables, title)
    left.set_yticks(range(len(tables)), tables)
    left.set_ylim(-0.7, len(tables) - 0.3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(output)


def _panel(axes: Axes, means: ByTable, tables: Sequence[str], title: str) -> None:
    places = {table: i for i, table in enumerate(tables)}
    ours, rival = means.get(OURS, {}), means.get(_RIVAL, {})
    for table in ours.keys() & rival.keys():
        colour = _BETTER if ours[table] >= rival[table] else _WORSE
        axes.plot([rival[table], ours[table]], [places[table]] * 2, color=colour, linewidth=4, zorder=1)
    best = {table: found for table in tables if (found := _best_peer(means, table)) is not None}
    marks = (
        (best, "best of all peers, chosen for each table", "|", _BEST_COLOUR, 130),
        (rival, _RIVAL, "o", _RIVAL_COLOUR, 34),
        (ours, OURS, "o", _OURS_COLOUR, 46),
    )
    for values, label, marker, colour, size in marks:
        if values:
            mean = sum(values.values()) / len(values)
            heights = [places[table] for table in values]
            axes.scatter(list(values.values()), heights, s=size, marker=marker, color=colour, label=label, zorder=3)
            axes.axvline(mean, color=colour, linewidth=1, linestyle=":", zorder=0)
    axes.set_xlabel(f"{title} (dotted: mean over tables)")
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _best_peer(means: ByTable, table: str) -> float | None:
    found = [values[table] for name, values in means.items() if not name.startswith("nelbo:") and table in values]
    return max(found, default=None)
