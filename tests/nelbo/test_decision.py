from functools import reduce
from math import exp, inf, log

import numpy as np
import pytest
from scipy.stats import beta, norm

from nelbo.calibration import STATISTICS, CalibrationFile
from nelbo.decision import Decider, n_flagged_with, needed, rate_band, smallest_rate
from nelbo.discovery import added
from nelbo.errors import CalibrationError
from nelbo.extremes import Tail
from nelbo.intent import Intent
from nelbo.segments import Segments
from tests.bundles import plain_combination


def decider_file(n: int, rate: float = 0.05) -> CalibrationFile:
    """A calibration whose scores are 1 … n for each statistic."""
    scores = tuple(float(i) for i in range(1, n + 1))
    return CalibrationFile(
        created="2026-03-02T08:15:00+00:00",
        rate=rate,
        combination=plain_combination(categorical=False),
        scores=dict.fromkeys(STATISTICS, scores),
    )


def decider(n: int, rate: float = 0.05) -> Decider:
    """A decider whose calibration scores are 1 … n for each statistic."""
    return Decider(decider_file(n, rate))


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


def test_of_no_records_none_is_discovered() -> None:
    found = decider(99)
    decision = found.discover(found.count_ranks(np.empty(0)), 0.1)
    assert (decision.effective_rate, decision.fdr, decision.thresholds["score"]) == (0.0, 0.1, inf)


def test_discoveries_of_parts_of_a_file_are_those_of_the_whole() -> None:
    rng, found = np.random.default_rng(10), decider(99)
    parts = [rng.normal(90, 20, 50) for _ in range(4)]
    apart = reduce(added, map(found.count_ranks, parts))
    assert found.discover(apart, 0.2) == found.discover(found.count_ranks(np.concatenate(parts)), 0.2)


def test_bundles_own_intent_is_its_rate_or_its_false_discovery_rate() -> None:
    assert decider(99, rate=0.05).intent == Intent(rate=0.05)
    file = decider_file(99).model_copy(update={"fdr": 0.1})
    assert Decider(file).intent == Intent(fdr=0.1)


# --- beyond the calibration records ------------------------------------------------------------------


def with_tail(p_value: float = 0.5) -> Decider:
    """999 scores 1 … 999, whose last tenth is taken for an exponential tail of mean 100 above 899."""
    tail = Tail(start=899.0, share=0.1, scale=100.0, shape=0.0, p_value=p_value, resampled=((80.0, 0.0), (125.0, 0.0)))
    return Decider(decider_file(999).model_copy(update={"tails": dict.fromkeys(STATISTICS, tail)}))


def test_rate_below_the_smallest_certified_one_is_extrapolated_and_says_so() -> None:
    decision = with_tail().decide(0.0002)
    # A share of 0.1 is above the start, and one of 0.0002 above start + scale · log(0.1 / 0.0002).
    assert decision.thresholds["score"] == pytest.approx(899 + 100 * log(500))
    assert (decision.rate, decision.mode) == (0.0002, "extrapolated")
    assert decision.effective_rate == pytest.approx(0.0002)
    assert decision.rate_low < 0.0002 < decision.rate_high


def test_extrapolated_threshold_is_never_below_the_largest_calibration_score() -> None:
    tail = Tail(start=899.0, share=0.1, scale=10.0, shape=0.0, p_value=0.5, resampled=((10.0, 0.0),))
    decision = Decider(decider_file(999).model_copy(update={"tails": {"score": tail}})).decide(0.0005)
    assert decision.thresholds["score"] == 999.0
    assert decision.effective_rate == pytest.approx(0.1 * exp(-10))


def test_statistic_without_a_tail_has_nothing_beyond_an_extrapolated_threshold() -> None:
    tail = Tail(start=899.0, share=0.1, scale=10.0, shape=0.0, p_value=0.5, resampled=((10.0, 0.0),))
    decision = Decider(decider_file(999).model_copy(update={"tails": {"score": tail}})).decide(0.0005)
    assert (decision.thresholds["elbo"], decision.thresholds["reconstruction_error"]) == (inf, inf)


def test_certified_rate_is_not_extrapolated() -> None:
    assert with_tail().decide(0.001).mode == "certified"


_LACKING = "needs at least {} calibration records, this bundle has 999; its smallest rate{} is {}"


@pytest.mark.parametrize(
    ("found", "rate", "confidence", "detail"),
    [
        (with_tail(), 0.00005, None, _LACKING.format(19999, "", "0.001") + ", and 0.0001 where it may be extrapolated"),
        (with_tail(), 0.0005, 0.9, _LACKING.format(4605, " at confidence 0.9", "0.00231")),
        (
            with_tail(p_value=0.001),
            0.0005,
            None,
            _LACKING.format(1999, "", "0.001")
            + "; beyond it nothing is extrapolated, since the highest scores have no shape that one could rely on",
        ),
    ],
)
def test_extrapolation_is_refused_where_nothing_backs_it(
    found: Decider, rate: float, confidence: float | None, detail: str
) -> None:
    with pytest.raises(CalibrationError) as info:
        found.decide(rate, confidence)
    assert str(info.value).endswith(detail)


# --- segments ----------------------------------------------------------------------------------------


def of_two_segments() -> Decider:
    """Scores 1 … 999: the first 99 of segment 0, the others of segment 1, but for the last 20, which are of none."""
    members = (*[0] * 99, *[1] * 880, *[-1] * 20)
    segments = Segments(field="a", values=("x", "y"), members=dict.fromkeys(STATISTICS, members))
    return Decider(decider_file(999).model_copy(update={"segments": segments}))


def test_each_segment_has_the_threshold_of_its_own_records() -> None:
    decision = of_two_segments().decide(0.01)
    assert [decision.of(number).thresholds["score"] for number in (-1, 0, 1)] == [990.0, 99.0, 972.0]
    assert [decision.of(number).n_calibration for number in (-1, 0, 1)] == [999, 99, 880]
    assert np.asarray(decision.threshold("score", np.array([1, 0, -1]))).tolist() == [972.0, 99.0, 990.0]


def test_segment_of_too_few_records_is_judged_by_all() -> None:
    decision = of_two_segments().decide(0.005)  # needs 199
    assert list(decision.segments) == [1]
    assert decision.of(0) is decision


def test_record_beyond_its_segments_threshold_has_a_p_value_up_to_its_rate() -> None:
    found = of_two_segments()
    scores, numbers = np.array([99.0, 100.0, 972.0, 973.0]), np.array([0, 0, 1, 1])
    assert found.p_values("score", scores, numbers).tolist() == [2 / 100, 1 / 100, 9 / 881, 8 / 881]


def test_discoveries_hold_each_record_against_its_own_segment() -> None:
    """p-values 1/100 of the first segment and 2/881 of the second; at a rate of 0.02 BH allows both of two."""
    found = of_two_segments()
    scores, numbers = np.array([100.0, 979.0]), np.array([0, 1])
    decision = found.discover(found.count_ranks(scores, numbers), 0.02)
    assert (scores > decision.threshold("score", numbers)).tolist() == [True, True]
    decision = found.discover(found.count_ranks(scores, numbers), 0.009)
    assert (scores > decision.threshold("score", numbers)).tolist() == [False, True]


def test_rate_holds_in_each_segment_where_by_all_it_would_not() -> None:
    """300 calibrations of a quiet and a wild segment; the bands of 4 standard errors fail once in 16,000 each."""
    rng, n, k = np.random.default_rng(12), 199, 10
    realised: dict[str, list[float]] = {"apart": [], "by all": []}
    for _ in range(300):
        quiet, wild = rng.normal(0, 1, n), rng.normal(0, 3, n)
        scores = np.concatenate([quiet, wild])
        order = np.argsort(scores)
        members = tuple((order >= n).astype(int).tolist())
        segments = Segments(field="a", values=("quiet", "wild"), members=dict.fromkeys(STATISTICS, members))
        file = decider_file(2 * n).model_copy(
            update={"segments": segments, "scores": dict.fromkeys(STATISTICS, tuple(scores[order].tolist()))}
        )
        decision = Decider(file).decide(0.05)
        realised["apart"].append(float(norm.sf(decision.of(1).thresholds["score"] / 3)))
        realised["by all"].append(float(norm.sf(decision.thresholds["score"] / 3)))
    expected, deviation = k / (n + 1), (beta.var(k, n + 1 - k) / 300) ** 0.5
    assert np.mean(realised["apart"]) == pytest.approx(expected, abs=4 * deviation)
    assert np.mean(realised["by all"]) > 1.5 * expected
