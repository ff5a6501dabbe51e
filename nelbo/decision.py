"""From a wish about false alarms to thresholds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, expm1, floor, log, log1p
from typing import Literal

import numpy as np

from nelbo.calibration import STATISTICS, Calibration, CalibrationFile, Scores, StatisticName, n_flagged_allowed
from nelbo.discovery import Counts, added, discovered
from nelbo.errors import CalibrationError
from nelbo.extremes import FURTHEST, extrapolated
from nelbo.intent import Intent
from nelbo.segments import ALL, Numbers

Mode = Literal["certified", "extrapolated"]
_MOST_DECISIONS = 256  # that are remembered; chosen


@dataclass(frozen=True)
class Decision:
    """What holds for every record of one answer.

    Attributes:
        rate: the false-alarm rate asked for; of a false discovery rate, the one that it came to.
        effective_rate: the k / (n + 1) that the calibration records can give, never above `rate`.
        rate_low: 5 % point of the true rate, given one calibration set of this size.
        rate_high: 95 % point.
        mode: how the rate is backed: by ranks among the calibration records, or by the shape of their tail.
        n_calibration: number of calibration records.
        thresholds: of each statistic, in the direction higher = more anomalous.
        confidence: with which the true rate is below `rate`; None where none was asked for.
        fdr: the false discovery rate asked for, of the records at hand; None where none was.
        segments: what holds in each segment that has enough calibration records of its own, by its number; the others
            are judged by all.
    """

    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    mode: Mode
    n_calibration: int
    thresholds: dict[StatisticName, float]
    confidence: float | None = None
    fdr: float | None = None
    segments: Mapping[int, "Decision"] = field(default_factory=dict)

    def of(self, number: int) -> "Decision":
        """What holds for the records of one segment."""
        return self.segments.get(number, self)

    def judges(self, segments: Numbers) -> Numbers:
        """By whose calibration records each record is judged, shape (n,): its segment's where these are enough.

        Args:
            segments: shape (n,), of which each record is.
        """
        return np.where(np.isin(segments, list(self.segments)), segments, ALL)

    def threshold(self, name: StatisticName, segments: Numbers) -> Scores | float:
        """What each record's statistic is held against, shape (n,), or one threshold for all.

        Args:
            name: of the statistic.
            segments: shape (n,), of which each record is.
        """
        if not self.segments:
            return self.thresholds[name]
        found = np.full(segments.shape, self.thresholds[name])
        for number, part in self.segments.items():
            found[segments == number] = part.thresholds[name]
        return found


@lru_cache(maxsize=1024)
def rate_band(k: int, n: int) -> tuple[float, float]:
    """Where the true rate lies with 90 %, since one calibration set is one draw: Beta(k, n + 1 − k).

    >>> low, high = rate_band(5, 499)
    >>> f"{low:.1%} to {high:.1%}"
    '0.4% to 1.8%'
    """
    if k == 0:
        return 0.0, 0.0
    return _beta_quantile(0.05, k, n), _beta_quantile(0.95, k, n)


def _beta_quantile(p: float, k: int, n: int) -> float:
    """The p-quantile of Beta(k, n + 1 − k), by halving.

    For whole k its distribution function at x is P(Binomial(n, x) ≥ k). scipy would do it too, but is the one
    thing that would make a service load it.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        low, high = (low, x) if _at_least(k, n, x) >= p else (x, high)
    return high


def _at_least(k: int, n: int, x: float) -> float:
    """P(Binomial(n, x) ≥ k), for 0 < x < 1."""
    i = np.arange(k)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((n - i[:-1]) / (i[:-1] + 1.0)))])[:k]
    return 1.0 - float(np.exp(log_choose + i * log(x) + (n - i) * log1p(-x)).sum())


@lru_cache(maxsize=1024)
def n_flagged_with(rate: float, n: int, confidence: float) -> int:
    """As `n_flagged_allowed`, but so that the true rate is below `rate` with a confidence.

    The true rate of k is Beta(k, n + 1 − k) over calibration sets: the largest k for which P(true rate ≤ rate) is the
    confidence at least; 0 where there is none.

    Source: Vovk, Conditional validity of inductive conformal predictors, ACML 2012.

    >>> n_flagged_with(0.01, 229, 0.9), n_flagged_with(0.01, 230, 0.9)
    (0, 1)
    """
    low, high = 0, n_flagged_allowed(rate, n)
    while low < high:
        k = (low + high + 1) // 2
        low, high = (k, high) if _at_least(k, n, rate) >= confidence else (low, k - 1)
    return low


def smallest_rate(n: int, confidence: float | None = None) -> float:
    """The smallest rate of three digits that n calibration records carry; 1 / (n + 1) as a float may be too small.

    >>> smallest_rate(499), smallest_rate(20), smallest_rate(230, 0.9)
    (0.002, 0.0477, 0.00997)
    """
    up = Context(prec=3, rounding=ROUND_CEILING)
    if confidence is None:
        return float(up.divide(Decimal(1), Decimal(n + 1)))
    return float(up.create_decimal_from_float(-expm1(log1p(-confidence) / n)))


class Decider:
    """Thresholds and p-values of one calibration, and of each of its segments.

    Args:
        file: the bundle's `calibration.json`.

    Attributes:
        intent: that holds where none is named.
        calibrations: of each statistic, by all calibration records.
        n: calibration records.
        n_of_segments: of them, in each segment.
    """

    def __init__(self, file: CalibrationFile) -> None:
        self.intent = Intent(file.rate, file.confidence) if file.fdr is None else Intent(fdr=file.fdr)
        self.default_rate, self.default_confidence = file.rate, file.confidence
        scores = {name: np.array(file.scores[name]) for name in STATISTICS}
        self.calibrations = {name: Calibration(of) for name, of in scores.items()}
        self.n = file.n
        self._tails = file.tails
        segments = file.segments
        self._of_segments: list[dict[StatisticName, Calibration]] = (
            []
            if segments is None
            else [
                {name: Calibration(of[segments.rows(name, number)]) for name, of in scores.items()}
                for number in range(len(segments.values))
            ]
        )
        self.n_of_segments = [calibrations["score"].n for calibrations in self._of_segments]
        # Those that carry the bundle's own rate: at a larger one two records would be enough, and say nothing.
        self._large_segments = [
            number
            for number, n in enumerate(self.n_of_segments)
            if _n_flagged(self.default_rate, n, self.default_confidence) > 0
        ]
        # Clients ask for the same few rates again and again. Not `lru_cache`: with a method in it the decider would
        # hold itself, and its memory would be kept until garbage is looked for.
        self._decisions: dict[tuple[float | None, float | None], Decision] = {}

    def decide(self, rate: float | None = None, confidence: float | None = None) -> Decision:
        """The thresholds for a false-alarm rate.

        Args:
            rate: share of normal records that may be flagged; None for the bundle's own, 0 flags nothing.
            confidence: with which the true rate is to stay below it; None for the bundle's own where the rate is, else
                the rate holds in the mean over calibration sets.

        Raises:
            CalibrationError: the rate is no share, or the calibration records do not carry it.
        """
        found = self._decisions.get((rate, confidence))
        if found is None:
            found = self._decided(rate, confidence)
            if len(self._decisions) >= _MOST_DECISIONS:
                self._decisions.clear()
            self._decisions[rate, confidence] = found
        return found

    def _decided(self, rate: float | None, confidence: float | None) -> Decision:
        if rate is None:
            rate, confidence = self.default_rate, confidence or self.default_confidence
        if not 0.0 <= rate < 1.0:
            raise CalibrationError(f"false-alarm rate {rate:g} is not a share: expected 0 ≤ rate < 1")
        k = _n_flagged(rate, self.n, confidence)
        if k == 0 and rate > 0:
            return self._extrapolated(rate, confidence)
        ks = {number: _n_flagged(rate, self.n_of_segments[number], confidence) for number in self._large_segments}
        enough = {number: k for number, k in ks.items() if k > 0 or rate == 0}
        return self._decision(k, enough, rate=rate, confidence=confidence)

    def count_ranks(self, scores: Scores, segments: Numbers | None = None) -> Counts:
        """How many records have each rank; counts of parts of a file are `added`.

        Args:
            scores: shape (m,), of the statistic that decides.
            segments: shape (m,), by which each record is judged; None where all are by all.
        """
        counts: Counts = {}
        for number, rows in _by_segment(segments):
            calibration = self._by(number)["score"]
            found = np.bincount(calibration.ranks(scores[rows]), minlength=calibration.n + 2)
            counts = added(counts, {calibration.n: found})
        return counts

    def discover(self, counts: Counts, fdr: float) -> Decision:
        """The thresholds for a false discovery rate among records: of those flagged, the share that is normal.

        Args:
            counts: of all their ranks, as `count_ranks` has them.
            fdr: the share that may be, in the mean.
        """
        largest = discovered(counts, fdr)
        own = self.decide().segments
        ks = {number: floor(largest * (self.n_of_segments[number] + 1)) for number in own}
        return self._decision(floor(largest * (self.n + 1)), ks, rate=float(largest), fdr=fdr)

    def p_values(self, name: StatisticName, scores: Scores, segments: Numbers | None = None) -> Scores:
        """p-values of one statistic; see `Calibration.p_values`.

        Args:
            name: of the statistic.
            scores: shape (m,).
            segments: shape (m,), by which each record is judged; None where all are by all.
        """
        found = np.empty(scores.shape)
        for number, rows in _by_segment(segments):
            found[rows] = self._by(number)[name].p_values(scores[rows])
        return found

    def _by(self, number: int) -> dict[StatisticName, Calibration]:
        return self.calibrations if number == ALL else self._of_segments[number]

    def _decision(
        self,
        k: int,
        of_segments: Mapping[int, int],
        rate: float,
        confidence: float | None = None,
        fdr: float | None = None,
    ) -> Decision:
        def certified(number: int, k: int) -> Decision:
            calibrations = self._by(number)
            n = calibrations["score"].n
            thresholds = {name: calibration.threshold(k) for name, calibration in calibrations.items()}
            return Decision(rate, k / (n + 1), *rate_band(k, n), "certified", n, thresholds, confidence, fdr)

        parts = {number: certified(number, k) for number, k in of_segments.items()}
        return replace(certified(ALL, k), segments=parts)

    def _extrapolated(self, rate: float, confidence: float | None) -> Decision:
        """Beyond the calibration records: by the shape of their tail, never below their largest score."""
        tail = self._tails.get("score")
        detail = not_carried(rate, confidence, self.n, "this bundle has")
        if confidence is not None or tail is None:
            raise CalibrationError(detail)
        if not tail.fits:
            why = "seem to end" if tail.ends else "have no shape that one could rely on"
            raise CalibrationError(f"{detail}; beyond it nothing is extrapolated, since the highest scores {why}")
        if rate * FURTHEST * (self.n + 1) < 1:
            least = 1 / (FURTHEST * (self.n + 1))
            raise CalibrationError(f"{detail}, and {least:.3g} where it may be extrapolated")
        thresholds = {name: self._beyond(name, rate) for name in STATISTICS}
        effective_rate = min(rate, tail.rate(thresholds["score"]))
        band = tail.band_beyond(thresholds["score"])
        return Decision(rate, effective_rate, *band, "extrapolated", self.n, thresholds)

    def _beyond(self, name: StatisticName, rate: float) -> float:
        """The extrapolated threshold of a statistic; infinite where its tail has no shape: nothing is beyond it."""
        tail = self._tails.get(name)
        return (
            float("inf")
            if tail is None or not tail.fits
            else extrapolated(tail, self.calibrations[name].threshold(1), rate)
        )


def _n_flagged(rate: float, n: int, confidence: float | None) -> int:
    return n_flagged_allowed(rate, n) if confidence is None else n_flagged_with(rate, n, confidence)


def _by_segment(segments: Numbers | None) -> Iterator[tuple[int, Numbers | slice]]:
    """Each segment that is there, and the positions of its records."""
    if segments is None:
        yield ALL, slice(None)
        return
    for number in np.unique(segments).tolist():
        yield number, np.flatnonzero(segments == number)


def not_carried(rate: float, confidence: float | None, n: int, who_has: str) -> str:
    """Why n calibration records are too few for a rate, and what they carry."""
    beside = "" if confidence is None else f" at confidence {confidence:g}"
    return (
        f"false-alarm rate {rate:.3g}{beside} needs at least {needed(rate, confidence)} calibration records, "
        f"{who_has} {n}; its smallest rate{beside} is {smallest_rate(n, confidence):.3g}"
    )


def capacity(n: int) -> str:
    """What n calibration records can promise, in a sentence.

    >>> capacity(1000)
    '1,000 calibration records certify a false-alarm rate of 0.1 %, or of 0.23 % with confidence 0.9'
    """
    plain, with_confidence = (f"{100 * smallest_rate(n, confidence):.3g} %" for confidence in (None, 0.9))
    return (
        f"{n:,} calibration records certify a false-alarm rate of {plain}, or of {with_confidence} with confidence 0.9"
    )


def needed(rate: float, confidence: float | None = None) -> int:
    """The number of calibration records that a rate needs.

    >>> needed(0.001), needed(0.29), needed(0.001, 0.9)
    (999, 3, 2302)
    """
    if confidence is not None:
        return ceil(log1p(-confidence) / log1p(-rate))
    return ceil(1 / Fraction(repr(rate))) - 1
