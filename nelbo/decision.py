"""From a wish about false alarms to thresholds."""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, expm1, log, log1p
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nelbo.calibration import STATISTICS, Calibration, CalibrationFile, Scores, StatisticName, n_flagged_allowed
from nelbo.errors import CalibrationError

Mode = Literal["certified"]


@dataclass(frozen=True)
class Decision:
    """What holds for every record of one answer.

    Attributes:
        rate: the false-alarm rate asked for; of a false discovery rate, the one that it came to.
        effective_rate: the k / (n + 1) that the calibration records can give, never above `rate`.
        rate_low: 5 % point of the true rate, given one calibration set of this size.
        rate_high: 95 % point.
        mode: how the rate is backed.
        n_calibration: number of calibration records.
        thresholds: of each statistic, in the direction higher = more anomalous.
        confidence: with which the true rate is below `rate`; None where none was asked for.
        fdr: the false discovery rate asked for, of the records at hand; None where none was.
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
    """Thresholds and p-values of one calibration.

    Args:
        file: the bundle's `calibration.json`.
    """

    def __init__(self, file: CalibrationFile) -> None:
        self.default_rate, self.default_confidence = file.rate, file.confidence
        self.calibrations = {name: Calibration(np.array(file.scores[name])) for name in STATISTICS}
        self.n = file.n

    def decide(self, rate: float | None = None, confidence: float | None = None) -> Decision:
        """The thresholds for a false-alarm rate.

        Args:
            rate: share of normal records that may be flagged; None for the bundle's own, 0 flags nothing.
            confidence: with which the true rate is to stay below it; None for the bundle's own where the rate is, else
                the rate holds in the mean over calibration sets.

        Raises:
            CalibrationError: the rate is no share, or the calibration records do not carry it.
        """
        if rate is None:
            rate, confidence = self.default_rate, confidence or self.default_confidence
        if not 0.0 <= rate < 1.0:
            raise CalibrationError(f"false-alarm rate {rate:g} is not a share: expected 0 ≤ rate < 1")
        k = n_flagged_allowed(rate, self.n) if confidence is None else n_flagged_with(rate, self.n, confidence)
        if k == 0 and rate > 0:
            raise CalibrationError(not_carried(rate, confidence, self.n, "this bundle has"))
        return replace(self._decision(k), rate=rate, confidence=confidence)

    def count_ranks(self, scores: Scores) -> NDArray[np.intp]:
        """How many records have each rank, shape (n + 2,); counts of parts of a file add up.

        Args:
            scores: shape (m,), of the statistic that decides.
        """
        return np.bincount(self.calibrations["score"].ranks(scores), minlength=self.n + 2)

    def discover(self, counts: NDArray[np.intp], fdr: float) -> Decision:
        """The thresholds for a false discovery rate among records: of those flagged, the share that is normal.

        Args:
            counts: of all their ranks, as `count_ranks` has them.
            fdr: the share that may be, in the mean.

        Source: Benjamini & Hochberg, JRSS B 1995; with p-values of one calibration set, Bates et al. 2023.
        """
        return replace(self._decision(discovered(counts, fdr)), fdr=fdr)

    def _decision(self, k: int) -> Decision:
        low, high = rate_band(k, self.n)
        thresholds = {name: calibration.threshold(k) for name, calibration in self.calibrations.items()}
        effective_rate = k / (self.n + 1)
        return Decision(effective_rate, effective_rate, low, high, "certified", self.n, thresholds)

    def p_values(self, name: StatisticName, scores: Scores) -> Scores:
        """p-values of one statistic; see `Calibration.p_values`."""
        return self.calibrations[name].p_values(scores)


def discovered(counts: NDArray[np.intp], fdr: float) -> int:
    """Benjamini–Hochberg on p-values rank / (n + 1): the largest rank that is still flagged, 0 where none is.

    In whole numbers: the largest k so that k / (n + 1) ≤ fdr · #{ranks ≤ k} / m.

    Args:
        counts: shape (n + 2,), records of each rank from 0, which none has, to n + 1.
        fdr: false discovery rate.

    >>> discovered(np.bincount([1, 2, 60, 90], minlength=101), 0.1)
    2
    """
    at_most = np.cumsum(counts)
    share = Fraction(repr(float(fdr))) * (len(counts) - 1) / max(1, int(at_most[-1]))
    return max((k for k in np.flatnonzero(counts).tolist() if k <= share * int(at_most[k])), default=0)


def not_carried(rate: float, confidence: float | None, n: int, who_has: str) -> str:
    """Why n calibration records are too few for a rate, and what they carry."""
    beside = "" if confidence is None else f" at confidence {confidence:g}"
    return (
        f"false-alarm rate {rate:.3g}{beside} needs at least {needed(rate, confidence)} calibration records, "
        f"{who_has} {n}; its smallest rate{beside} is {smallest_rate(n, confidence):.3g}"
    )


def needed(rate: float, confidence: float | None = None) -> int:
    """The number of calibration records that a rate needs.

    >>> needed(0.001), needed(0.29), needed(0.001, 0.9)
    (999, 3, 2302)
    """
    if confidence is not None:
        return ceil(log1p(-confidence) / log1p(-rate))
    return ceil(1 / Fraction(repr(rate))) - 1
