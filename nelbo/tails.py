"""Tail probabilities, far out: what chance gives of counts. scipy has them too, but a service should not load it."""

from math import erfc, exp, inf, lgamma, log, sqrt

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-300  # keeps a continued fraction off a division by zero
_PRECISE = 1e-14  # relative; where a series has converged


def normal_tail(z: float) -> float:
    """P(Z ≥ z) of a standard normal Z.

    >>> round(normal_tail(1.6449), 4)
    0.05
    """
    return erfc(z / sqrt(2)) / 2


def chi_square_tail(x: float, degrees: int) -> float:
    """P(X ≥ x) of a chi-square X with so many degrees of freedom: the upper regularised gamma function.

    Source: Press et al., Numerical Recipes, 6.2: the series below the mode, Lentz's continued fraction above.

    >>> round(chi_square_tail(3.8415, 1), 4)
    0.05
    """
    a, y = degrees / 2, x / 2
    if y <= 0:
        return 1.0
    log_factor = a * log(y) - y - lgamma(a)
    if y < a + 1:
        return max(0.0, 1 - exp(log_factor) * _series(a, y))
    return exp(log_factor) * _fraction(a, y)


def _series(a: float, y: float) -> float:
    term = total = 1 / a
    while abs(term) > _PRECISE * total:
        a += 1
        term *= y / a
        total += term
    return total


def _fraction(a: float, y: float) -> float:
    b = y + 1 - a
    c, d = 1 / _TINY, 1 / b
    total, change, i = d, inf, 0
    while abs(change - 1) > _PRECISE:
        i += 1
        b += 2
        step = -i * (i - a)
        d = 1 / (step * d + b or _TINY)
        c = b + step / c or _TINY
        change = c * d
        total *= change
    return total


def beta_binomial_tail(x: int, n: int, a: float, b: float) -> float:
    """P(X ≥ x) where X is Binomial(n, rate) and the rate is Beta(a, b).

    >>> round(beta_binomial_tail(3, 10, 1, 99), 4)  # one in a hundred, known from 99 records
    0.0006
    """
    if x <= 0:
        return 1.0
    if x > n:
        return 0.0
    first = _log_choose(n, x) + _log_beta(x + a, n - x + b) - _log_beta(a, b)
    i = np.arange(x, n, dtype=np.float64)
    return _sum_from(first, np.log((n - i) / (i + 1)) + np.log((i + a) / (n - i - 1 + b)))


def hypergeometric_tail(x: int, n: int, others: int, other_n: int) -> float:
    """P(at least x of the x + others marked records are among the n), the n having been drawn from all n + other_n.

    Fisher's exact test: x of n against others of other_n, where both come from one source.

    >>> hypergeometric_tail(2, 2, 0, 2)  # both marked ones of four records are among the two drawn: 1 in 6
    0.1666...
    """
    marked, total = x + others, n + other_n
    if x <= max(0, marked - other_n):
        return 1.0
    first = _log_choose(n, x) + _log_choose(other_n, others) - _log_choose(total, marked)
    i = np.arange(x, min(marked, n), dtype=np.float64)
    return _sum_from(first, np.log((marked - i) / (i + 1)) + np.log((n - i) / (other_n - marked + i + 1)))


def _sum_from(log_first: float, log_ratios: NDArray[np.float64]) -> float:
    """The sum of probabilities, from the logarithm of the first and of each one's ratio to the one before."""
    logs = log_first + np.concatenate([[0.0], np.cumsum(log_ratios)])
    return min(1.0, float(np.exp(logs).sum()))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
