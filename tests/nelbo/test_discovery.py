import numpy as np
from scipy.stats import false_discovery_control

from nelbo.discovery import added, discovered


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    """1,000 random cases with ties, beside scipy's adjusted p-values; ranks are whole, so that both agree exactly."""
    rng = np.random.default_rng(9)
    for _ in range(1_000):
        n, m = int(rng.integers(1, 200)), int(rng.integers(1, 60))
        low = int(rng.integers(1, n + 2))
        ranks = np.where(rng.random(m) < 0.5, rng.integers(1, low + 1, m), rng.integers(1, n + 2, m))
        fdr = float(rng.choice([0.01, 0.05, 0.1, 0.29, 0.5, 0.9]))
        largest = discovered({n: np.bincount(ranks, minlength=n + 2)}, fdr)
        adjusted = false_discovery_control(ranks / (n + 1), method="bh")
        flagged, close = ranks <= int(largest * (n + 1)), np.abs(adjusted - fdr) < 1e-12
        assert np.array_equal(flagged[~close], (adjusted <= fdr)[~close])
        assert flagged[close].all()  # in exact arithmetic it is equal, and equal is allowed


def test_p_values_of_calibrations_of_several_sizes_are_held_together() -> None:
    """500 random cases of two sizes, one of which divides the other, so that p-values of both tie."""
    rng = np.random.default_rng(13)
    for _ in range(500):
        m = int(rng.integers(1, 40))
        sizes = rng.choice([9, 99], m)
        p_values = rng.integers(1, sizes + 2) / (sizes + 1)
        counts = {n: np.bincount(np.rint(p_values[sizes == n] * (n + 1)).astype(int), minlength=n + 2) for n in (9, 99)}
        fdr = float(rng.choice([0.05, 0.2, 0.5]))
        adjusted = false_discovery_control(p_values, method="bh")
        close = np.abs(adjusted - fdr) < 1e-12
        flagged = p_values <= float(discovered(counts, fdr)) + 1e-12
        assert np.array_equal(flagged[~close], (adjusted <= fdr)[~close])


def test_of_no_records_none_is_discovered() -> None:
    assert discovered({}, 0.1) == 0
    assert discovered({9: np.zeros(11, dtype=np.intp)}, 0.1) == 0


def test_counts_of_parts_add_up_by_size() -> None:
    one, other = {3: np.array([0, 1, 0, 0, 2])}, {3: np.array([0, 1, 1, 0, 0]), 2: np.array([0, 0, 0, 5])}
    both = added(one, other)
    assert {n: counts.tolist() for n, counts in both.items()} == {2: [0, 0, 0, 5], 3: [0, 2, 1, 0, 2]}


def test_share_of_normal_records_among_discoveries_is_the_rate_at_most() -> None:
    """400 calibration sets, 30 odd records among 300; four standard errors above fail once in 31,000."""
    rng, fdr, shares = np.random.default_rng(11), 0.2, []
    for _ in range(400):
        calibration = np.sort(rng.normal(size=999))
        scores = np.concatenate([rng.normal(size=270), rng.normal(3.5, 1, 30)])
        ranks = 1000 - np.searchsorted(calibration, scores, side="left")
        flagged = ranks <= int(discovered({999: np.bincount(ranks, minlength=1001)}, fdr) * 1000)
        shares.append(flagged[:270].sum() / max(1, flagged.sum()))
    assert np.mean(shares) <= fdr + 4 * np.std(shares) / 20
    assert np.mean(shares) > fdr / 4  # and it does flag
