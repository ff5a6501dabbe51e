"""Calibration of a bundle, through the scorer that will serve it."""

from datetime import UTC, datetime

import numpy as np

from nelbo.calibration import STATISTICS, CalibrationFile, Combination, Scores, fit_combination, raised
from nelbo.decision import n_flagged_with, needed, not_carried, smallest_rate
from nelbo.errors import CalibrationError, TableError
from nelbo.records import Batch
from nelbo.scoring import Graph, combine, states, upward

DEFAULT_RATE = 0.01


def combination_of(graph: Graph, batch: Batch) -> Combination:
    """How the parts become one score, from calibration-a."""
    outputs = graph.run(batch)
    missing, _ = states(graph.schema, batch)
    names = tuple(field.name for field in graph.schema.fields)
    categorical = tuple(field.is_coded for field in graph.schema.fields)
    kl = outputs.kl.sum(axis=1)
    return fit_combination(names, categorical, outputs.contributions, missing, kl, outputs.evidence)


def calibrated(
    graph: Graph, combination: Combination, batch: Batch, rate: float, confidence: float | None = None
) -> CalibrationFile:
    """`calibration.json` from calibration-b.

    Args:
        graph: that will serve.
        combination: from calibration-a.
        batch: normal records that neither the fit nor the combination has seen.
        rate: the bundle's own false-alarm rate.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.
    """
    missing, _ = states(graph.schema, batch)
    statistics, _, _ = combine(combination, graph.run(batch), missing)
    return CalibrationFile(
        created=now(),
        rate=rate,
        confidence=confidence,
        combination=combination,
        scores={name: _kept(upward(name, statistics[name])) for name in STATISTICS},
    )


def _kept(scores: Scores) -> tuple[float, ...]:
    """Scores as the file keeps them: nine digits are a hundredth of the tolerance that they are raised by."""
    if not np.isfinite(scores).all():
        raise CalibrationError("a calibration record's score is NaN or infinite; the bundle cannot be calibrated")
    return tuple(float(f"{score:.9g}") for score in raised(scores))


def chosen_rate(rate: float | None, n: int, confidence: float | None = None) -> float:
    """The bundle's rate: the one asked for, else 1 %, or the smallest that n calibration records carry.

    Args:
        rate: asked for; None for the usual one.
        n: calibration records.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.

    Raises:
        CalibrationError: an explicit rate is no share, or the records do not carry it.
    """
    if rate is None:
        return max(DEFAULT_RATE, smallest_rate(n, confidence))
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
