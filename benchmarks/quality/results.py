"""The CSV of results: a row for each table, detector and seed; what it holds is not run again."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from nelbo.errors import TableError


@dataclass(frozen=True)
class Row:
    """What one detector did on one table with one seed; the names are the columns.

    Attributes:
        dataset, detector, seed: which.
        auroc, ap: over all thresholds.
        f1: where as many rows are taken as there are anomalies.
        fit_s: seconds to fit; of ours, export and calibration included.
        score_s: seconds to score the test rows.
    """

    dataset: str
    detector: str
    seed: int
    auroc: float
    ap: float
    f1: float
    fit_s: float
    score_s: float


COLUMNS = tuple(field.name for field in fields(Row))


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV; none if it is not there yet.

    Raises:
        TableError: it holds something else.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, list(COLUMNS))
        if tuple(header) != COLUMNS:
            raise TableError(f"{path.name}: expected the columns {','.join(COLUMNS)}, got {','.join(header)}")
        return [_row(path.name, number, cells) for number, cells in enumerate(lines, start=2)]


def _row(name: str, number: int, cells: Sequence[str]) -> Row:
    try:
        dataset, detector, seed, *figures = cells
        auroc, ap, f1, fit_s, score_s = map(float, figures)
        return Row(dataset, detector, int(seed), auroc, ap, f1, fit_s, score_s)
    except ValueError as error:
        raise TableError(f"{name}: line {number} is no row of results; delete it") from error


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Adds rows, and before the first one the header."""
    is_new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)


# --- what our own rows were made with -----------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What our own rows depend on besides table and seed.

    Attributes:
        config: of the fit.
        code: digest of the sources.
    """

    config: Mapping[str, Any]
    code: str


def check_settings(out: Path, settings: Settings, rows: Sequence[Row]) -> str | None:
    """Keeps rows of one CSV to one config: leaves the settings beside it, or compares with what lies there.

    Returns:
        A warning where the code has changed since.

    Raises:
        TableError: rows of ours in it were made with another config.
    """
    path = out.with_suffix(".settings.json")
    if not any(row.detector.startswith("nelbo:") for row in rows):
        path.write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    elif path.exists():
        found = Settings(**json.loads(path.read_text(encoding="utf-8")))
        names = sorted({*found.config, *settings.config})
        differing = [name for name in names if found.config.get(name) != settings.config.get(name)]
        if differing:
            raise TableError(
                f"{out.name}: its rows of nelbo were made with other settings ({', '.join(differing)}); "
                "choose another --out, or delete them"
            )
        if found.code != settings.code:
            return f"{out.name}: its rows of nelbo were made with other code; delete them to measure again"
    return None
