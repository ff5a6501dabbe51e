"""Does a single wrong cell stand out? Normal records of mixed fields, each made wrong in one place.

`python -m benchmarks.wrong_cells TABLE --label COLUMN --normal VALUE [--seeds 0 1 2] [--config FILE.toml]`

Fits on a half of the normal records and makes copies of the other half wrong. The cells are changed as the table has
them, before anything is encoded, so that no detector's own view of the records is built into them; the report of a
fit injects its own (`training.injection`), in the model's codes.
"""

import argparse
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.false_alarms import normal_records
from benchmarks.quality.detectors import PEERS, fitted, statistics_of
from benchmarks.quality.protocol import Halves
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.schema import Column
from nelbo.scoring import Scorer
from training.config import Config, read_config

_SHIFT = 4.0  # robust standard deviations: outside the bulk, inside what most sensors can say; chosen
_TRIES = 100  # donors that a swap looks at before it takes another field; chosen
_FALSE_ALARMS = 0.01
_MARGIN = 0.05  # of the mean AUROC over DTE-NP's; asked for
_OURS, _RIVAL = "nelbo:score", "DTE-NP"
_AS_NUMBERS = "DTE-NP, 0/1 as numbers"

KINDS = {
    "shift": f"a number moved by {_SHIFT:g} robust standard deviations, up or down",
    "× 10": "a number that is not 0, times ten",
    "swap": "a value taken from another record",
    "wrong category": "another known category",
    "unseen category": "a category that training did not see",
}

Scores = NDArray[np.float64]
Figures = dict[str, dict[str, float]]  # of each detector, for each kind


@dataclass(frozen=True)
class Field:
    """What can be done to a field's cells.

    Attributes:
        name: of the column.
        kind: numeric, categorical, boolean or timestamp.
        values: that training saw, distinct.
        spread: numeric; one robust standard deviation.
        step: numeric; what the values are rounded to, None if to nothing.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    spread: float = 0.0
    step: float | None = None

    @property
    def is_category(self) -> bool:
        """Its values are names."""
        return self.kind in ("categorical", "boolean")


@dataclass(frozen=True)
class Corrupted:
    """Normal records, each with one wrong cell.

    Attributes:
        table: n records.
        rows: of each, the record that it was.
        names: of each, the field that is wrong.
    """

    table: pa.Table
    rows: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """One seed's figures: AUROC, and power at 1 % false alarms."""

    seed: int
    n_normal: int
    n_per_kind: dict[str, int]
    auroc: Figures
    power: Figures


# --- the generator ------------------------------------------------------------------------------------


def field_of(column: Column, train: pa.Table) -> Field:
    """A field, by what training saw of it."""
    values = [value for value in train[column.name].unique().to_pylist() if value is not None]
    if column.kind != "numeric":
        return Field(column.name, str(column.kind), tuple(values))
    numbers = np.asarray(train[column.name].drop_null().to_numpy(), dtype=np.float64)
    return Field(column.name, "numeric", tuple(values), robust_spread(numbers), step_of(numbers))


def robust_spread(numbers: NDArray[np.float64]) -> float:
    """The interquartile range as a normal's standard deviation; of the rest where one value fills half.

    >>> robust_spread(np.array([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, 2.0, 3.0])) == 1 / 1.349
    True
    """
    distinct, counts = np.unique(numbers, return_counts=True)
    rest = numbers[numbers != distinct[counts.argmax()]]
    for part in (rest, numbers) if 2 * counts.max() >= len(numbers) else (numbers,):
        if part.size:
            low, high = np.quantile(part, [0.25, 0.75])
            if high > low:
                return float(high - low) / 1.349
    return float(numbers.std())


def step_of(numbers: NDArray[np.float64]) -> float | None:
    """The largest of 1, 0.1, … 0.0001 that all numbers are multiples of; None if there is none.

    >>> step_of(np.array([0.25, 1.5])), step_of(np.array([0.123456]))
    (0.01, None)
    """
    for decimals in range(5):
        if np.array_equal(np.round(numbers, decimals), numbers):
            return round(10.0**-decimals, decimals)
    return None


def corrupt(normal: pa.Table, fields: Sequence[Field], kind: str, n: int, rng: np.random.Generator) -> Corrupted:
    """Copies of n normal records at most, each with one wrong cell.

    Args:
        normal: records to copy, and to swap values with.
        fields: of them.
        kind: of KINDS.
        n: copies; fewer come back where fewer records can be made wrong like this.
        rng: draws records, fields and values.
    """
    columns = {field.name: normal[field.name].to_pylist() for field in fields}
    wrong: dict[int, tuple[str, Any]] = {}
    for row in rng.permutation(normal.num_rows).tolist():
        if len(wrong) == n:
            break
        for i in rng.permutation(len(fields)):
            field = fields[i]
            value = _wrong_value(field, kind, columns[field.name], row, rng)
            if value is not None:
                wrong[row] = (field.name, value)
                break
    rows, names = tuple(wrong), tuple(name for name, _ in wrong.values())
    table = normal.take(pa.array(rows, pa.int64()))
    for field in fields:
        cells = [value if name == field.name else columns[field.name][row] for row, (name, value) in wrong.items()]
        position = table.schema.get_field_index(field.name)
        table = table.set_column(position, field.name, pa.array(cells, table.schema.field(position).type))
    return Corrupted(table, rows, names)


def _wrong_value(field: Field, kind: str, column: Sequence[Any], row: int, rng: np.random.Generator) -> Any:
    """What a cell becomes, another value than it has; None where this kind cannot be done to it."""
    before = column[row]
    if _is_missing(before):
        return None
    if kind == "swap":
        donors = (column[i] for i in rng.integers(0, len(column), _TRIES))
        return next((donor for donor in donors if not _is_missing(donor) and donor != before), None)
    if kind in ("shift", "× 10") and field.kind == "numeric":
        return _shifted(field, before, rng) if kind == "shift" else _times_ten(before)
    if kind == "wrong category" and field.is_category:
        others = [value for value in field.values if value != before]
        return others[int(rng.integers(len(others)))] if others else None
    if kind == "unseen category" and field.kind == "categorical":
        return _unseen(field, column)
    return None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and isnan(value))


def _shifted(field: Field, before: float, rng: np.random.Generator) -> float | None:
    distance = _SHIFT * field.spread
    if field.step is not None:
        distance = max(round(distance / field.step), 1) * field.step
    after = before + float(rng.choice([-distance, distance]))
    after = after if field.step is None else round(after, 4)  # no step is finer; the sum of two floats is
    return _like(before, after) if after != before else None


def _times_ten(before: float) -> float | None:
    return _like(before, 10 * before) if before else None


def _like(before: float, after: float) -> float:
    """An integer where there was one: a column of integers holds nothing else."""
    return round(after) if isinstance(before, int) else after


def _unseen(field: Field, column: Sequence[Any]) -> Any:
    taken = {*field.values, *(value for value in column if value is not None)}
    return "never seen before" if isinstance(next(iter(taken)), str) else max(taken) + 1


# --- one seed -----------------------------------------------------------------------------------------


def measure(normal: pa.Table, seed: int, n_per_kind: int, config: Config, schema: Path | None = None) -> Outcome:
    """Fits on one half, makes copies of the other half wrong, and lets every detector score both.

    Args:
        normal: the normal records, without their label.
        seed: of the halves, the fit and the wrong cells.
        n_per_kind: wrong records of each kind.
        config: of the fit.
        schema: path of one; None infers it.
    """
    # A stream of this seed that the fit does not draw from.
    rng = np.random.default_rng([seed, 21])
    order = rng.permutation(normal.num_rows)
    train, rest = (normal.take(pa.array(part)) for part in np.array_split(order, 2))
    with tempfile.TemporaryDirectory() as name:
        scorer = Scorer(fitted(train, Path(name), seed, config, schema))
        fields = [field_of(column, train) for column in scorer.schema.fields]
        made = {kind: corrupt(rest, fields, kind, n_per_kind, rng) for kind in KINDS}
        made = {kind: corrupted for kind, corrupted in made.items() if corrupted.rows}
        test = pa.concat_tables([rest, *(corrupted.table for corrupted in made.values())])
        path = Path(name, "test.parquet")
        pq.write_table(test, path)
        scores = statistics_of(scorer, path)
    scores |= _peer_scores(train, test, fields, seed)
    kinds = np.repeat(["", *made], [rest.num_rows, *(len(corrupted.rows) for corrupted in made.values())])
    return Outcome(
        seed=seed,
        n_normal=rest.num_rows,
        n_per_kind={kind: len(corrupted.rows) for kind, corrupted in made.items()},
        auroc={detector: {kind: _auroc(found, kinds, kind) for kind in made} for detector, found in scores.items()},
        power={detector: {kind: power(found, kinds, kind) for kind in made} for detector, found in scores.items()},
    )


def _peer_scores(train: pa.Table, test: pa.Table, fields: Sequence[Field], seed: int) -> dict[str, Scores]:
    """The neighbours', on the same fields: numbers standardised, categories one-hot by √½ whatever their type."""
    none_odd = np.zeros(test.num_rows, dtype=np.bool_)  # a ranking does not look at it
    names = [field.name for field in fields]
    plain = Halves(train.select(names), test.select(names), none_odd)
    coded = Halves(_as_text(plain.train, fields), _as_text(plain.test, fields), none_odd)
    scores = {name: PEERS[name](coded, seed).scores[name] for name in (_RIVAL, "kNN")}
    if any(field.is_category and not isinstance(field.values[0], str) for field in fields):
        # The other reading of a 0/1 column: standardised, a rare 1 lies far away.
        scores[_AS_NUMBERS] = PEERS[_RIVAL](plain, seed).scores[_RIVAL]
    return scores


def _as_text(table: pa.Table, fields: Sequence[Field]) -> pa.Table:
    for field in fields:
        if field.is_category:
            position = table.schema.get_field_index(field.name)
            table = table.set_column(position, field.name, table[field.name].cast(pa.string()))
    return table


def _auroc(scores: Scores, kinds: NDArray[np.str_], kind: str) -> float:
    compared = (kinds == "") | (kinds == kind)
    return float(roc_auc_score(kinds[compared] == kind, scores[compared]))


def power(scores: Scores, kinds: NDArray[np.str_], kind: str) -> float:
    """Share of a kind beyond all but 1 % of the normal records ("").

    >>> kinds = np.array([""] * 200 + ["odd"] * 2)
    >>> power(np.array([*range(200), 198, 197.0]), kinds, "odd")
    0.5
    """
    normal = np.sort(scores[kinds == ""])
    n_above = int(_FALSE_ALARMS * len(normal))
    return float((scores[kinds == kind] > normal[len(normal) - 1 - n_above]).mean())


# --- all seeds ----------------------------------------------------------------------------------------


def mean_figures(figures: Sequence[Figures]) -> Figures:
    """The mean over seeds."""
    return {
        detector: {kind: float(np.mean([one[detector][kind] for one in figures])) for kind in kinds}
        for detector, kinds in figures[0].items()
    }


def mean_over_kinds(figures: Figures) -> dict[str, float]:
    """Of each detector."""
    return {detector: float(np.mean(list(kinds.values()))) for detector, kinds in figures.items()}


def verdict(auroc: Figures) -> tuple[bool, str]:
    """Whether ours is what was asked for beside DTE-NP, and in words."""
    means = mean_over_kinds(auroc)
    margin = means[_OURS] - means[_RIVAL]
    below = [kind for kind, value in auroc[_OURS].items() if value < auroc[_RIVAL][kind]]
    passes = margin >= _MARGIN and not below
    sentence = (
        f"Mean AUROC of {_OURS} {means[_OURS]:.3f}, of {_RIVAL} {means[_RIVAL]:.3f}: {margin:+.3f} (asked for: "
        f"{_MARGIN:+.2f}); below it: {', '.join(below) or 'no kind'} (asked for: none): "
        f"{'passes' if passes else 'FAILS'}."
    )
    return passes, sentence


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints AUROC and power by kind; 1 where they miss what is asked."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    normal = normal_records(options.table, options.label, options.normal)
    outcomes = []
    for seed in options.seeds:
        outcomes.append(measure(normal, seed, options.per_kind, config, options.schema))
        means = mean_over_kinds(outcomes[-1].auroc)
        print(f"seed {seed}: mean AUROC {', '.join(f'{k} {v:.3f}' for k, v in means.items())}", flush=True)
    return _conclude(options, outcomes, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wrong_cells")
    parser.add_argument("table", type=Path)
    parser.add_argument("--label", required=True)
    parser.add_argument("--normal", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-kind", type=int, default=500, help="wrong records of each kind; 500 if not given")
    parser.add_argument("--schema", type=Path, help="a schema file; inferred if not given")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    return parser


def _conclude(options: argparse.Namespace, outcomes: Sequence[Outcome], results: Path) -> int:
    auroc = mean_figures([outcome.auroc for outcome in outcomes])
    power_ = mean_figures([outcome.power for outcome in outcomes])
    passes, sentence = verdict(auroc)
    tables = [
        f"AUROC by kind, mean over seeds:\n\n{_table(auroc)}",
        f"Power at 1 % false alarms (of the held-out normal records), mean over seeds:\n\n{_table(power_)}",
        "Mean AUROC over kinds, by seed:\n\n"
        + markdown_table(
            ["seed", *auroc],
            [(o.seed, *(f"{v:.3f}" for v in mean_over_kinds(o.auroc).values())) for o in outcomes],
        ),
    ]
    kinds = "\n".join(f"- {kind}: {KINDS[kind]}" for kind in outcomes[0].n_per_kind)
    body = "\n\n".join([sentence, f"{options.per_kind} records of each kind at most:\n\n{kinds}", *tables])
    print(body)
    found = {
        "passes": passes,
        "config": None if options.config is None else read_config(options.config).model_dump(mode="json"),
        "auroc": auroc,
        "power": power_,
        "seeds": [asdict(outcome) for outcome in outcomes],
    }
    name = f"wrong_cells_{options.table.stem}"
    write_report(name, f"Single wrong cells in {options.table.name}", _command(options), found, body, results)
    return 0 if passes else 1


def _table(figures: Mapping[str, Mapping[str, float]]) -> str:
    kinds = list(next(iter(figures.values())))
    rows = [
        (detector, *(f"{values[kind]:.3f}" for kind in kinds), f"{np.mean(list(values.values())):.3f}")
        for detector, values in figures.items()
    ]
    return markdown_table(["detector", *kinds, "mean"], rows)


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "benchmarks.wrong_cells", options.table.name, "--label", options.label]
    words += ["--normal", options.normal, "--seeds", *map(str, options.seeds), "--per-kind", str(options.per_kind)]
    for name in ("schema", "config"):
        path = getattr(options, name)
        words += [] if path is None else [f"--{name}", path.name]
    return shlex.join(words)


if __name__ == "__main__":
    raise SystemExit(main())
