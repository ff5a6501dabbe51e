"""Calibration of a bundle, through the scorer that will serve it."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from nelbo.calibration import (
    STATISTICS,
    CalibrationFile,
    Combination,
    Scores,
    StatisticName,
    fit_combination,
    raised,
)
from nelbo.decision import n_flagged_with, needed, not_carried, smallest_rate
from nelbo.errors import CalibrationError, SchemaError, TableError
from nelbo.extremes import fit_tail
from nelbo.intervals import Interval, fit_interval
from nelbo.records import Batch
from nelbo.schema import Column, Schema
from nelbo.scoring import Graph, combine, states, upward
from nelbo.segments import ALL, Segments

DEFAULT_RATE = 0.01

# Records through the graph for the intervals of all fields: about a second. No fewer than a field needs for an
# interval whose coverage is 90 % to the record, three below and three above.
_INTERVAL_RUNS, _FEWEST_FOR_INTERVALS = 15_000, 59
# Each of 1,555 fields hidden alone took 51 s (2026-11-22). A table of more fields than this takes so many turns.
_MOST_ALONE, _TURNS_OF_WIDE = 200, 100


def combination_of(graph: Graph, batch: Batch) -> Combination:
    """How the parts become one score, from calibration-a."""
    outputs = graph.run(batch)
    missing, _ = states(graph.schema, batch)
    names = tuple(field.name for field in graph.schema.fields)
    categorical = tuple(field.is_coded for field in graph.schema.fields)
    kl = outputs.kl.sum(axis=1)
    return fit_combination(names, categorical, outputs.contributions, missing, kl, outputs.evidence)


def calibrated(
    graph: Graph,
    combination: Combination,
    batch: Batch,
    rate: float,
    confidence: float | None = None,
    fdr: float | None = None,
    segment: str | None = None,
) -> CalibrationFile:
    """`calibration.json` from calibration-b.

    Args:
        graph: that will serve.
        combination: from calibration-a.
        batch: normal records that neither the fit nor the combination has seen.
        rate: the bundle's own false-alarm rate.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.
        fdr: false discovery rate to hold instead where a request names nothing; None for the rate.
        segment: field of categories whose records are judged apart; None where all are judged by all.
    """
    statistics, _, _ = combine(combination, graph.run(batch), *states(graph.schema, batch))
    found = {name: upward(name, statistics[name]) for name in STATISTICS}
    scores = {name: _kept(of) for name, of in found.items()}
    # Seeded, so that the same records give the same file.
    tails = {name: fit_tail(np.array(of), np.random.default_rng(0)) for name, of in scores.items()}
    return CalibrationFile(
        created=now(),
        rate=rate,
        confidence=confidence,
        fdr=fdr,
        combination=combination,
        scores=scores,
        tails={name: tail for name, tail in tails.items() if tail is not None},
        segments=None if segment is None else _segments(graph.schema, segment, batch, found),
        intervals=intervals_of(graph, batch),
    )


def intervals_of(graph: Graph, batch: Batch) -> dict[str, Interval]:
    """The interval of each numeric field that enough records have, by name.

    Args:
        graph: that will serve.
        batch: normal records that neither the fit nor the combination has seen. Of many, some: an expected value
            costs a run of the graph for each field.
    """
    schema = graph.schema
    numeric = [at for at, field in enumerate(schema.numbers) if field.kind == "numeric"]
    # Few of many hardly tell of each other: of a wide table one field in a hundred is hidden at once, and far apart.
    n_turns = len(numeric) if len(numeric) <= _MOST_ALONE else _TURNS_OF_WIDE
    runs = _INTERVAL_RUNS * _MOST_ALONE // max(_MOST_ALONE, len(numeric))
    n = min(len(batch), max(_FEWEST_FOR_INTERVALS, runs // max(1, n_turns)))
    rows = np.unique(np.linspace(0, len(batch) - 1, n).astype(np.int64))
    some = replace(batch, numbers=batch.numbers[rows], codes=batch.codes[rows], index=batch.index[rows])
    expected = np.full(some.numbers.shape, np.nan)
    for turn in range(n_turns):
        columns = numeric[turn::n_turns]
        hidden = np.zeros((len(rows), len(schema.fields)), dtype=np.bool_)
        hidden[:, [schema.places[0][at] for at in columns]] = True
        expected[:, columns] = graph.run(some, hidden).expected_numbers[:, columns]
    found = {schema.numbers[at].name: fit_interval(some.numbers[:, at], expected[:, at]) for at in numeric}
    return {name: interval for name, interval in found.items() if interval is not None}


def segment_field(schema: Schema, name: str) -> Column:
    """The field of categories that segments are to be of.

    Raises:
        SchemaError: there is no such field.
    """
    coded = [field for field in schema.fields if field.is_coded]
    field = next((field for field in coded if field.name == name), None)
    if field is None:
        names = ", ".join(f"'{field.name}'" for field in coded) or "none"
        raise SchemaError(
            f"segment '{name}': expected a field of categories; of those there are {names}"
            " (a schema can say of integers that they are)"
        )
    return field


def _segments(schema: Schema, name: str, batch: Batch, scores: dict[StatisticName, Scores]) -> Segments:
    """Which calibration record belongs where; those of rare categories, or of none, belong nowhere."""
    field = segment_field(schema, name)
    codes = batch.codes[:, schema.codes.index(field)]
    there = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=field.n_codes)[: len(field.known)])
    numbers = np.full(field.n_codes + 1, ALL)  # the last place is that of a missing value, whose code is -1
    numbers[there] = np.arange(there.size)
    members = {
        statistic: tuple(numbers[codes[np.argsort(of, kind="stable")]].tolist()) for statistic, of in scores.items()
    }
    return Segments(field=name, values=tuple(field.known[code] for code in there.tolist()), members=members)


def _kept(scores: Scores) -> tuple[float, ...]:
    """Scores as the file keeps them: nine digits are a hundredth of the tolerance that they are raised by."""
    if not np.isfinite(scores).all():
        raise CalibrationError("a calibration record's score is NaN or infinite; the bundle cannot be calibrated")
    return tuple(float(f"{score:.9g}") for score in raised(scores))


def chosen_rate(rate: float | None, n: int, confidence: float | None = None, usual: float = DEFAULT_RATE) -> float:
    """The bundle's rate: the one asked for, else 1 %, or the smallest that n calibration records carry.

    Args:
        rate: asked for; None for the usual one.
        n: calibration records.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.
        usual: instead of 1 %.

    Raises:
        CalibrationError: an explicit rate is no share, or the records do not carry it.
    """
    if rate is None:
        return max(usual, smallest_rate(n, confidence))
    if not 0 < rate < 1:
        raise CalibrationError(f"false-alarm rate {rate:g} is not a share: expected 0 < rate < 1")
    carried = needed(rate) <= n if confidence is None else n_flagged_with(rate, n, confidence) > 0
    if not carried:
        raise CalibrationError(not_carried(rate, confidence, n, "this table leaves"))
    return rate


def whole(batch: Batch, source: str) -> Batch:
    """A batch without faulty records.

    Raises:
        TableError: some of them cannot be read; the text names the first.
    """
    if batch.errors:
        n = len(batch.errors)
        raise TableError(f"{source}: {n} record{'s' * (n > 1)} cannot be read; the first: {batch.errors[0]}")
    return batch


def now() -> str:
    """The time as files hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
