import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from nelbo.extremes import FEWEST, Tail, estimate, exceedances, extrapolated, fit_tail, n_in_tail


def tail(shape: float, scale: float = 1.0, p_value: float = 0.5) -> Tail:
    return Tail(start=2.0, share=0.1, scale=scale, shape=shape, p_value=p_value, resampled=((scale, shape),))


def fitted(scores: np.ndarray[tuple[int], np.dtype[np.float64]], seed: int = 0) -> Tail:
    found = fit_tail(scores, np.random.default_rng(seed))
    assert found is not None
    return found


def exponential(n: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).exponential(size=n)


def test_threshold_of_an_exponential_tail_by_hand() -> None:
    # A share e⁻³ of the tenth that is above 2 is more than 3 scales further.
    assert tail(0.0, scale=1.5).threshold(0.1 * math.exp(-3)) == pytest.approx(2 + 3 * 1.5)


def test_threshold_of_a_heavy_tail_by_hand() -> None:
    # (1 + above / 2)⁻² = 1 / 100 where above = 18.
    assert tail(0.5).threshold(0.001) == pytest.approx(20.0)


@pytest.mark.parametrize("shape", [-0.4, -0.1, 0.0, 0.2, 0.7])
def test_rate_is_scipys_and_the_inverse_of_threshold(shape: float) -> None:
    for rate in (0.1, 0.01, 1e-4, 1e-7):
        threshold = tail(shape, scale=3.0).threshold(rate)
        assert tail(shape, scale=3.0).rate(threshold) == pytest.approx(rate, rel=1e-6)
        assert 0.1 * stats.genpareto(shape, scale=3.0).sf(threshold - 2.0) == pytest.approx(rate, rel=1e-6)


def test_a_shape_of_0_is_the_limit_of_shapes_near_it() -> None:
    near = [tail(shape).threshold(1e-5) for shape in (-1e-6, -1e-10, 0.0, 1e-10, 1e-6)]
    assert near == pytest.approx([near[2]] * 5, rel=1e-4)
    assert near == sorted(near)


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.4])
def test_a_smaller_rate_has_a_higher_threshold(shape: float) -> None:
    thresholds = [tail(shape).threshold(rate) for rate in (0.1, 0.03, 1e-3, 1e-4, 1e-6)]
    assert thresholds[0] == 2.0
    assert all(np.diff(thresholds) > 0)


def test_nothing_lies_beyond_the_end_of_a_tail() -> None:
    ending = tail(-0.5)  # at 2 + 1 / 0.5
    assert ending.threshold(1e-12) < 4.0
    assert (ending.rate(4.0), ending.rate(100.0)) == (0.0, 0.0)
    assert ending.band_beyond(100.0) == (0.0, 0.0)


def test_band_is_of_the_resampled_tails() -> None:
    pairs = tuple((scale, 0.0) for scale in np.linspace(1.0, 2.0, 101).tolist())
    found = Tail(start=0.0, share=0.5, scale=1.5, shape=0.0, p_value=1.0, resampled=pairs)
    at = found.threshold(0.01)
    assert found.band(0.01) == pytest.approx((0.5 * math.exp(-at / 1.05), 0.5 * math.exp(-at / 1.95)))


def test_a_tail_that_looks_unlike_the_records_or_ends_soon_does_not_fit() -> None:
    assert tail(0.1).fits
    assert not tail(0.1, p_value=0.005).fits
    assert not tail(-0.3).fits
    assert (tail(-0.3).ends, tail(-0.2).ends) == (True, False)


def test_threshold_is_never_below_the_largest_calibration_score() -> None:
    at = tail(0.0).threshold(1e-4)
    assert extrapolated(tail(0.0), at + 1, 1e-4) == at + 1
    assert extrapolated(tail(0.0), at - 1, 1e-4) == at


def test_fewer_records_than_needed_have_no_tail() -> None:
    assert fit_tail(exponential(FEWEST - 1), np.random.default_rng(0)) is None
    assert fit_tail(exponential(FEWEST), np.random.default_rng(0)) is not None


@pytest.mark.parametrize("n_values", [1, 2, 200])
def test_scores_full_of_ties_have_no_tail(n_values: int) -> None:
    rng = np.random.default_rng(0)
    assert fit_tail(rng.choice(exponential(n_values), 10_000), rng) is None


def test_a_few_records_that_are_there_twice_change_little() -> None:
    scores = exponential(5_000)
    twice = np.append(scores[:4_750], scores[:250])
    assert fitted(twice).fits
    assert math.log(fitted(twice).rate(15.0) / fitted(scores).rate(15.0)) == pytest.approx(0.0, abs=1.0)


def test_one_record_far_out_is_a_tail_that_does_not_fit() -> None:
    found = fitted(np.append(exponential(4_999), 1e9))
    assert not found.fits
    assert math.isfinite(found.threshold(1e-5))


def test_share_and_start_are_counted_from_records() -> None:
    scores = exponential(10_000)
    found = fitted(scores)
    assert n_in_tail(10_000) == 1_000
    assert (scores > found.start).mean() == found.share == 0.1


def test_exceedances_leave_out_what_ties_with_the_start() -> None:
    start, excess = exceedances(np.array([1.0, 7.0, 4.0, 4.0, 5.0]), 3)
    assert (start, excess.tolist()) == (4.0, [1.0, 3.0])


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_estimates_are_of_the_tail_that_samples_come_from(shape: float) -> None:
    # With 1,000 of a sample the shape is known to (1 + shape) / √1000, 0.04 at most; the mean of 100 to a tenth of it.
    # The prior draws it towards 0 by 0.04² / (0.04² + 0.1²), a seventh at most.
    samples = np.sort(stats.genpareto(shape, scale=5.0).rvs((100, 1_000), random_state=1), axis=1)
    scales, shapes = estimate(samples)
    assert shapes.mean() == pytest.approx(shape, abs=abs(shape) / 7 + 4 * 0.004)
    assert shapes.std() < 1.3 * 0.04
    assert scales.mean() == pytest.approx(5.0, rel=0.06)
    _, free = estimate(samples, math.inf)
    assert free.mean() == pytest.approx(shape, abs=4 * 0.004)


def test_unit_of_the_scores_does_not_matter() -> None:
    scores = exponential(3_000)
    one, other = fitted(scores), fitted(1e6 * scores - 5e6)
    assert other.threshold(1e-4) == pytest.approx(1e6 * one.threshold(1e-4) - 5e6, rel=1e-6)
    assert other.p_value == one.p_value


def test_p_values_of_exponential_tails_are_rarely_small() -> None:
    # Uniform but for their steps: 5 of 50 below 0.1 expected, 13 and more once in 1,000.
    p_values = [fitted(exponential(2_000, seed), seed).p_value for seed in range(50)]
    assert sum(p_value < 0.1 for p_value in p_values) < 13


def test_band_of_exponential_tails_covers_the_true_share() -> None:
    # Of 40 with 90 % at least, fewer than 30 once in 700.
    covered = 0
    for seed in range(40):
        found = fitted(exponential(2_000, seed), seed)
        low, high = found.band(5e-5)
        covered += low <= math.exp(-found.threshold(5e-5)) <= high
    assert covered >= 30


def test_a_seed_gives_the_same_tail_again() -> None:
    scores = exponential(2_500)
    assert fitted(scores, 3) == fitted(scores[::-1], 3)
    assert fitted(scores, 3).resampled != fitted(scores, 4).resampled


def test_a_tail_survives_its_file_and_refuses_another() -> None:
    found = fitted(exponential(2_500))
    assert Tail.model_validate_json(found.model_dump_json()) == found
    assert len(found.resampled) == 100
    with pytest.raises(ValidationError, match="scale"):
        Tail(start=0.0, share=0.1, scale=0.0, shape=0.0, p_value=0.5, resampled=((1.0, 0.0),))
