from math import inf

import numpy as np
import pytest
from scipy.stats import beta

from nelbo.calibration import STATISTICS, CalibrationFile
from nelbo.decision import Decider, needed, rate_band, smallest_rate
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
