"""Does the attribution of a record name the field that is wrong? Normal records, each made wrong in one field or two.

`python -m benchmarks.explanations --data FOLDER [--mixed TABLE --label COLUMN --normal VALUE] [--seeds 0]`

Fits on a half of the normal records of each table and makes copies of the other half wrong, by the generator of
`benchmarks.wrong_cells`: numbers of tables without categories by four robust standard deviations, cells of the mixed
table in every way. Tables with too few records or fields to tell are left out.
"""

import argparse
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.false_alarms import normal_records
from benchmarks.quality.detectors import batches, fitted
from benchmarks.quality.protocol import find_tables, halves, read_dataset
from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.wrong_cells import KINDS, Field, corrupt, field_of
from nelbo.errors import TableError
from nelbo.records import Batch
from nelbo.schema import Schema
from nelbo.scoring import Scored, Scorer
from training.config import Config, read_config

_FEWEST_TRAIN, _FEWEST_FIELDS, _MOST_DISTINCT_OF_FEW = 200, 4, 20  # asked for
_MOST_HIDDEN = 5  # fields of one record, in turn; asked for
_USUAL = 0.1  # p-value of a record that nobody would look at; chosen
_N_TIMED, _N_TIMES = 100, 5  # records, runs of which the fastest counts; chosen
_MOST_READ = 8192  # what `batches` reads at once

OURS, DISTANCE, CONTRIBUTION = "attribution", "distance", "contribution"
# Asked for.
_MEAN, _WORST, _UNSEEN, _PAIR, _COST = 0.92, 0.75, 0.95, 0.8, 1.3

Values = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Named:
    """How often each measure puts the wrong field first, or among the first three.

    Attributes:
        n: wrong records.
        n_flagged: of them, at the bundle's own rate.
        top1, top3: share of all of them, by measure.
        top1_flagged: share of the flagged ones; empty where there are none.
    """

    n: int
    n_flagged: int
    top1: dict[str, float]
    top3: dict[str, float]
    top1_flagged: dict[str, float]


@dataclass(frozen=True)
class Pairs:
    """What becomes of flagged records with two wrong fields when the field of the largest attribution is hidden, again.

    Attributes:
        n_flagged: of the records with two wrong fields.
        first_two: share of them of which the first two fields hidden are the wrong ones.
        at_threshold: share of which both are hidden by the time the score is below the threshold.
        need_two: share whose score is still beyond the threshold with one field hidden.
        of_those: share of these of which both are hidden by the time the score is below the threshold; None of none.
        at_usual: share of which both are hidden by the time the p-value is above a tenth, too.
        n_hidden: fields hidden until then, in the mean.
    """

    n_flagged: int
    first_two: float
    at_threshold: float
    need_two: float
    of_those: float | None
    at_usual: float
    n_hidden: float


@dataclass(frozen=True)
class OfTable:
    """One table without categories and one seed."""

    table: str
    seed: int
    n_fields: int
    named: Named
    pairs: Pairs | None
    cost: float


@dataclass(frozen=True)
class OfMixed:
    """One seed of the mixed table."""

    seed: int
    n_fields: int
    kinds: dict[str, Named]
    cost: float


@dataclass(frozen=True)
class Fitted:
    """A bundle, and what it was not fitted on.

    Attributes:
        scorer: of the bundle.
        fields: of its schema, in order.
        held_out: normal records.
        folder: for files.
    """

    scorer: Scorer
    fields: list[Field]
    held_out: pa.Table
    folder: Path

    def decoded(self, table: pa.Table) -> Batch:
        """Its records, as a file of them is read; `_MOST_READ` at most."""
        path = self.folder / "records.parquet"
        pq.write_table(table, path)
        (batch,) = batches(self.scorer, path)
        return batch

    def positions(self, names: Sequence[str]) -> Positions:
        """Of fields."""
        return np.array([self.scorer.schema.positions[name] for name in names], dtype=np.int64)

    @property
    def spread(self) -> Values:
        """Of each number: one robust standard deviation of its field."""
        by_name = {field.name: field.spread for field in self.fields}
        found = np.array([by_name[column.name] for column in self.scorer.schema.numbers])
        return np.where(found > 0, found, 1.0)  # a field that never moved has no unit of its own


# --- measures of a field's wrongness ------------------------------------------------------------------


def measures(scorer: Scorer, scored: Scored, spread: Values) -> dict[str, Values]:
    """How wrong each field of each record looks, by measure: (n, n_fields), higher = more wrong.

    Distance is |x − x̂| of the record as it is, nothing hidden.

    Distance is |x − x̂| of the record as it is, nothing hidden.

    Args:
        scorer: of the bundle.
        scored: of this scorer.
        spread: of each number, what a distance is divided by.
    """
    numbers, codes, _ = scorer.schema.places
    distance = np.zeros_like(scored.contributions)
    distance[:, numbers] = np.abs(scored.batch.numbers - scored.outputs.expected_numbers) / spread
    # Of a category: what its probability lacks to 1.
    distance[:, codes] = 1 - np.exp(-scored.contributions[:, codes])
    return {
        OURS: scorer.explain(scored, np.arange(len(scored.batch))).attribution,
        DISTANCE: np.where(scored.missing, 0.0, distance),
        CONTRIBUTION: scored.contributions,
    }


def ranks(values: Values, wrong: Positions) -> Positions:
    """How many other fields look at least as wrong as the one that is.

    Args:
        values: shape (n, n_fields).
        wrong: shape (n,), positions.

    >>> ranks(np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), np.array([2, 0]))
    array([1, 1])
    """
    own = np.take_along_axis(values, wrong[:, None], axis=1)
    return np.asarray((values >= own).sum(axis=1) - 1, dtype=np.int64)


def named(fit: Fitted, table: pa.Table, names: Sequence[str]) -> Named:
    """Of records with one wrong field each."""
    scored = fit.scorer.score(fit.decoded(table))
    wrong = fit.positions(names)
    found = {name: ranks(values, wrong) for name, values in measures(fit.scorer, scored, fit.spread).items()}
    n_flagged = int(scored.flagged.sum())
    return Named(
        n=len(wrong),
        n_flagged=n_flagged,
        top1={name: float((rank < 1).mean()) for name, rank in found.items()},
        top3={name: float((rank < 3).mean()) for name, rank in found.items()},
        top1_flagged={name: float((rank[scored.flagged] < 1).mean()) for name, rank in found.items() if n_flagged},
    )


# --- two wrong fields ---------------------------------------------------------------------------------


def twice_wrong(
    normal: pa.Table, fields: Sequence[Field], n: int, rng: np.random.Generator
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Copies of normal records, each with two wrong numbers, and which these are.

    Args:
        normal: records to copy.
        fields: that may be wrong.
        n: copies; some fewer come back, since the second wrong field may be drawn where the first is.
        rng: draws.
    """
    once = corrupt(normal, fields, "shift", n, rng)
    again = corrupt(once.table, fields, "shift", len(once.rows), rng)
    both = [(once.names[row], name) for row, name in zip(again.rows, again.names, strict=True)]
    kept = [i for i, (first, second) in enumerate(both) if first != second]
    return again.table.take(pa.array(kept, pa.int64())), [both[i] for i in kept]


def hidden_in_turn(scorer: Scorer, batch: Batch, most: int = _MOST_HIDDEN) -> tuple[Positions, Values]:
    """Hides the field of the largest attribution, and again.

    Returns:
        Which fields, (n, most) at most, and the scores before the first, between them and after the last,
        one column more.
    """
    chosen, scores = [], []
    for _ in range(min(most, len(scorer.schema.fields))):
        scored = scorer.score(batch)
        attribution = scorer.explain(scored, np.arange(len(batch))).attribution
        best = np.where(scored.missing, -np.inf, attribution).argmax(axis=1)
        chosen.append(best)
        scores.append(scored.statistics["score"])
        batch = without(scorer.schema, batch, best)
    scores.append(scorer.score(batch).statistics["score"])
    return np.stack(chosen, axis=1), np.stack(scores, axis=1)


def without(schema: Schema, batch: Batch, positions: Positions) -> Batch:
    """The records with one field each made missing."""
    gone = positions[:, None] == np.arange(len(schema.fields))
    numbers, codes, _ = schema.places
    return replace(
        batch,
        numbers=np.where(gone[:, numbers], np.nan, batch.numbers),
        codes=np.where(gone[:, codes], -1, batch.codes),
    )


def until(scores: Values, enough: float) -> Positions:
    """How many fields are hidden when a score is first at most `enough`; all where it never is.

    >>> until(np.array([[9.0, 2.0, 1.0], [9.0, 5.0, 4.0]]), 3.0)
    array([1, 2])
    """
    below = scores <= enough
    return np.asarray(np.where(below.any(axis=1), below.argmax(axis=1), scores.shape[1] - 1), dtype=np.int64)


def are_among(wrong: Positions, chosen: Positions, n_hidden: Positions) -> NDArray[np.bool_]:
    """Whether all wrong fields are among the first so many chosen ones.

    Args:
        wrong: shape (n, 2).
        chosen: shape (n, most), in the order in which they were hidden.
        n_hidden: shape (n,).
    """
    counted = np.arange(chosen.shape[1]) < n_hidden[:, None]
    matches = (wrong[:, :, None] == chosen[:, None, :]) & counted[:, None, :]
    return np.asarray(matches.any(axis=2).all(axis=1))


def pairs(fit: Fitted, table: pa.Table, names: Sequence[tuple[str, str]]) -> Pairs | None:
    """Of records with two wrong fields each; None where none is flagged."""
    batch = fit.decoded(table)
    scored = fit.scorer.score(batch)
    flagged = np.flatnonzero(scored.flagged)
    if not flagged.size:
        return None
    part = replace(batch, numbers=batch.numbers[flagged], codes=batch.codes[flagged], index=batch.index[flagged])
    wrong = np.stack([fit.positions(side) for side in zip(*names, strict=True)], axis=1)[flagged]
    chosen, scores = hidden_in_turn(fit.scorer, part)
    threshold = scored.decision.thresholds["score"]
    usual = np.quantile(fit.scorer.bundle.calibration.scores["score"], 1 - _USUAL)
    to_threshold, to_usual = until(scores, threshold), until(scores, min(threshold, float(usual)))
    at_threshold, need_two = are_among(wrong, chosen, to_threshold), to_threshold > 1
    return Pairs(
        n_flagged=len(flagged),
        first_two=float(are_among(wrong, chosen, np.full(len(flagged), 2)).mean()),
        at_threshold=float(at_threshold.mean()),
        need_two=float(need_two.mean()),
        of_those=float(at_threshold[need_two].mean()) if need_two.any() else None,
        at_usual=float(are_among(wrong, chosen, to_usual).mean()),
        n_hidden=float(to_usual.mean()),
    )


# --- tables -------------------------------------------------------------------------------------------


def can_be_wrong(train: pa.Table) -> list[str]:
    """The columns of numbers that have more than 20 distinct values."""
    return [
        name
        for name in train.column_names
        if pa.types.is_floating(train[name].type) or pa.types.is_integer(train[name].type)
        if pc.count_distinct(train[name]).as_py() > _MOST_DISTINCT_OF_FEW
    ]


def of_table(
    name: str, train: pa.Table, held_out: pa.Table, seed: int, n: int, config: Config, folder: Path
) -> OfTable:
    """Fits, makes numbers of held-out normal records wrong, and looks whether they are named."""
    fit = _fit(train, held_out, seed, config, folder)
    wide = set(can_be_wrong(train))
    fields = [field for field in fit.fields if field.kind == "numeric" and field.name in wide]
    # A stream of this seed that the fit does not draw from.
    rng = np.random.default_rng([seed, 22])
    once = corrupt(held_out, fields, "shift", n, rng)
    twice = twice_wrong(held_out, fields, n, rng)
    return OfTable(
        table=name,
        seed=seed,
        n_fields=len(fit.fields),
        named=named(fit, once.table, once.names),
        pairs=pairs(fit, *twice),
        cost=relative_cost(fit.scorer, fit.decoded(held_out.slice(0, _MOST_READ)), rng),
    )


def of_mixed(normal: pa.Table, seed: int, n: int, config: Config, folder: Path) -> OfMixed:
    """Fits on one half of the normal records and makes one cell of records of the other half wrong, in every way."""
    rng = np.random.default_rng([seed, 22])
    train, held_out = (normal.take(pa.array(part)) for part in np.array_split(rng.permutation(normal.num_rows), 2))
    fit = _fit(train, held_out, seed, config, folder)
    made = {kind: corrupt(held_out, fit.fields, kind, n, rng) for kind in KINDS}
    return OfMixed(
        seed=seed,
        n_fields=len(fit.fields),
        kinds={kind: named(fit, wrong.table, wrong.names) for kind, wrong in made.items() if wrong.rows},
        cost=relative_cost(fit.scorer, fit.decoded(held_out.slice(0, _MOST_READ)), rng),
    )


def _fit(train: pa.Table, held_out: pa.Table, seed: int, config: Config, folder: Path) -> Fitted:
    scorer = Scorer(fitted(train, folder, seed, config))
    return Fitted(scorer, [field_of(column, train) for column in scorer.schema.fields], held_out, folder)


def relative_cost(scorer: Scorer, batch: Batch, rng: np.random.Generator) -> float:
    """Seconds to explain n records, by the seconds to score n · (n_fields + 1) records; of one processor's time.

    The latter are other records, not copies of the n: exemplars of a record that was just scored lie in the cache,
    and to score it again takes a quarter less.
    """
    rows = np.arange(min(_N_TIMED, len(batch)))
    drawn = rng.integers(0, len(batch), len(rows) * (len(scorer.schema.fields) + 1))
    many = replace(batch, numbers=batch.numbers[drawn], codes=batch.codes[drawn], index=batch.index[drawn])
    scored = scorer.score(batch)
    explaining, scoring = [], []
    for _ in range(_N_TIMES):
        start = time.process_time()
        scorer.explain(scored, rows)
        between = time.process_time()
        scorer.score(many)
        explaining.append(between - start)
        scoring.append(time.process_time() - between)
    return min(explaining) / min(scoring)


def _tables(options: argparse.Namespace) -> Iterator[tuple[str, int, pa.Table, pa.Table]]:
    """Name, seed, fitted half and held-out normal half of each table that can tell."""
    for path in find_tables(options.data):
        if options.tables and path.stem not in options.tables:
            continue
        dataset = read_dataset(path)
        for seed in options.seeds:
            split = halves(dataset, seed)
            if split.train.num_rows >= _FEWEST_TRAIN and len(can_be_wrong(split.train)) >= _FEWEST_FIELDS:
                yield path.stem, seed, split.train, split.test.filter(pa.array(~split.is_anomaly))


# --- all of them --------------------------------------------------------------------------------------


def by_table(outcomes: Sequence[OfTable]) -> dict[str, dict[str, float]]:
    """Top-1 of each measure, for each table, mean over seeds."""
    tables = dict.fromkeys(outcome.table for outcome in outcomes)
    return {
        table: {
            measure: float(np.mean([one.named.top1[measure] for one in outcomes if one.table == table]))
            for measure in outcomes[0].named.top1
        }
        for table in tables
    }


def verdict(outcomes: Sequence[OfTable], mixed: Sequence[OfMixed]) -> tuple[bool, list[str]]:
    """Whether it is what was asked for, and in words."""
    found = by_table(outcomes)
    hits = {table: of[OURS] for table, of in found.items()}
    worst = min(hits, key=lambda table: hits[table])
    mean = float(np.mean(list(hits.values())))
    beside = ", ".join(
        f"{name} {np.mean([of[name] for of in found.values()]):.3f}" for name in (DISTANCE, CONTRIBUTION)
    )
    checks = [
        (
            mean >= _MEAN and hits[worst] >= _WORST,
            f"One wrong number: {OURS} names it first in {mean:.3f} of the records, mean over tables (asked for: "
            f"{_MEAN}), in {hits[worst]:.3f} on {worst}, the worst (asked for: {_WORST}). {beside}",
        )
    ]
    two = [outcome.pairs for outcome in outcomes if outcome.pairs]
    if two:
        first = float(np.mean([pair.first_two for pair in two]))
        early, alone = (
            float(np.mean(part)) for part in zip(*((p.at_threshold, 1 - p.need_two) for p in two), strict=True)
        )
        text = (
            f"Two wrong numbers, flagged: they are the first two hidden in {first:.3f} of the records, mean over "
            f"tables (asked for: {_PAIR}). To stop at the threshold hides both in {early:.3f}: in {alone:.3f} "
            "one was enough"
        )
        checks.append((first >= _PAIR, text))
    unseen = [one.kinds["unseen category"].top1[OURS] for one in mixed if "unseen category" in one.kinds]
    if unseen:
        share = float(np.mean(unseen))
        checks.append((share >= _UNSEEN, f"Unseen category: named first in {share:.3f} (asked for: {_UNSEEN})"))
    dearest = max([*(outcome.cost for outcome in outcomes), *(outcome.cost for outcome in mixed)])
    text = f"Cost, of scoring n · (fields + 1) records: {dearest:.2f} at most (asked for: {_COST})"
    checks.append((dearest <= _COST, text))
    sentences = [f"{text}: {'passes' if passes else 'FAILS'}." for passes, text in checks]
    return all(passes for passes, _ in checks), sentences


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints how often the wrong field is named; 1 where that misses what is asked."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    outcomes: list[OfTable] = []
    for name, seed, train, held_out in _tables(options):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(of_table(name, train, held_out, seed, options.per_table, config, Path(folder)))
        print(f"{name}, seed {seed}: {_in_short(outcomes[-1])}", flush=True)
    if not outcomes:
        raise TableError(
            f"{options.data}: expected a table of {_FEWEST_TRAIN} normal records to fit and {_FEWEST_FIELDS} fields of "
            f"more than {_MOST_DISTINCT_OF_FEW} distinct values, found none"
        )
    mixed: list[OfMixed] = []
    if options.mixed is not None:
        normal = normal_records(options.mixed, options.label, options.normal)
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                mixed.append(of_mixed(normal, seed, options.per_kind, config, Path(folder)))
    return _conclude(options, outcomes, mixed, results)


def _in_short(outcome: OfTable) -> str:
    hits = ", ".join(f"{name} {share:.3f}" for name, share in outcome.named.top1.items())
    both = f"; first two {outcome.pairs.first_two:.3f}" if outcome.pairs else ""
    return f"{hits}{both}; cost {outcome.cost:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explanations")
    parser.add_argument("--data", type=Path, required=True, help="a folder of .npz or .csv, as of benchmarks.quality")
    parser.add_argument("--tables", nargs="+", help="names of those to take; all if not given")
    parser.add_argument("--mixed", type=Path, help="a table with categories")
    parser.add_argument("--label", help="of the mixed table")
    parser.add_argument("--normal", help="value of the label that is normal")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--per-table", type=int, default=300, help="wrong records of a table; 300 if not given")
    parser.add_argument("--per-kind", type=int, default=500, help="of the mixed table, for each kind; 500")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    return parser


def _conclude(options: argparse.Namespace, outcomes: Sequence[OfTable], mixed: Sequence[OfMixed], results: Path) -> int:
    passes, sentences = verdict(outcomes, mixed)
    parts = ["\n".join(f"- {sentence}" for sentence in sentences), f"## One wrong number\n{_singles(outcomes)}"]
    parts.append(f"## Two wrong numbers\n{_doubles(outcomes)}")
    if mixed:
        parts.append(f"## One wrong cell of a mixed table\n{_kinds(mixed)}")
    body = "\n\n".join(parts)
    print(body)
    found = {
        "passes": passes,
        "config": None if options.config is None else read_config(options.config).model_dump(mode="json"),
        "tables": [asdict(outcome) for outcome in outcomes],
        "mixed": [asdict(outcome) for outcome in mixed],
    }
    write_report("explanations", "Is the wrong field named?", _command(options), found, body, results)
    return 0 if passes else 1


def _singles(outcomes: Sequence[OfTable]) -> str:
    found = by_table(outcomes)
    means = {name: float(np.mean([of[name] for of in found.values()])) for name in (OURS, DISTANCE, CONTRIBUTION)}
    shares = [(table, *(f"{of[name]:.3f}" for name in means)) for table, of in found.items()]
    rest = [_beside([one for one in outcomes if one.table == table]) for table in found]
    rows = [(*share, *others) for share, others in zip(shares, rest, strict=True)]
    last = ("mean", *(f"{mean:.3f}" for mean in means.values()), *[""] * 5)
    headings = ["table", *means, "fields", f"{OURS}, first three", "flagged", f"{OURS}, of the flagged", "cost"]
    return (
        "Share of the records of which the wrong field is first, mean over seeds; cost in runs of n · (fields + 1) "
        f"records:\n\n{markdown_table(headings, [*rows, last])}"
    )


def _beside(of_table: Sequence[OfTable]) -> tuple[str, ...]:
    flagged = [one.named.top1_flagged[OURS] for one in of_table if one.named.n_flagged]
    return (
        str(of_table[0].n_fields),
        f"{np.mean([one.named.top3[OURS] for one in of_table]):.3f}",
        f"{np.mean([one.named.n_flagged / one.named.n for one in of_table]):.2f}",
        _share(flagged),
        f"{max(one.cost for one in of_table):.2f}",
    )


def _doubles(outcomes: Sequence[OfTable]) -> str:
    names = ["first_two", "at_threshold", "need_two", "of_those", "at_usual", "n_hidden"]
    found = {
        table: [asdict(one.pairs) for one in outcomes if one.table == table and one.pairs]
        for table in dict.fromkeys(outcome.table for outcome in outcomes)
    }
    rows = [
        (table, sum(pair["n_flagged"] for pair in of), *(_share([pair[name] for pair in of]) for name in names))
        for table, of in found.items()
    ]
    last = ("mean", "", *(_share([pair[name] for of in found.values() for pair in of]) for name in names))
    headings = [
        *("table", "flagged", "the first two", "both by the threshold", "need two", "both, of those that need two"),
        *(f"both by p > {_USUAL:g}", "fields hidden until then"),
    ]
    return (
        "The field of the largest attribution is hidden, and again, five at most. To hide one alone often takes a "
        "record below the threshold: then no second one is looked for there.\n\n"
        f"{markdown_table(headings, [*rows, last])}"
    )


def _share(values: Sequence[float | None]) -> str:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else "–"


def _kinds(mixed: Sequence[OfMixed]) -> str:
    kinds = {kind: [one.kinds[kind] for one in mixed if kind in one.kinds] for kind in KINDS}
    rows = [
        (
            kind,
            *(
                f"{_share([one.top1[name] for one in of])}, {_share([one.top3[name] for one in of])}"
                for name in (OURS, DISTANCE, CONTRIBUTION)
            ),
            _share([one.n_flagged / one.n for one in of]),
        )
        for kind, of in kinds.items()
    ]
    return (
        "Share of the records of which the wrong field is first, and among the first three, mean over seeds; and how "
        f"many are flagged at all:\n\n{markdown_table(['kind', OURS, DISTANCE, CONTRIBUTION, 'flagged'], rows)}"
    )


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "benchmarks.explanations", "--data", options.data.name]
    words += ["--tables", *options.tables] if options.tables else []
    if options.mixed is not None:
        words += ["--mixed", options.mixed.name, "--label", options.label, "--normal", options.normal]
    words += ["--seeds", *map(str, options.seeds), "--per-table", str(options.per_table)]
    words += ["--per-kind", str(options.per_kind)] if options.mixed is not None else []
    words += [] if options.config is None else ["--config", options.config.name]
    return shlex.join(words)


if __name__ == "__main__":
    raise SystemExit(main())
