"""How far two counts of the same cells lie apart, and how often chance alone sets them as far apart."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from nelbo.tails import chi_square_tail, normal_tail

Counts = NDArray[np.int64]

_SPARSE = 5  # expected records below which a cell is put together with others; the usual rule for chi-square tests


def psi(window: Counts, reference: Counts) -> float:
    """Population stability index: Σ (w − r) log(w / r) over shares; half a record more a cell keeps it finite.

    0 = alike. 0.1 is often called a small change and 0.25 a large one, but see `psi_by_chance`.

    >>> round(psi(np.array([50, 50]), np.array([500, 500])), 6), round(psi(np.array([30, 70]), np.array([500, 500])), 3)
    (0.0, 0.166)
    """
    w, r = (counts + 0.5 for counts in _used(window, reference))
    w, r = w / w.sum(), r / r.sum()
    return float(((w - r) * np.log(w / r)).sum())


def psi_by_chance(window: Counts, reference: Counts) -> float:
    """The index that two samples of one source have on average: (cells − 1) (1/n + 1/m).

    >>> psi_by_chance(np.array([50, 50]), np.array([500, 500]))
    0.011
    """
    w, r = _used(window, reference)
    if not (w.sum() and r.sum()):
        return 0.0
    return float((w.size - 1) * (1 / w.sum() + 1 / r.sum()))


def jensen_shannon(window: Counts, reference: Counts) -> float:
    """Jensen–Shannon divergence of the shares, in bits: 0 = alike, 1 = no value in common.

    >>> jensen_shannon(np.array([7, 0]), np.array([0, 9])), jensen_shannon(np.array([1, 1]), np.array([8, 8]))
    (1.0, 0.0)
    """
    w, r = _used(window, reference)
    if not (w.sum() and r.sum()):
        return 0.0
    w, r = w / w.sum(), r / r.sum()
    return float(np.clip((_bits(w, (w + r) / 2) + _bits(r, (w + r) / 2)) / 2, 0, 1))


def g_test(window: Counts, reference: Counts) -> float:
    """p-value that both come from one source, against any difference: the likelihood-ratio test.

    Far in the tail its statistic keeps to its chi-square distribution where Pearson's does not: p-values of one in a
    million are what many fields and many looks need. Cells of few records are put together first.

    Source: Williams, Improved likelihood ratio tests for complete contingency tables, Biometrika 63(1), 1976.

    >>> g_test(np.array([100, 100]), np.array([1000, 1000]))
    1.0
    """
    w, r = _without_sparse(*_used(window, reference))
    if w.size < 2 or not (w.sum() and r.sum()):
        return 1.0
    table = np.array([w, r], dtype=np.float64)
    n, rows, columns = table.sum(), table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns) / n
    # A cell without records adds nothing: x log x → 0.
    g = 2 * float((table * np.log(np.where(table > 0, table, expected) / expected)).sum())
    degrees = w.size - 1
    williams = 1 + (n * (1 / rows).sum() - 1) * (n * (1 / columns).sum() - 1) / (6 * n * degrees)
    return chi_square_tail(g / float(williams), degrees)


def rank_test(window: Counts, reference: Counts) -> float:
    """p-value that both come from one source, against a move up or down the cells: Wilcoxon–Mann–Whitney, two-sided.

    One degree of freedom instead of the cells' many: a move of a half standard deviation shows in half the records.

    >>> rank_test(np.array([10, 10, 10]), np.array([100, 100, 100]))
    1.0
    """
    n, m, both = int(window.sum()), int(reference.sum()), window + reference
    total = n + m
    spread = total**3 - total - float((both.astype(np.float64) ** 3 - both).sum())
    if not (n and m) or spread <= 0:
        return 1.0
    ranks = np.cumsum(both) - (both - 1) / 2
    deviation = float((window * ranks).sum()) - n * (total + 1) / 2
    sd = sqrt(n / total * m / (total - 1) * spread / 12)
    return min(1.0, 2 * normal_tail(abs(deviation) / sd))


def _used(window: Counts, reference: Counts) -> tuple[Counts, Counts]:
    """Without the cells that hold no record of either."""
    used = (window + reference) > 0
    return window[used], reference[used]


def _without_sparse(window: Counts, reference: Counts) -> tuple[Counts, Counts]:
    """With the cells put together that expect few records: the fewest first, until none expects few."""
    total = max(1, int(window.sum() + reference.sum()))
    smaller = min(window.sum(), reference.sum())
    order = np.argsort(window + reference, kind="stable")
    expected = (window + reference)[order] * smaller / total
    n_sparse = int((expected < _SPARSE).sum())
    if n_sparse and expected[:n_sparse].sum() < _SPARSE:
        n_sparse += 1
    if n_sparse < 2:
        return window, reference
    few, rest = order[:n_sparse], order[n_sparse:]
    together = (np.append(counts[rest], counts[few].sum()) for counts in (window, reference))
    w, r = together
    return w, r


def _bits(share: NDArray[np.float64], middle: NDArray[np.float64]) -> float:
    some = share > 0
    return float((share[some] * np.log2(share[some] / middle[some])).sum())
