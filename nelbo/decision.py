"""From a wish about false alarms to thresholds."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, log, log1p
from typing import Literal

import numpy as np

from nelbo.calibration import STATISTICS, Calibration, CalibrationFile, Scores, StatisticName, n_flagged_allowed
from nelbo.errors import CalibrationError

Mode = Literal["certified"]


@dataclass(frozen=True)
class Decision:
    """What holds for every record of one answer.

    Attributes:
        rate: the false-alarm rate asked for.
        effective_rate: the k / (n + 1) that the calibration records can give, never above `rate`.
        rate_low: 5 % point of the true rate, given one calibration set of this size.
        rate_high: 95 % point.
        mode: how the rate is backed.
        n_calibration: number of calibration records.
        thresholds: of each statistic, in the direction higher = more anomalous.
    """

    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    mode: Mode
    n_calibration: int
    thresholds: dict[StatisticName, float]


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
    i = np.arange(k)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((n - i[:-1]) / (i[:-1] + 1.0)))])
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        fewer = np.exp(log_choose + i * log(x) + (n - i) * log1p(-x)).sum()
        low, high = (low, x) if 1 - fewer >= p else (x, high)
    return high


def smallest_rate(n: int) -> float:
    """The smallest rate of three digits that n calibration records carry; 1 / (n + 1) as a float may be too small.

    >>> smallest_rate(499), smallest_rate(20)
    (0.002, 0.0477)
    """
    return float(Context(prec=3, rounding=ROUND_CEILING).divide(Decimal(1), Decimal(n + 1)))


class Decider:
    """Thresholds and p-values of one calibration.

    Args:
        file: the bundle's `calibration.json`.
    """

    def __init__(self, file: CalibrationFile) -> None:
        self.default_rate = file.rate
        self.calibrations = {name: Calibration(np.array(file.scores[name])) for name in STATISTICS}
        self.n = file.n

    def decide(self, rate: float | None = None) -> Decision:
        """The thresholds for a false-alarm rate.

        Args:
            rate: share of normal records that may be flagged; None for the bundle's own, 0 flags nothing.

        Raises:
            CalibrationError: the rate is no share, or the calibration records do not carry it.
        """
        rate = self.default_rate if rate is None else rate
        if not 0.0 <= rate < 1.0:
            raise CalibrationError(f"false-alarm rate {rate:g} is not a share: expected 0 ≤ rate < 1")
        k = n_flagged_allowed(rate, self.n)
        if k == 0 and rate > 0:
            raise CalibrationError(
                f"false-alarm rate {rate:g} needs at least {needed(rate)} calibration records, "
                f"this bundle has {self.n}; its smallest rate is {smallest_rate(self.n):.3g}"
            )
        low, high = rate_band(k, self.n)
        thresholds = {name: calibration.threshold(k) for name, calibration in self.calibrations.items()}
        return Decision(rate, k / (self.n + 1), low, high, "certified", self.n, thresholds)

    def p_values(self, name: StatisticName, scores: Scores) -> Scores:
        """p-values of one statistic; see `Calibration.p_values`."""
        return self.calibrations[name].p_values(scores)


def needed(rate: float) -> int:
    """The number of calibration records that a rate needs.

    >>> needed(0.001), needed(0.29)
    (999, 3)
    """
    return ceil(1 / Fraction(repr(rate))) - 1
