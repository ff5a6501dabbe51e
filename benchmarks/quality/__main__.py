"""Runs every detector on every table and seed, resumes where it stopped, says what that means together."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.false_alarms import sources_digest
from benchmarks.quality.categories import with_categories
from benchmarks.quality.detectors import Detector, detectors, offered
from benchmarks.quality.page import print_sheets, sheets, write_page
from benchmarks.quality.picture import draw
from benchmarks.quality.progress import Watch
from benchmarks.quality.protocol import Dataset, Halves, find_tables, halves, read_dataset
from benchmarks.quality.results import Row, Settings, append_rows, check_settings, read_rows
from nelbo.errors import NelboError
from nelbo.evaluation import f1_at_k
from training.config import Config, read_config


@dataclass(frozen=True)
class Unit:
    """One detector on one table with one seed."""

    table: Path
    seed: int
    detector: str

    def __str__(self) -> str:
        return f"{self.table.stem} seed {self.seed} {self.detector}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The stable entry point: `--data FOLDER --seeds 0 1 2 --out FILE.csv`.

    Returns:
        0; 1 where a detector failed on a table, or a table could not be read; 2 where nothing could be run.
    """
    options = _parser().parse_args(arguments)
    try:
        config = None if options.config is None else read_config(options.config)
        chosen = detectors(options.detectors or offered(), config)
        tables = find_tables(options.data)
        rows = read_rows(options.out)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if "nelbo" in chosen:
            settings = Settings((config or Config()).model_dump(mode="json") | _prepared_by(options), sources_digest())
            warning = check_settings(options.out, settings, rows)
            if warning:
                print(warning, file=sys.stderr)
    except NelboError as error:
        print(error, file=sys.stderr)
        return 2
    failures = _run(_units(tables, options.seeds, list(chosen)), chosen, partial(_parts, options), rows, options.out)
    _conclude(options, config, failures)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz (X, y) or .csv (with a column label)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="CSV; what it holds already is not run again")
    parser.add_argument("--detectors", nargs="+", metavar="NAME", help=f"some of: {', '.join(offered())}")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    parser.add_argument("--categories", action="store_true", help="make half of each table's columns categories")
    parser.add_argument("--split-seed", type=int, help="one seed for the halves; the seeds are of the fits alone then")
    return parser


def _units(tables: Sequence[Path], seeds: Sequence[int], names: Sequence[str]) -> list[Unit]:
    """In the order in which they run: a table is read once, and split once for each seed."""
    return [Unit(table, seed, name) for table in tables for seed in seeds for name in names]


def _prepared_by(options: argparse.Namespace) -> dict[str, Any]:
    """What makes other halves than usual."""
    found = {"categories": options.categories or None, "split_seed": options.split_seed}
    return {name: value for name, value in found.items() if value is not None}


def _parts(options: argparse.Namespace, dataset: Dataset, seed: int) -> Halves:
    of_halves = seed if options.split_seed is None else options.split_seed
    parts = halves(dataset, of_halves)
    return with_categories(parts, of_halves) if options.categories else parts


def _run(
    units: Sequence[Unit],
    chosen: Mapping[str, Detector],
    prepared: Callable[[Dataset, int], Halves],
    rows: Sequence[Row],
    out: Path,
) -> list[str]:
    """Runs what the rows do not hold yet.

    Returns:
        What failed, a line each.
    """
    done = {(row.dataset, row.seed, row.detector.partition(":")[0]) for row in rows}
    todo = [unit for unit in units if (unit.table.stem, unit.seed, unit.detector) not in done]
    failures: list[str] = []
    with Watch([unit.detector for unit in todo], len(units) - len(todo)) as watch:
        for table, found in groupby(todo, lambda unit: unit.table):
            of_table = list(found)
            try:
                dataset = read_dataset(table)
            except NelboError as error:
                failures.append(str(error))
                watch.skip([unit.detector for unit in of_table], f"FAILED: {error}")
                continue
            for seed, of_seed in groupby(of_table, lambda unit: unit.seed):
                parts = prepared(dataset, seed)
                for unit in of_seed:
                    work = partial(_lines, unit, parts, chosen[unit.detector], out, failures)
                    watch.unit(unit.detector, str(unit), work)
    return failures


def _lines(unit: Unit, parts: Halves, detect: Detector, out: Path, failures: list[str]) -> list[str]:
    """Runs a unit and keeps its rows, all or none; the lines say what came of it."""
    try:
        rows = _measured(unit, parts, detect)
    except Exception as error:  # a detector may raise anything, and hours of others must not be lost for it
        failures.append(f"{unit}: {_reason(error)}")
        return [f"{unit} FAILED: {_reason(error)}"]
    append_rows(out, rows)
    return [f"{unit.table.stem} seed {unit.seed} {row.detector}: {row.auroc:.3f} / {row.ap:.3f}" for row in rows]


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, NelboError) else f"{type(error).__name__}: {text}"


def _measured(unit: Unit, parts: Halves, detect: Detector) -> list[Row]:
    ranking = detect(parts, unit.seed)
    return [
        Row(
            dataset=unit.table.stem,
            detector=name,
            seed=unit.seed,
            auroc=round(float(roc_auc_score(parts.is_anomaly, scores)), 6),
            ap=round(float(average_precision_score(parts.is_anomaly, scores)), 6),
            f1=round(f1_at_k(scores, parts.is_anomaly), 6),
            fit_s=round(ranking.fit_s, 3),
            score_s=round(ranking.score_s, 3),
        )
        for name, scores in ranking.scores.items()
    ]


def _conclude(options: argparse.Namespace, config: Config | None, failures: Sequence[str]) -> None:
    """Prints the tables, and leaves a page and a picture beside the CSV."""
    rows = read_rows(options.out)
    if rows:
        print_sheets(sheets(rows))
        draw(rows, options.out.with_suffix(".png"))
        given: dict[str, Any] | None = None if config is None else config.model_dump(mode="json", exclude_unset=True)
        write_page(options.out, rows, _command(options), given, failures)
    for failure in failures:
        print(f"not run: {failure}", file=sys.stderr)


def _command(options: argparse.Namespace) -> str:
    """What makes the CSV again, without the folders of this machine."""
    words = ["python", "-m", "benchmarks.quality", "--data", "FOLDER", "--seeds", *map(str, options.seeds)]
    words += ["--out", options.out.name, *(["--detectors", *options.detectors] if options.detectors else [])]
    words += [] if options.config is None else ["--config", options.config.name]
    words += ["--categories"] if options.categories else []
    words += [] if options.split_seed is None else ["--split-seed", str(options.split_seed)]
    return shlex.join(words)


if __name__ == "__main__":
    raise SystemExit(main())
