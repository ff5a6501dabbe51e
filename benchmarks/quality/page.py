"""The results as tables, for a terminal and as a page of Markdown."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.quality.results import Row
from benchmarks.quality.summary import OURS, Duel, by_table, duels, names, overall, spreads
from benchmarks.report import markdown_table, write_report

_WIDEST = 1000  # a table is as wide as its words; a console would fold it into columns of three letters


@dataclass(frozen=True)
class Sheet:
    """One table of words.

    Attributes:
        title: above it.
        note: what must be known to read it; may be empty.
        headings: of the columns.
        lines: its cells.
    """

    title: str
    note: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Everything that the rows say, the summary first; what they do not carry is left out."""
    found = [_means(rows), _duels(rows), _spreads(rows), _tables(rows)]
    return [sheet for sheet in found if sheet.lines]


def _means(rows: Sequence[Row]) -> Sheet:
    lines = overall(rows)
    n_tables = len({row.dataset for row in rows})
    lacking = [line.detector for line in lines if line.n_tables < n_tables]
    note = "AUROC, average precision and F1 (as many records taken as there are anomalies), mean over tables; seconds."
    if lacking:
        note += f" {', '.join(lacking)}: not on every table, so these means do not compare with the others."
    return Sheet(
        "Means",
        note,
        ("detector", "tables", "AUROC", "AP", "F1", "fit, median", "fit, worst", "score, median"),
        [
            (
                line.detector,
                str(line.n_tables),
                *(f"{value:.3f}" for value in (line.auroc, line.ap, line.f1)),
                *(f"{value:.3g}" for value in (line.fit_s, line.worst_fit_s, line.score_s)),
            )
            for line in lines
        ],
    )


def _duels(rows: Sequence[Row]) -> Sheet:
    pairs = zip(duels(rows, "auroc"), duels(rows, "ap"), strict=True)
    return Sheet(
        f"{OURS} against each peer",
        "Wins–losses–ties over tables, mean difference, and p of a one-sided Wilcoxon signed-rank test that ours is "
        "better (not corrected for the number of peers).",
        ("peer", "AUROC: w–l–t", "difference", "p", "AP: w–l–t", "difference", "p"),
        [(auroc.peer, *_duel(auroc), *_duel(ap)) for auroc, ap in pairs],
    )


def _duel(duel: Duel) -> tuple[str, str, str]:
    p = "" if duel.p_value is None else f"{duel.p_value:.4f}"
    return f"{duel.wins}–{duel.losses}–{duel.ties}", f"{duel.difference:+.3f}", p


def _spreads(rows: Sequence[Row]) -> Sheet:
    found = spreads(rows)
    return Sheet(
        "What the seed does",
        "Mean AUROC over the tables that have every seed.",
        ("detector", "seeds", "lowest", "highest", "range", "standard deviation"),
        [
            (
                one.detector,
                str(len(one.by_seed)),
                f"{min(one.by_seed.values()):.4f}",
                f"{max(one.by_seed.values()):.4f}",
                f"{one.range:.4f}",
                f"{one.deviation:.4f}",
            )
            for one in found
        ],
    )


def _tables(rows: Sequence[Row]) -> Sheet:
    auroc, ap = by_table(rows, "auroc"), by_table(rows, "ap")
    detectors = names(rows)

    def cell(detector: str, table: str) -> str:
        if table not in auroc[detector]:
            return ""
        return f"{auroc[detector][table]:.3f} / {ap[detector][table]:.3f}"

    tables = sorted({row.dataset for row in rows})
    lines = [(table, *(cell(detector, table) for detector in detectors)) for table in tables]
    return Sheet("Tables", "AUROC / average precision, mean over seeds.", ("table", *detectors), lines)


def print_sheets(found: Sequence[Sheet], console: Console | None = None) -> None:
    """Writes them to standard output."""
    console = console or Console(width=_WIDEST, highlight=False)
    for sheet in found:
        table = Table(title=sheet.title, title_justify="left", title_style="bold", caption_justify="left")
        for i, heading in enumerate(sheet.headings):
            table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
        for line in sheet.lines:
            table.add_row(*line)
        console.print(table)
        console.print(sheet.note, "\n", markup=False)


def write_page(
    out: Path, rows: Sequence[Row], command: str, config: dict[str, Any] | None, failures: Sequence[str]
) -> Path:
    """Writes the JSON and the Markdown beside the CSV.

    Args:
        out: the CSV; the picture is taken to lie beside it.
        rows: of it.
        command: that makes it again, without the folders of this machine.
        config: the settings of the fit; None for the default.
        failures: what did not run, a line each.
    """
    found: dict[str, Any] = {
        "config": config,
        "peers": _versions(),
        "failures": list(failures),
        "overall": [asdict(line) for line in overall(rows)],
        "duels": {measure: [asdict(duel) for duel in duels(rows, measure)] for measure in ("auroc", "ap")},
        "spreads": [asdict(spread) for spread in spreads(rows)],
    }
    return write_report(out.stem, "Detection quality", command, found, _body(out, rows, config, failures), out.parent)


def _body(out: Path, rows: Sequence[Row], config: dict[str, Any] | None, failures: Sequence[str]) -> str:
    n_tables, seeds = len({row.dataset for row in rows}), sorted({row.seed for row in rows})
    settings = "the default" if config is None else ", ".join(f"`{key} = {value}`" for key, value in config.items())
    peers = ", ".join(f"{name} {version}" for name, version in _versions().items())
    parts = [
        f"{n_tables} tables, seeds {', '.join(map(str, seeds))}; every row in [{out.name}]({out.name}). "
        f"Fit: {settings}. Peers: {peers}.",
        f"![Each table, ours beside its peers.]({out.stem}.png)",
    ]
    if failures:
        parts.append("Not run:\n\n" + "\n".join(f"- {failure}" for failure in failures))
    parts += [f"## {s.title}\n{s.note}\n\n{markdown_table(s.headings, s.lines)}" for s in sheets(rows)]
    return "\n\n".join(parts)


def _versions() -> dict[str, str]:
    """Of the libraries that the peers come from."""
    installed = {}
    for name in ("scikit-learn", "pyod"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
