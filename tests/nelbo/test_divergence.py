import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from nelbo.divergence import g_test, jensen_shannon, psi, psi_by_chance, rank_test

CASES = [
    ([50, 30, 20], [480, 330, 190]),
    ([10, 0, 240], [100, 100, 300]),
    ([250, 250, 250, 250], [1000, 1100, 900, 1000]),
]


@pytest.mark.parametrize(("window", "reference"), CASES)
def test_jensen_shannon_is_the_square_of_scipys_distance(window: list[int], reference: list[int]) -> None:
    expected = jensenshannon(window, reference, base=2) ** 2
    assert jensen_shannon(np.array(window), np.array(reference)) == pytest.approx(expected)


@pytest.mark.parametrize(("window", "reference"), CASES)
def test_g_test_is_scipys_with_williams_correction(window: list[int], reference: list[int]) -> None:
    found = stats.chi2_contingency([window, reference], correction=False, lambda_="log-likelihood")
    n, degrees = sum(window) + sum(reference), len(window) - 1
    by_rows = n * (1 / sum(window) + 1 / sum(reference)) - 1
    by_cells = n * sum(1 / (w + r) for w, r in zip(window, reference, strict=True)) - 1
    expected = stats.chi2.sf(found.statistic / (1 + by_rows * by_cells / (6 * n * degrees)), degrees)
    assert g_test(np.array(window), np.array(reference)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("window", "reference"), CASES)
def test_rank_test_is_scipys_mann_whitney(window: list[int], reference: list[int]) -> None:
    values = [np.repeat(np.arange(len(window)), counts) for counts in (window, reference)]
    expected = stats.mannwhitneyu(*values, use_continuity=False, method="asymptotic").pvalue
    assert rank_test(np.array(window), np.array(reference)) == pytest.approx(expected, rel=1e-9)


def test_psi_of_two_shares_by_hand() -> None:
    window, reference = np.array([300_000, 700_000]), np.array([500_000, 500_000])
    expected = (0.3 - 0.5) * np.log(0.3 / 0.5) + (0.7 - 0.5) * np.log(0.7 / 0.5)
    assert psi(window, reference) == pytest.approx(expected, rel=1e-4)


def test_psi_by_chance_is_its_mean_over_samples_of_one_source() -> None:
    rng = np.random.default_rng(0)
    shares = np.full(20, 0.05)
    pairs = [(rng.multinomial(500, shares), rng.multinomial(8000, shares)) for _ in range(400)]
    found = [psi(window, reference) for window, reference in pairs]
    # sd of one is about √(2·19)/19 of the mean: of 400 about 1.6 %, and half a record a cell takes off some more.
    assert np.mean(found) == pytest.approx(psi_by_chance(*pairs[0]), rel=0.08)


@pytest.mark.parametrize(
    "shares",
    [[0.05] * 20, [0.9, 0.05, 0.03, 0.01, 0.005, 0.005], [0.98] + [0.002] * 10],
    ids=["even", "uneven", "rare"],
)
def test_g_test_alarms_as_often_as_its_level_says(shares: list[float]) -> None:
    rng = np.random.default_rng(1)
    p = [g_test(rng.multinomial(250, shares), rng.multinomial(4000, shares)) for _ in range(4000)]
    # At 1 % 40 are expected of 4,000; 3 standard deviations are 19, and discrete counts may give fewer.
    assert sum(value < 0.01 for value in p) <= 40 + 19
    assert sum(value < 0.001 for value in p) <= 4 + 8


def test_rank_test_finds_a_move_that_the_g_test_does_not() -> None:
    rng = np.random.default_rng(2)
    edges = stats.norm.ppf(np.arange(1, 20) / 20)
    reference = np.full(20, 400)
    windows = [np.bincount(np.searchsorted(edges, rng.normal(0.3, 1, 250)), minlength=20) for _ in range(100)]
    found = [sum(test(window, reference) < 1e-4 for window in windows) for test in (rank_test, g_test)]
    # z is about 0.3 √250 · .98 = 4.6 against a limit of 3.9: 3 in 4; the G-test has 19 degrees to spread over.
    assert found[0] > 60
    assert found[1] < found[0]


def test_empty_counts_differ_in_nothing() -> None:
    none, some = np.zeros(3, dtype=np.int64), np.array([1, 2, 3])
    for counts in ((none, some), (some, none), (none, none)):
        assert (g_test(*counts), rank_test(*counts)) == (1.0, 1.0)
        assert (jensen_shannon(*counts), psi_by_chance(*counts)) == (0.0, 0.0)
