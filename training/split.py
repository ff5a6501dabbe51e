"""Which records fit, which shape the score, which give the p-values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

_SHARE = 0.1  # of the normal records, for each calibration set
# Beyond these a calibration record is worth more in the fit: 10,000 certify a rate of 0.03 % with 90 % confidence,
# and a bundle stays small enough to be read by a person.
_MOST_A, _MOST_B = 5_000, 10_000


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of row numbers.

    Attributes:
        fit: what the weights, the transform and the categories come from.
        a: calibration-a, which fits the maps of the score.
        b: calibration-b, which gives p-values and nothing else.
    """

    fit: Rows
    a: Rows
    b: Rows


def split(n: int, seed: int, time: NDArray[np.float64] | None = None) -> Split:
    """Splits n normal records: at random, or by time where there is one.

    Args:
        n: records.
        seed: of the order.
        time: shape (n,), seconds; the oldest are fitted, the newest give the p-values, as they will in use.
    """
    shuffled = np.random.default_rng([seed, 1]).permutation(n)
    # By time, records of one moment stay in random order.
    order = shuffled if time is None else shuffled[np.argsort(time[shuffled], kind="stable")]
    n_a, n_b = sizes(n)
    cut_a, cut_b = n - n_a - n_b, n - n_b
    return Split(fit=order[:cut_a], a=order[cut_a:cut_b], b=order[cut_b:])


def sizes(n: int) -> tuple[int, int]:
    """Records of calibration-a and calibration-b.

    >>> sizes(100), sizes(1_000_000)
    ((10, 10), (5000, 10000))
    """
    return min(_MOST_A, max(1, round(_SHARE * n))), min(_MOST_B, max(1, round(_SHARE * n)))
