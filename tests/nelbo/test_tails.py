import numpy as np
import pytest
from scipy import stats

from nelbo.tails import beta_binomial_tail, chi_square_tail, hypergeometric_tail, normal_tail


@pytest.mark.parametrize("degrees", [1, 2, 3, 19, 400])
@pytest.mark.parametrize("times", [0.01, 0.5, 1.0, 1.1, 3.0, 40.0])
def test_chi_square_tail_is_scipys(degrees: int, times: float) -> None:
    expected = stats.chi2.sf(degrees * times, degrees)
    assert chi_square_tail(degrees * times, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_nothing_lies_below_a_chi_square_of_zero() -> None:
    assert chi_square_tail(0.0, 3) == 1.0


@pytest.mark.parametrize("z", [-3.0, 0.0, 1.5, 8.0, 30.0])
def test_normal_tail_is_scipys(z: float) -> None:
    assert normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-9)


@pytest.mark.parametrize(("n", "k", "n_calibration"), [(250, 5, 499), (250, 1, 99), (20_000, 10, 999), (3, 2, 5)])
def test_beta_binomial_tail_is_scipys(n: int, k: int, n_calibration: int) -> None:
    for x in {0, 1, 2, n // 50, n // 4, n, n + 1}:
        # scipy's own tail is 1 minus the rest, and loses its digits where it is small.
        expected = stats.betabinom.pmf(np.arange(x, n + 1), n, k, n_calibration + 1 - k).sum()
        assert beta_binomial_tail(x, n, k, n_calibration + 1 - k) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("x", "n", "others", "other_n"),
    [
        (0, 250, 0, 8000),
        (5, 250, 0, 8000),
        (12, 250, 400, 8000),
        (40, 250, 400, 8000),
        (250, 250, 3, 4),
        (7, 16_000, 9, 500),
    ],
)
def test_hypergeometric_tail_is_fishers_exact_test(x: int, n: int, others: int, other_n: int) -> None:
    table = [[x, n - x], [others, other_n - others]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert hypergeometric_tail(x, n, others, other_n) == pytest.approx(expected, rel=1e-7)
