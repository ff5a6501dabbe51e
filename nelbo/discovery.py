"""Which records of a request or file to flag, so that few of those are normal."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# How many records have each rank, from 0, which none has, to n + 1: shape (n + 2,), by the n of the calibration records
# that they were held against. A rank is n + 1 times a p-value, so that nothing is rounded.
Counts = dict[int, NDArray[np.intp]]


def added(one: Mapping[int, NDArray[np.intp]], other: Mapping[int, NDArray[np.intp]]) -> Counts:
    """The counts of two parts of a file together."""
    sizes = sorted({*one, *other})
    return {n: np.asarray(one.get(n, 0) + other.get(n, np.zeros(n + 2, dtype=np.intp))) for n in sizes}


def discovered(counts: Mapping[int, NDArray[np.intp]], fdr: float) -> Fraction:
    """Benjamini-Hochberg: the largest p-value that is still flagged, 0 where none is.

    That is the largest p of m p-values so that p ≤ fdr · #{p-values ≤ p} / m, in whole numbers.

    Args:
        counts: of the ranks of all m records.
        fdr: false discovery rate.

    Source: Benjamini & Hochberg, JRSS B 57(1), 1995; with p-values of one calibration set, Bates et al. 2023.

    >>> discovered({99: np.bincount([1, 2, 60, 90], minlength=101)}, 0.1)
    Fraction(1, 50)
    """
    found = [(k / (n + 1), k, n, int(of[k])) for n, of in counts.items() for k in np.flatnonzero(of).tolist()]
    # Division is rounded correctly, so fractions that are equal are equal floats, and others of these sizes are not.
    found.sort(reverse=True)
    share = Fraction(repr(float(fdr))) / max(1, sum(count for *_, count in found))
    at_most = sum(count for *_, count in found)
    above, last = 0, None
    for p, k, n, count in found:
        if p != last:
            at_most, above, last = at_most - above, 0, p
        above += count
        if Fraction(k, n + 1) <= share * at_most:
            return Fraction(k, n + 1)
    return Fraction(0)
