from math import inf

import numpy as np
import pytest
from scipy.stats import beta, false_discovery_control

from nelbo.calibration import STATISTICS, CalibrationFile
from nelbo.decision import Decider, discovered, n_flagged_with, needed, rate_band, smallest_rate
from nelbo.errors import CalibrationError
from tests.bundles import plain_combination


def decider(n: int, rate: float = 0.05) -> Decider:
    """A decider whose calibration scores are 1 … n for each statistic."""
    scores = tuple(float(i) for i in range(1, n + 1))
    return Decider(
        CalibrationFile(
            created="2026-03-02T08:15:00+00:00",
            rate=rate,
            combination=plain_combination(categorical=False),
            scores=dict.fromkeys(STATISTICS, scores),
        )
    )


@pytest.mark.parametrize(("k", "n"), [(1, 19), (5, 499), (1, 99), (100, 9_999), (49, 50)])
def test_rate_band_is_that_of_the_beta_distribution(k: int, n: int) -> None:
    assert rate_band(k, n) == pytest.approx((beta.ppf(0.05, k, n + 1 - k), beta.ppf(0.95, k, n + 1 - k)), rel=1e-9)


def test_rate_band_of_nothing_flagged_is_zero() -> None:
    assert rate_band(0, 499) == (0.0, 0.0)


def test_realised_rates_lie_in_the_band_nine_times_of_ten() -> None:
    """2,000 calibration sets of uniform scores; the band of 4 standard errors fails once in 16,000."""
    rng, n, k = np.random.default_rng(7), 99, 5
    low, high = rate_band(k, n)
    realised = 1.0 - np.sort(rng.random((2_000, n)), axis=1)[:, n - k]
    share = ((realised >= low) & (realised <= high)).mean()
    assert share == pytest.approx(0.9, abs=4 * (0.9 * 0.1 / 2_000) ** 0.5)


def test_decision_states_what_the_calibration_records_give() -> None:
    decision = decider(99).decide(0.029)
    assert (decision.rate, decision.effective_rate, decision.mode, decision.n_calibration) == (
        0.029,
        0.02,
        "certified",
        99,
    )
    assert decision.thresholds == {"score": 98.0, "elbo": 98.0, "reconstruction_error": 98.0}
    assert decision.rate_low < 0.02 < decision.rate_high


def test_bundles_own_rate_holds_where_none_is_named() -> None:
    assert decider(99, rate=0.05).decide().rate == 0.05


def test_rate_zero_flags_nothing() -> None:
    decision = decider(99).decide(0.0)
    assert (decision.effective_rate, decision.thresholds["score"]) == (0.0, inf)


def test_rate_that_the_records_do_not_carry_is_refused_with_what_would() -> None:
    with pytest.raises(CalibrationError) as info:
        decider(499).decide(0.001)
    assert str(info.value) == (
        "false-alarm rate 0.001 needs at least 999 calibration records, this bundle has 499; its smallest rate is 0.002"
    )


@pytest.mark.parametrize("rate", [1.0, 2.0, -0.1, float("nan"), inf])
def test_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(CalibrationError) as info:
        decider(99).decide(rate)
    assert str(info.value) == f"false-alarm rate {rate:g} is not a share: expected 0 ≤ rate < 1"


@pytest.mark.parametrize("n", [1, 2, 5, 6, 19, 20, 99, 105, 199, 999, 12_345])
def test_smallest_rate_as_an_error_writes_it_is_carried(n: int) -> None:
    assert decider(n).decide(smallest_rate(n)).effective_rate == 1 / (n + 1)
    assert decider(n).decide(float(f"{smallest_rate(n):.3g}")).effective_rate == 1 / (n + 1)
    with pytest.raises(CalibrationError):
        decider(n).decide(smallest_rate(n) * 0.98)


@pytest.mark.parametrize(("rate", "n"), [(0.01, 99), (0.001, 999), (0.05, 19), (0.3, 3), (0.5, 1), (0.9, 1)])
def test_needed_is_the_smallest_number_of_records_that_carries_a_rate(rate: float, n: int) -> None:
    assert needed(rate) == n
    decider(n).decide(rate)


# --- with a confidence -------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("rate", [0.3, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("n", [19, 99, 230, 2_302, 9_999])
def test_confidence_takes_the_largest_k_whose_true_rate_is_low_enough(n: int, rate: float, confidence: float) -> None:
    ks = np.arange(1, int(rate * (n + 1)) + 1)
    good = ks[beta.cdf(rate, ks, n + 1 - ks) >= confidence]
    assert n_flagged_with(rate, n, confidence) == max(good, default=0)


def test_with_a_confidence_the_true_rate_exceeds_the_rate_as_seldom_as_promised() -> None:
    """5,000 calibration sets of uniform scores; four standard errors above one in ten fail once in 31,000."""
    rng, n, rate = np.random.default_rng(8), 499, 0.05
    k = n_flagged_with(rate, n, 0.9)
    realised = 1.0 - np.sort(rng.random((5_000, n)), axis=1)[:, n - k]
    assert (realised > rate).mean() <= 0.1 + 4 * (0.1 * 0.9 / 5_000) ** 0.5
    # Without one, about half of all sets exceed it.
    plain = 1.0 - np.sort(rng.random((5_000, n)), axis=1)[:, n - 25]
    assert (plain > rate).mean() > 0.4


@pytest.mark.parametrize(("rate", "n"), [(0.01, 230), (0.001, 2_302), (0.0001, 23_025)])
def test_needed_for_90_percent_is_what_it_is_known_to_be(rate: float, n: int) -> None:
    assert needed(rate, 0.9) == n
    assert (n_flagged_with(rate, n, 0.9), n_flagged_with(rate, n - 1, 0.9)) == (1, 0)


@pytest.mark.parametrize("n", [19, 230, 4_321])
def test_smallest_rate_with_a_confidence_is_carried_and_a_smaller_one_is_not(n: int) -> None:
    rate = smallest_rate(n, 0.9)
    assert decider(n).decide(rate, 0.9).effective_rate == 1 / (n + 1)
    with pytest.raises(CalibrationError, match=r"at confidence 0\.9 needs at least"):
        decider(n).decide(rate * 0.98, 0.9)


def test_bundles_own_confidence_goes_with_its_own_rate_alone() -> None:
    file = CalibrationFile(
        created="2026-03-02T08:15:00+00:00",
        rate=0.05,
        confidence=0.9,
        combination=plain_combination(categorical=False),
        scores=dict.fromkeys(STATISTICS, tuple(float(i) for i in range(999))),
    )
    own, other = Decider(file).decide(), Decider(file).decide(0.05)
    assert (own.confidence, other.confidence) == (0.9, None)
    assert own.effective_rate < other.effective_rate == 0.05


# --- a false discovery rate --------------------------------------------------------------------------


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    """1,000 random cases with ties, beside scipy's adjusted p-values; ranks are whole, so that both agree exactly."""
    rng = np.random.default_rng(9)
    for _ in range(1_000):
        n, m = int(rng.integers(1, 200)), int(rng.integers(1, 60))
        low = int(rng.integers(1, n + 2))
        ranks = np.where(rng.random(m) < 0.5, rng.integers(1, low + 1, m), rng.integers(1, n + 2, m))
        fdr = float(rng.choice([0.01, 0.05, 0.1, 0.29, 0.5, 0.9]))
        k = discovered(np.bincount(ranks, minlength=n + 2), fdr)
        adjusted = false_discovery_control(ranks / (n + 1), method="bh")
        flagged, close = ranks <= k, np.abs(adjusted - fdr) < 1e-12
        assert np.array_equal(flagged[~close], (adjusted <= fdr)[~close])
        assert flagged[close].all()  # in exact arithmetic it is equal, and equal is allowed


def test_of_no_records_none_is_discovered() -> None:
    found = decider(99)
    decision = found.discover(found.count_ranks(np.empty(0)), 0.1)
    assert (decision.effective_rate, decision.fdr, decision.thresholds["score"]) == (0.0, 0.1, inf)


def test_discoveries_of_parts_of_a_file_are_those_of_the_whole() -> None:
    rng, found = np.random.default_rng(10), decider(99)
    parts = [rng.normal(90, 20, 50) for _ in range(4)]
    apart = sum((found.count_ranks(part) for part in parts), found.count_ranks(np.empty(0)))
    assert found.discover(apart, 0.2) == found.discover(found.count_ranks(np.concatenate(parts)), 0.2)


def test_share_of_normal_records_among_discoveries_is_the_rate_at_most() -> None:
    """400 calibration sets, 30 odd records among 300; four standard errors above fail once in 31,000."""
    rng, fdr, shares = np.random.default_rng(11), 0.2, []
    for _ in range(400):
        calibration = np.sort(rng.normal(size=999))
        scores = np.concatenate([rng.normal(size=270), rng.normal(3.5, 1, 30)])
        ranks = 1000 - np.searchsorted(calibration, scores, side="left")
        flagged = ranks <= discovered(np.bincount(ranks, minlength=1001), fdr)
        shares.append(flagged[:270].sum() / max(1, flagged.sum()))
    assert np.mean(shares) <= fdr + 4 * np.std(shares) / 20
    assert np.mean(shares) > fdr / 4  # and it does flag
