import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import binom

from nelbo.intervals import Interval, fit_interval, n_outside

Numbers = NDArray[np.float64]


def straight(low: float | None, high: float | None, *, least: float = -1e3, greatest: float = 1e3) -> Interval:
    """From `low` below what is expected to `high` above it: so wide a unit is bent nowhere."""
    ends = [None if end is None else end / 1e9 for end in (low, high)]
    return Interval(
        n=(19,), least=least, greatest=greatest, centre=0.0, scale=1e9, middle=(0.0,), low=ends[:1], high=ends[1:]
    )


def covered(interval: Interval | None, values: Numbers, expected: Numbers) -> NDArray[np.bool_]:
    assert interval is not None
    ends = np.array([interval.ends(number) for number in expected.tolist()])
    return np.asarray((ends[:, 0] <= values) & (values <= ends[:, 1]))


# --- how many normal values lie between the ends -----------------------------------------------------


def test_a_twentieth_of_the_records_lies_below_and_as_many_above() -> None:
    """Of 39 records and a new one, two may lie below: the second of 0, 1, …, 38 is 1, and 37 from above."""
    interval = fit_interval(np.arange(39.0), np.zeros(39))
    assert interval is not None
    assert interval.ends(0.0) == pytest.approx((1.0, 37.0), abs=0.01)


@pytest.mark.parametrize("n", [19, 39, 59, 100, 500, 1200])
def test_nine_of_ten_new_values_lie_between_the_ends(n: int) -> None:
    """Over 300 calibrations, one new record each; the band fails once in 500."""
    rng, hits, times = np.random.default_rng(n), 0, 300
    for _ in range(times):
        expected = rng.normal(size=n + 1)
        values = expected + rng.exponential(size=n + 1)
        hits += int(covered(fit_interval(values[:n], expected[:n]), values[n:], expected[n:])[0])
    ideal = 1 - 2 * n_outside(n) / (n + 1)
    low, high = binom(times, ideal).ppf([0.001, 0.999])
    assert low <= hits <= high


@pytest.mark.parametrize("kind", ["spike", "integers", "two values", "constant", "heavy"])
def test_at_least_nine_of_ten_new_values_lie_between_the_ends_of_ties_and_tails(kind: str) -> None:
    rng, hits, times, n = np.random.default_rng(1), 0, 300, 80
    for _ in range(times):
        values = {
            "spike": np.where(rng.random(n + 1) < 0.7, 0.0, rng.lognormal(0, 2, n + 1)),
            "integers": rng.poisson(3, n + 1).astype(float),
            "two values": (rng.random(n + 1) < 0.08).astype(float),
            "constant": np.full(n + 1, 7.25),
            "heavy": rng.standard_cauchy(n + 1) * 1e6,
        }[kind]
        expected = rng.normal(0, 1e-3, n + 1)
        hits += int(covered(fit_interval(values[:n], expected[:n]), values[n:], expected[n:])[0])
    assert hits >= binom(times, 0.9).ppf(0.001)


def test_range_of_the_records_is_part_of_the_promise() -> None:
    """Clipped to the range of 19 records without more ado, an interval would miss every new least or greatest value."""
    rng, times, n = np.random.default_rng(2), 2000, 19
    values = rng.normal(size=(times, n + 1))
    hits = [covered(fit_interval(row[:n], np.zeros(n)), row[n:], np.zeros(1))[0] for row in values]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.021)  # three standard deviations


def test_spread_that_grows_with_the_level_gives_wider_intervals_there() -> None:
    rng, n = np.random.default_rng(3), 4000
    expected = rng.uniform(1, 100, n)
    values = expected * rng.lognormal(0, 0.2, n)
    interval = fit_interval(values[:2000], expected[:2000])
    assert interval is not None
    (low, high), (lower, higher) = interval.ends(95.0), interval.ends(3.0)
    assert high - low > 4 * (higher - lower)
    inside = covered(interval, values[2000:], expected[2000:])
    for part in (expected[2000:] < 20, expected[2000:] > 80):
        assert inside[part].mean() == pytest.approx(0.9, abs=0.08)


def test_interval_is_the_same_for_records_in_any_order() -> None:
    rng = np.random.default_rng(0)
    values, expected = rng.normal(size=(2, 900))
    order = rng.permutation(900)
    assert fit_interval(values, expected) == fit_interval(values[order], expected[order])


def test_bins_hold_two_hundred_records_each() -> None:
    rng = np.random.default_rng(0)
    for n, n_bins in ((399, 1), (400, 2), (1000, 5), (4000, 5)):
        interval = fit_interval(*rng.normal(size=(2, n)))
        assert interval is not None
        assert len(interval.n) == n_bins
        assert min(interval.n) >= 199


def test_what_is_expected_again_and_again_makes_no_bins() -> None:
    interval = fit_interval(np.random.default_rng(0).normal(size=1000), np.full(1000, 2.0))
    assert interval is not None
    assert interval.n == (1000,)


# --- few records -------------------------------------------------------------------------------------


def test_fewer_than_nineteen_values_have_no_interval() -> None:
    values = np.append(np.arange(18.0), np.full(100, np.nan))
    assert fit_interval(values, np.zeros(118)) is None
    assert fit_interval(np.append(values, 18.0), np.zeros(119)) is not None


def test_nineteen_values_have_their_range() -> None:
    interval = fit_interval(np.arange(19.0), np.arange(19.0))
    assert interval is not None
    assert [interval.ends(expected) for expected in (-5.0, 9.0, 99.0)] == [(0.0, 18.0)] * 3


# --- as a person reads it ----------------------------------------------------------------------------


def test_ends_are_the_outermost_multiples_of_the_step_within() -> None:
    assert straight(-4.4, 5.3).shown(42.0, 1.0) == (42.0, 38.0, 47.0)
    assert straight(-0.25, 0.3).shown(0.3, 0.1) == (0.3, 0.1, 0.6)


def test_interval_between_two_steps_is_the_nearer_one() -> None:
    assert straight(-0.1, 0.2).shown(3.3, 1.0) == (3.0, 3.0, 3.0)


def test_ends_without_a_step_are_rounded_outwards() -> None:
    expected, low, high = straight(-4.0004, 5.0001).shown(1 / 3, None)
    assert (expected, low, high) == (0.333, -3.668, 5.334)


def test_what_is_expected_lies_between_the_ends() -> None:
    assert straight(2.0, 5.0).shown(10.0, 1.0) == (12.0, 12.0, 15.0)
    assert straight(-2.0, 5.0, least=0, greatest=8).shown(20.0, None) == (8.0, 8.0, 8.0)


def test_interval_without_an_end_reaches_to_the_end_of_the_range() -> None:
    assert straight(None, 5.0, least=0.0).shown(42.0, 1.0) == (42.0, 0.0, 47.0)


def test_large_numbers_keep_their_digits() -> None:
    interval = straight(-4.0, 5.0, least=1.7e9, greatest=1.8e9)
    assert interval.shown(1_750_000_042.0, 1.0) == pytest.approx((1_750_000_042, 1_750_000_031, 1_750_000_057), abs=20)


@pytest.mark.parametrize("expected", [-1e300, 0.0, 5e-324, 1e300])
def test_ends_of_any_expectation_are_within_the_range(expected: float) -> None:
    rng = np.random.default_rng(0)
    interval = fit_interval(rng.standard_cauchy(500), rng.normal(size=500))
    assert interval is not None
    for step in (None, 0.5):
        shown = interval.shown(expected, step)
        assert shown[1] <= shown[0] <= shown[2]
        assert interval.least - 0.5 <= shown[1] <= shown[2] <= interval.greatest + 0.5


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"edges": (1.0,)}, "an interval needs n, middle, low and high for every bin, one more than edges"),
        ({"scale": 0.0}, "an interval needs a scale above 0, and least at most greatest"),
        ({"least": 2e3}, "an interval needs a scale above 0, and least at most greatest"),
    ],
)
def test_interval_that_does_not_fit_together_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Interval.model_validate(straight(-1, 1).model_dump() | change)


def test_usual_value_makes_up_for_what_is_always_expected_too_low() -> None:
    """Expected 10 below the truth everywhere; the median of 399 normal errors is known to within a twentieth."""
    rng = np.random.default_rng(20)
    level = rng.normal(50.0, 10.0, 399)
    interval = fit_interval(level + rng.normal(size=399), level - 10.0)
    assert interval is not None
    assert interval.usual(40.0) == pytest.approx(50.0, abs=0.5)
    assert interval.shown(40.0, 1.0)[0] == 50.0
