"""Does an explanation name the fields that are wrong, and hold an interval what it says?

`python -m benchmarks.explanations --data FOLDER [--mixed TABLE --label COLUMN --normal VALUE] [--seeds 0]`

Fits on a half of the normal records of each table and makes copies of the other half wrong, by the generator of
`benchmarks.wrong_cells`: numbers of tables without categories by four robust standard deviations, cells of the mixed
table in every way. Tables with too few records or fields to tell are left out. Intervals are checked with the other
half as it is. `--bundles FOLDER` keeps the fits for the next run.
"""

import argparse
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import betabinom
from sklearn.metrics import roc_auc_score

from benchmarks.false_alarms import normal_records
from benchmarks.fitted import fitted_once, folder_of_fits
from benchmarks.quality.detectors import batches
from benchmarks.quality.protocol import find_tables, halves, read_dataset
from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.wrong_cells import KINDS, Field, corrupt, field_of
from nelbo.errors import TableError
from nelbo.explanation import causes, explain, repair
from nelbo.intervals import Interval, n_outside
from nelbo.records import Batch
from nelbo.scoring import Scored, Scorer
from training.config import Config, read_config

_FEWEST_TRAIN, _FEWEST_FIELDS, _MOST_DISTINCT_OF_FEW = 200, 4, 20  # asked for
_N_COVERED = 2_000  # held-out records that intervals are checked with; chosen
_N_TIMED, _N_TIMES = 100, 5  # records, runs of which the fastest counts; chosen
_MOST_READ = 8192  # what `batches` reads at once

OURS, DISTANCE, CONTRIBUTION = "attribution", "distance", "contribution"
SCORE, ENERGY, ODDEST = "score", "−ELBO", "oddest field alone"
# Asked for.
_MEAN, _WORST, _UNSEEN, _PAIR, _COST = 0.92, 0.75, 0.95, 0.8, 1.3
_BAND, _IN_BAND = 0.99, 0.95  # beta-binomial, and the share of fields that are to lie in it

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
    """What explains flagged records with two wrong fields.

    Attributes:
        n_flagged: of the records with two wrong fields.
        found: share of them of which both are among the causes.
        exactly: share of which they are the causes.
        n_causes: in the mean.
        repaired: share of which the repair is not flagged.
    """

    n_flagged: int
    found: float
    exactly: float
    n_causes: float
    repaired: float


@dataclass(frozen=True)
class Covered:
    """How many held-out normal values of one field lie within their interval.

    Attributes:
        n_distinct: values that training saw.
        commonest: share of the held-out records that have the commonest value of them.
        n: held-out records with a value.
        n_calibration: records behind the interval.
        share: of the n, within the interval as it is shown.
        low, high: where that lies with 99 %, the interval's coverage being certain only to its calibration records.
    """

    field: str
    n_distinct: int
    commonest: float
    n: int
    n_calibration: int
    share: float
    low: float
    high: float

    @property
    def can_be_exact(self) -> bool:
        """It has many values, and none of them fills the interval alone: else the interval holds it, or too little."""
        return self.n_distinct > _MOST_DISTINCT_OF_FEW and self.commonest <= self.high

    @property
    def is_kept(self) -> bool:
        """What the interval says is true: nine of ten, or at least as many where that cannot be exact."""
        return self.low <= self.share and (self.share <= self.high or not self.can_be_exact)


@dataclass(frozen=True)
class OfTable:
    """One table without categories and one seed."""

    table: str
    seed: int
    n_fields: int
    named: Named
    pairs: Pairs | None
    intervals: list[Covered]
    cost: float


@dataclass(frozen=True)
class OfMixed:
    """One seed of the mixed table.

    Attributes:
        detected: AUROC against held-out normal records, of each kind by statistic.
    """

    seed: int
    n_fields: int
    kinds: dict[str, Named]
    detected: dict[str, dict[str, float]]
    intervals: list[Covered]
    cost: float


@dataclass(frozen=True)
class Fitted:
    """A bundle, and what it was not fitted on.

    Attributes:
        scorer: of the bundle.
        fields: of its schema, in order.
        held_out: normal records.
    """

    scorer: Scorer
    fields: list[Field]
    held_out: pa.Table

    def decoded(self, table: pa.Table) -> Batch:
        """Its records, as a file of them is read; `_MOST_READ` at most."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.parquet")
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
        OURS: explain(scorer, scored, np.arange(len(scored.batch))).attribution,
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


def pairs(fit: Fitted, table: pa.Table, names: Sequence[tuple[str, str]]) -> Pairs | None:
    """Of records with two wrong fields each; None where none is flagged."""
    scorer = fit.scorer
    scored = scorer.score(fit.decoded(table))
    flagged = np.flatnonzero(scored.flagged)
    if not flagged.size:
        return None
    wrong = [set(fit.positions(names[row]).tolist()) for row in flagged.tolist()]
    found = causes(scorer, scored, explain(scorer, scored, flagged))
    both = list(zip(wrong, map(set, found.fields), strict=True))
    return Pairs(
        n_flagged=len(flagged),
        found=float(np.mean([pair <= fields for pair, fields in both])),
        exactly=float(np.mean([pair == fields for pair, fields in both])),
        n_causes=float(np.mean([len(fields) for fields in found.fields])),
        repaired=float((~repair(scorer, scored, found).scored.flagged).mean()),
    )


# --- intervals ----------------------------------------------------------------------------------------


def covered(fit: Fitted, train: pa.Table) -> list[Covered]:
    """Of each numeric field that has an interval, by the first held-out records."""
    schema, intervals = fit.scorer.schema, fit.scorer.bundle.calibration.intervals
    batch = fit.decoded(fit.held_out.slice(0, _N_COVERED))
    found = []
    for at, field in enumerate(schema.numbers):
        values = batch.numbers[:, at]
        is_there = np.isfinite(values)
        if field.name not in intervals or not is_there.any():
            continue
        hidden = np.zeros((len(batch), len(schema.fields)), dtype=np.bool_)
        hidden[:, schema.positions[field.name]] = True
        expected = fit.scorer.without(batch, hidden).expected_numbers[:, at]
        shown = np.array([intervals[field.name].shown(x, field.step) for x in expected[is_there].tolist()])
        is_within = (shown[:, 1] <= values[is_there]) & (values[is_there] <= shown[:, 2])
        n_distinct = pc.count_distinct(train[field.name]).as_py()
        found.append(_covered(field.name, n_distinct, intervals[field.name], values[is_there], is_within))
    return found


def _covered(name: str, n_distinct: int, interval: Interval, values: Values, is_within: NDArray[np.bool_]) -> Covered:
    low, high = band(interval.n, len(values))
    return Covered(
        field=name,
        n_distinct=n_distinct,
        commonest=float(np.unique(values, return_counts=True)[1].max() / len(values)),
        n=len(values),
        n_calibration=sum(interval.n),
        share=float(is_within.mean()),
        low=low,
        high=high,
    )


def band(n_calibration: Sequence[int], n: int) -> tuple[float, float]:
    """Where the share of n new values within an interval lies with 99 %.

    Args:
        n_calibration: records of each bin; bins are of equally many records, and as likely for a new one.
        n: new values.

    >>> [round(end, 3) for end in band([199], 1000)]
    [0.832, 0.951]
    """
    outside = sum(2 * n_outside(of) for of in n_calibration)
    law = betabinom(n, sum(of + 1 for of in n_calibration) - outside, outside)
    return float(law.ppf((1 - _BAND) / 2) / n), float(law.ppf((1 + _BAND) / 2) / n)


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
    name: str, train: pa.Table, held_out: pa.Table, seed: int, n: int, config: Config, bundles: Path
) -> OfTable:
    """Fits, makes numbers of held-out normal records wrong, and looks whether they are named."""
    fit = _fit(name, train, held_out, seed, config, bundles)
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
        intervals=covered(fit, train),
        cost=relative_cost(fit.scorer, fit.decoded(held_out.slice(0, _MOST_READ)), rng),
    )


def of_mixed(name: str, normal: pa.Table, seed: int, n: int, config: Config, bundles: Path) -> OfMixed:
    """Fits on one half of the normal records and makes one cell of records of the other half wrong, in every way."""
    rng = np.random.default_rng([seed, 22])
    train, held_out = (normal.take(pa.array(part)) for part in np.array_split(rng.permutation(normal.num_rows), 2))
    fit = _fit(name, train, held_out, seed, config, bundles)
    made = {kind: corrupt(held_out, fit.fields, kind, n, rng) for kind in KINDS}
    made = {kind: wrong for kind, wrong in made.items() if wrong.rows}
    return OfMixed(
        seed=seed,
        n_fields=len(fit.fields),
        kinds={kind: named(fit, wrong.table, wrong.names) for kind, wrong in made.items()},
        detected=detected(fit, {kind: wrong.table for kind, wrong in made.items()}),
        intervals=covered(fit, train),
        cost=relative_cost(fit.scorer, fit.decoded(held_out.slice(0, _MOST_READ)), rng),
    )


def _fit(name: str, train: pa.Table, held_out: pa.Table, seed: int, config: Config, bundles: Path) -> Fitted:
    scorer = Scorer(fitted_once(train, bundles, name, seed, config))
    return Fitted(scorer, [field_of(column, train) for column in scorer.schema.fields], held_out)


def detected(fit: Fitted, wrong: Mapping[str, pa.Table]) -> dict[str, dict[str, float]]:
    """AUROC of each kind of wrong records against the held-out normal ones, by statistic."""
    normal = _oddness(fit, fit.held_out.slice(0, _MOST_READ))
    found: dict[str, dict[str, float]] = {}
    for kind, table in wrong.items():
        of_kind = _oddness(fit, table)
        is_wrong = np.arange(len(normal[SCORE]) + table.num_rows) >= len(normal[SCORE])
        found[kind] = {
            name: float(roc_auc_score(is_wrong, np.concatenate([normal[name], of_kind[name]]))) for name in normal
        }
    return found


def _oddness(fit: Fitted, table: pa.Table) -> dict[str, Values]:
    """What decides, and two simpler statistics: −ELBO, and the oddest field alone, each in its own measure."""
    scored, combination = fit.scorer.score(fit.decoded(table)), fit.scorer.bundle.calibration.combination
    of_field = (scored.contributions - np.array(combination.location)) / np.array(combination.spread)
    return {SCORE: scored.statistics["score"], ENERGY: -scored.statistics["elbo"], ODDEST: of_field.max(axis=1)}


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
        explain(scorer, scored, rows)
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
        both, exactly = (float(np.mean(part)) for part in zip(*((p.found, p.exactly) for p in two), strict=True))
        repaired = float(np.mean([pair.repaired for pair in two]))
        text = (
            f"Two wrong numbers, flagged: both are among the causes of {both:.3f} of the records, mean over tables "
            f"(asked for: {_PAIR}), and are the causes of {exactly:.3f}; {repaired:.3f} are not flagged once repaired"
        )
        checks.append((both >= _PAIR, text))
    checks += _of_intervals(
        [field for of in [*(one.intervals for one in outcomes), *(one.intervals for one in mixed)] for field in of]
    )
    unseen = [one.kinds["unseen category"].top1[OURS] for one in mixed if "unseen category" in one.kinds]
    if unseen:
        share = float(np.mean(unseen))
        checks.append((share >= _UNSEEN, f"Unseen category: named first in {share:.3f} (asked for: {_UNSEEN})"))
    checks += _of_detection(mixed)
    dearest = max([*(outcome.cost for outcome in outcomes), *(outcome.cost for outcome in mixed)])
    text = f"Cost, of scoring n · (fields + 1) records: {dearest:.2f} at most (asked for: {_COST})"
    checks.append((dearest <= _COST, text))
    sentences = [f"{text}: {'passes' if passes else 'FAILS'}." for passes, text in checks]
    return all(passes for passes, _ in checks), sentences


def _of_detection(mixed: Sequence[OfMixed]) -> Iterator[tuple[bool, str]]:
    """Whether what decides tells wrong cells as well as the better of two simpler statistics, all kinds together."""
    kinds = [of_kind for one in mixed for of_kind in one.detected.values()]
    if kinds:
        means = {name: float(np.mean([of_kind[name] for of_kind in kinds])) for name in kinds[0]}
        others = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items() if name != SCORE)
        text = f"Wrong cells: AUROC {means[SCORE]:.3f}, mean over kinds (asked for, the better of: {others})"
        yield means[SCORE] >= max(means.values()), text


def _of_intervals(fields: Sequence[Covered]) -> Iterator[tuple[bool, str]]:
    exact = [field for field in fields if field.can_be_exact]
    if exact:
        share = float(np.mean([field.is_kept for field in exact]))
        mean = float(np.mean([field.share for field in exact]))
        text = (
            f"Intervals of {len(exact)} fields of many values, none too common: they hold {mean:.3f} of the held-out "
            f"values in the mean, and as many as they say, within its {_BAND:.0%} band, in {share:.3f} of the fields "
            f"(asked for: {_IN_BAND})"
        )
        yield share >= _IN_BAND, text
    others = [field for field in fields if not field.can_be_exact]
    if others:
        share = float(np.mean([field.is_kept for field in others]))
        common = sum(field.n_distinct > _MOST_DISTINCT_OF_FEW for field in others)
        text = (
            f"Intervals of {len(others)} other fields ({common} of them have many values, of which one alone is that "
            f"of more records than the band has room for): they hold at least as many in {share:.3f} (asked for: "
            f"{_IN_BAND})"
        )
        yield share >= _IN_BAND, text


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints how often the wrong field is named; 1 where that misses what is asked."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    outcomes: list[OfTable] = []
    mixed: list[OfMixed] = []
    with folder_of_fits(options.bundles) as bundles:
        for name, seed, train, held_out in _tables(options):
            outcomes.append(of_table(name, train, held_out, seed, options.per_table, config, bundles))
            print(f"{name}, seed {seed}: {_in_short(outcomes[-1])}", flush=True)
        if not outcomes:
            raise TableError(
                f"{options.data}: expected a table of {_FEWEST_TRAIN} normal records to fit and {_FEWEST_FIELDS} "
                f"fields of more than {_MOST_DISTINCT_OF_FEW} distinct values, found none"
            )
        if options.mixed is not None:
            normal = normal_records(options.mixed, options.label, options.normal)
            name = options.mixed.stem
            mixed = [of_mixed(name, normal, seed, options.per_kind, config, bundles) for seed in options.seeds]
    return _conclude(options, outcomes, mixed, results)


def _in_short(outcome: OfTable) -> str:
    hits = ", ".join(f"{name} {share:.3f}" for name, share in outcome.named.top1.items())
    both = f"; both {outcome.pairs.found:.3f}" if outcome.pairs else ""
    kept = sum(field.is_kept for field in outcome.intervals)
    return f"{hits}{both}; intervals kept {kept} of {len(outcome.intervals)}; cost {outcome.cost:.2f}"


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
    parser.add_argument("--bundles", type=Path, help="a folder that keeps the fits; none are kept if not given")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    return parser


def _conclude(options: argparse.Namespace, outcomes: Sequence[OfTable], mixed: Sequence[OfMixed], results: Path) -> int:
    passes, sentences = verdict(outcomes, mixed)
    parts = ["\n".join(f"- {sentence}" for sentence in sentences), f"## One wrong number\n{_singles(outcomes)}"]
    parts.append(f"## Two wrong numbers\n{_doubles(outcomes)}")
    parts.append(f"## Intervals\n{_intervals(outcomes, mixed)}")
    if mixed:
        parts.append(f"## One wrong cell of a mixed table\n{_kinds(mixed)}\n\n{_detections(mixed)}")
    body = "\n\n".join(parts)
    print(body)
    found = {
        "passes": passes,
        "config": None if options.config is None else read_config(options.config).model_dump(mode="json"),
        "tables": [asdict(outcome) for outcome in outcomes],
        "mixed": [asdict(outcome) for outcome in mixed],
    }
    write_report(
        "explanations", "Are the wrong fields named, and do intervals hold?", _command(options), found, body, results
    )
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
    names = ["found", "exactly", "n_causes", "repaired"]
    found = {
        table: [asdict(one.pairs) for one in outcomes if one.table == table and one.pairs]
        for table in dict.fromkeys(outcome.table for outcome in outcomes)
    }
    rows = [
        (table, sum(pair["n_flagged"] for pair in of), *(_share([pair[name] for pair in of]) for name in names))
        for table, of in found.items()
    ]
    last = ("mean", "", *(_share([pair[name] for of in found.values() for pair in of]) for name in names))
    headings = ["table", "flagged", "both are causes", "they are the causes", "causes", "not flagged once repaired"]
    return f"Of the flagged records, mean over seeds:\n\n{markdown_table(headings, [*rows, last])}"


def _intervals(outcomes: Sequence[OfTable], mixed: Sequence[OfMixed]) -> str:
    tables = dict.fromkeys(outcome.table for outcome in outcomes)
    found = {table: [field for of in outcomes if of.table == table for field in of.intervals] for table in tables}
    if mixed:
        found["the mixed table"] = [field for of in mixed for field in of.intervals]
    rows = []
    for table, fields in found.items():
        exact = [field for field in fields if field.can_be_exact]
        others = [field for field in fields if not field.can_be_exact]
        shares = _share([field.share for field in exact])
        kept = [f"{sum(field.is_kept for field in of)} of {len(of)}" for of in (exact, others)]
        missed = ", ".join(f"{field.field} {field.share:.3f}" for field in fields if not field.is_kept)
        rows.append((table, shares, *kept, missed))
    headings = ["table", "held, of fields of many values", "of these, in the band", "others, enough", "not as they say"]
    return (
        f"Share of at most {_N_COVERED} held-out normal values that lie within their interval, all seeds:\n\n"
        f"{markdown_table(headings, rows)}"
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


def _detections(mixed: Sequence[OfMixed]) -> str:
    names = (SCORE, ENERGY, ODDEST)
    kinds = [kind for kind in KINDS if any(kind in one.detected for one in mixed)]
    rows = [
        (kind, *(_share([one.detected[kind][name] for one in mixed if kind in one.detected]) for name in names))
        for kind in kinds
    ]
    return f"AUROC against held-out normal records, mean over seeds:\n\n{markdown_table(['kind', *names], rows)}"


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
