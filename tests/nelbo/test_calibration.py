import json
from fractions import Fraction
from math import inf, log, nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nelbo.calibration import (
    EVIDENCE,
    STATISTICS,
    Calibration,
    CalibrationFile,
    Combination,
    EvidenceName,
    IncreasingMap,
    Scores,
    fit_combination,
    fit_map,
    n_flagged_allowed,
    parse_calibration,
    raised,
)
from nelbo.errors import BundleError, CalibrationError
from tests.bundles import plain_combination

_TIED = st.lists(st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=40)


# --- p-values ----------------------------------------------------------------------------------------


@given(_TIED, _TIED)
def test_p_value_is_the_share_of_records_at_least_as_odd_the_new_one_included(
    calibration: list[float], scores: list[float]
) -> None:
    expected = [Fraction(1 + sum(c >= s for c in calibration), len(calibration) + 1) for s in scores]
    found = Calibration(np.array(calibration)).p_values(np.array(scores))
    assert found.tolist() == pytest.approx([float(p) for p in expected], rel=1e-12)


@given(_TIED, _TIED, st.decimals(min_value="0.001", max_value="0.999", places=3))
def test_flagged_by_p_value_is_beyond_the_threshold(calibration: list[float], scores: list[float], rate: Any) -> None:
    calibrated, n = Calibration(np.array(calibration)), len(calibration)
    k = n_flagged_allowed(float(rate), n)
    by_p_value = calibrated.p_values(np.array(scores)) <= k / (n + 1)
    assert by_p_value.tolist() == [score > calibrated.threshold(k) for score in scores]


def test_score_above_every_calibration_score_gets_the_smallest_p_value() -> None:
    assert Calibration(np.arange(99.0)).p_values(np.array([99.0, inf])).tolist() == [0.01, 0.01]


def test_score_below_every_calibration_score_gets_one() -> None:
    assert Calibration(np.arange(99.0)).p_values(np.array([-1.0, -inf])).tolist() == [1.0, 1.0]


def test_threshold_is_the_kth_largest_score_and_infinite_where_nothing_is_flagged() -> None:
    calibration = Calibration(np.array([3.0, 1.0, 2.0, 2.0]))
    assert [calibration.threshold(k) for k in range(5)] == [inf, 3.0, 2.0, 2.0, 1.0]


def test_nan_has_no_p_value_and_its_position_is_named() -> None:
    with pytest.raises(CalibrationError, match=r"^score 1 is NaN, which has no p-value$"):
        Calibration(np.array([1.0])).p_values(np.array([0.0, nan]))


@pytest.mark.parametrize("wrong", [nan, inf, -inf])
def test_calibration_score_that_is_no_number_is_refused(wrong: float) -> None:
    with pytest.raises(CalibrationError, match=r"^a calibration score is NaN or infinite; "):
        Calibration(np.array([1.0, wrong]))


@pytest.mark.parametrize(
    ("rate", "n", "k"),
    [(0.29, 99, 29), (0.07, 99, 7), (0.01, 99, 1), (0.01, 98, 0), (0.1, 9, 1), (0.58, 99, 58), (0.0, 99, 0)],
)
def test_k_is_that_of_the_decimal_a_person_wrote(rate: float, n: int, k: int) -> None:
    assert n_flagged_allowed(rate, n) == k


@given(st.integers(0, 999), st.integers(1, 3))
def test_k_of_every_decimal_rate_is_exact(thousandths: int, factor: int) -> None:
    assert n_flagged_allowed(thousandths / 1000, 1000 * factor - 1) == thousandths * factor


def test_p_values_of_normal_records_are_super_uniform() -> None:
    """P(p ≤ t) ≤ t over 4,000 seeds; each of 4 bands of 3 standard errors fails once in 740 by chance alone."""
    n_seeds, n = 4_000, 49
    rng = np.random.default_rng(20261122)
    # Rounded, so that ties are common.
    draws = np.round(rng.normal(size=(n_seeds, n + 1)), 1)
    p_values = np.array([Calibration(raised(row[1:])).p_values(row[:1])[0] for row in draws])
    for t in (0.02, 0.1, 0.3, 0.5):
        assert (p_values <= t).mean() <= t + 3 * sqrt(t * (1 - t) / n_seeds)


@pytest.mark.parametrize("noise", [-0.99e-5, 0.0, 0.99e-5])
@pytest.mark.parametrize("score", [-4000.0, -0.5, 0.0, 1e-7, 3.0, 1e12])
def test_record_equal_to_every_calibration_record_ties_in_spite_of_rounding(score: float, noise: float) -> None:
    calibration = Calibration(raised(np.full(999, score)))
    assert calibration.p_values(np.array([score * (1 + noise)])).tolist() == [1.0]


def test_raised_scores_are_sorted_and_only_ever_higher() -> None:
    scores = np.array([5.0, -200.0, 0.0])
    assert (raised(scores) > np.sort(scores)).all()
    assert raised(scores).tolist() == pytest.approx([-199.998, 1e-5, 5.00005], abs=1e-12)


# --- maps --------------------------------------------------------------------------------------------


def assert_increases(mapped: IncreasingMap, values: Scores) -> None:
    points = np.unique(values)
    assert np.isfinite(mapped(points)).all()
    assert (np.diff(mapped(points)) > 0).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0]),
        np.zeros(500),
        np.array([0.0] * 990 + [1.0] * 10),
        np.array([0.0] * 10 + [1.0] * 990),
        np.full(100, 1e30),
        np.array([-1e30, 1e30] * 50),
        np.linspace(0.0, 1e-12, 50),
        np.random.default_rng(0).standard_cauchy(1000),
    ],
    ids=["one value", "constant", "spike below", "spike above", "huge", "huge both ways", "tiny", "heavy tail"],
)
def test_map_increases_strictly_from_below_its_records_to_far_above(values: Scores) -> None:
    width = max(1.0, float(np.ptp(values)), float(np.abs(values).max()))
    reach = np.array([values.min() - width, values.max() + width, values.max() + 10 * width])
    assert_increases(fit_map(values), np.concatenate([values, reach]))


@settings(max_examples=200)
@given(st.lists(st.integers(-5, 5).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_map_of_any_values_increases(values: list[float]) -> None:
    mapped = fit_map(np.array(values))
    assert np.all(np.diff(mapped.x) > 0)
    assert np.all(np.diff(mapped.y) > 0)
    assert mapped.slope > 0


@given(st.floats(-100, 100))
def test_map_is_continuous(at: float) -> None:
    mapped = IncreasingMap(x=(-10.0, 0.0, 50.0), y=(0.0, 1.0, 2.0), slope=0.5)
    low, high = mapped(np.array([at - 1e-9, at + 1e-9]))
    assert high - low == pytest.approx(0.0, abs=1e-8)


def test_map_of_exponential_values_is_their_surprise() -> None:
    """−log P(X ≥ x) of an exponential variable is x; the band of 0.1 is ten standard errors at the median."""
    values = np.random.default_rng(1).exponential(size=20_000)
    mapped = fit_map(values)(np.array([log(2), 3.0, 20.0]))
    assert mapped.tolist() == pytest.approx([log(2), 3.0, 20.0], rel=0.1)


@pytest.mark.parametrize("steepest", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_map_rises_by_no_more_than_what_was_allowed(steepest: float, weight: float) -> None:
    values = np.concatenate([np.zeros(400), np.linspace(0.0, 0.1, 100), [1e-6, 0.2]])
    mapped = fit_map(values, weight, steepest)
    slopes = np.diff(mapped.y) / np.diff(mapped.x)
    assert np.max(slopes) == pytest.approx(weight * steepest, rel=1e-9)  # reached: all of these values lie too close
    assert mapped.slope == pytest.approx(weight * steepest)


def test_map_that_is_less_steep_than_allowed_is_not_changed_by_it() -> None:
    values = np.random.default_rng(1).exponential(size=1000)
    assert fit_map(values, steepest=50.0) == fit_map(values, steepest=100.0)


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"x": [], "y": []}, "a map needs as many x as y, at least one; it has 0 and 0"),
        ({"x": [0.0]}, "a map needs as many x as y, at least one; it has 1 and 2"),
        ({"x": [1.0, 1.0]}, "a map must increase strictly: x, y and slope"),
        ({"y": [1.0, 0.0]}, "a map must increase strictly: x, y and slope"),
        ({"slope": 0.0}, "a map must increase strictly: x, y and slope"),
    ],
)
def test_map_that_does_not_increase_is_refused(changed: dict[str, Any], detail: str) -> None:
    with pytest.raises(ValueError, match=detail):
        IncreasingMap.model_validate({"x": [0.0, 1.0], "y": [0.0, 1.0], "slope": 1.0} | changed)


# --- the combination ---------------------------------------------------------------------------------

NOTHING = np.zeros((200, 0))  # evidence of a graph that says nothing beside its nats


def test_combination_is_read_off_the_calibration_records() -> None:
    contributions = np.array([[float(i), 2.0] for i in range(11)])
    missing = np.zeros((11, 2), dtype=np.bool_)
    missing[0, 0] = True
    combination = fit_combination(("a", "b"), (True, False), contributions, missing, np.zeros(11), NOTHING[:11])
    assert combination.typical == (5.5, 2.0)  # of 1 … 10, the missing one left out
    assert combination.location == pytest.approx((9.1, 2.0))  # the 90th percentile of 1 … 10 lies at rank 8.1
    assert combination.spread == (1.0, 1.0)


def test_field_that_is_always_missing_adds_nothing() -> None:
    contributions = np.array([[1.0, 99.0], [2.0, 99.0]])
    missing = np.array([[False, True], [False, True]])
    combination = fit_combination(("a", "b"), (False, True), contributions, missing, np.zeros(2), NOTHING[:2])
    assert (combination.typical[1], combination.location[1], combination.spread[1]) == (0.0, 0.0, 1.0)


def combined(*categorical: bool, slope: float = 1.0, evidence: tuple[EvidenceName, ...] = ()) -> Combination:
    """Three fields, whose excess above 1 counts in units of 1, 2 and 4 nats; evidence counts double, then thrice."""
    straight = IncreasingMap(x=(0.0,), y=(0.0,), slope=1.0)
    return Combination(
        fields=("a", "b", "c"),
        typical=(0.0, 0.0, 0.0),
        location=(1.0, 1.0, 1.0),
        spread=(1.0, 2.0, 4.0),
        categorical=categorical,
        energy=straight,
        evidence={name: IncreasingMap(x=(0.0,), y=(0.0,), slope=2.0 + i) for i, name in enumerate(evidence)},
        oddest_category=IncreasingMap(x=(0.0,), y=(0.0,), slope=slope) if any(categorical) else None,
    )


@pytest.mark.parametrize(
    ("categorical", "oddest"),
    # Above 1 they are 1, 8 and 40, which is 1, 4 and 10 of their own units.
    [
        ((True, True, True), 10.0),
        ((True, True, False), 4.0),
        ((True, False, False), 1.0),
        ((False, False, True), 10.0),
        ((False, False, False), 0.0),
    ],
)
def test_score_adds_the_energy_and_the_oddest_category(categorical: tuple[bool, ...], oddest: float) -> None:
    energy = 2.0 + 9.0 + 41.0 + 5.0
    found = combined(*categorical, slope=0.5).score(np.array([[2.0, 9.0, 41.0]]), np.array([5.0]), NOTHING[:1])
    assert found.tolist() == [energy + 0.5 * oddest]


@pytest.mark.parametrize(("evidence", "expected"), [((), 0.0), (("residual",), 14.0), (EVIDENCE, 14.0 + 33.0)])
def test_score_adds_what_the_graph_says_beside(evidence: tuple[EvidenceName, ...], expected: float) -> None:
    combination = combined(False, False, False, evidence=evidence)
    values = np.array([[7.0, 11.0]])[:, : len(evidence)]
    found = combination.score(np.array([[1.0, 2.0, 3.0]]), np.array([4.0]), values)
    assert found.tolist() == [10.0 + expected]


@pytest.mark.parametrize("names", [("rarity",), ("rarity", "residual")])
def test_evidence_in_another_order_is_refused(names: tuple[EvidenceName, ...]) -> None:
    with pytest.raises(ValueError, match="evidence comes in the order residual, rarity, got rarity"):
        combined(False, False, False, evidence=names)


def test_residual_counts_half_of_its_surprise_and_rarity_all_of_it() -> None:
    """Of an exponential variable the surprise is the value itself."""
    rng = np.random.default_rng(0)
    part = rng.exponential(size=(20_000, 3))
    missing = np.zeros((20_000, 1), dtype=np.bool_)
    combination = fit_combination(("a",), (False,), part[:, :1], missing, np.zeros(20_000), part[:, 1:])
    at = np.array([3.0])
    assert combination.energy(at)[0] == pytest.approx(3.0, rel=0.1)
    assert tuple(combination.evidence) == EVIDENCE
    assert combination.evidence["residual"](at)[0] == pytest.approx(1.5, rel=0.1)
    assert combination.evidence["rarity"](at)[0] == pytest.approx(3.0, rel=0.1)


def test_table_of_numbers_without_evidence_is_scored_by_its_energy_alone() -> None:
    contributions = np.random.default_rng(0).exponential(size=(200, 2))
    missing = np.zeros((200, 2), dtype=np.bool_)
    combination = fit_combination(("a", "b"), (False, False), contributions, missing, np.ones(200), NOTHING[:200])
    assert combination.oddest_category is None
    found = combination.score(contributions, np.ones(200), NOTHING[:200])
    assert found.tolist() == combination.energy(contributions.sum(axis=1) + 1).tolist()


def test_odd_number_is_no_odd_category() -> None:
    rng = np.random.default_rng(0)
    contributions = rng.exponential(size=(200, 2))
    missing = np.zeros((200, 2), dtype=np.bool_)
    fields = ("number", "category")
    combination = fit_combination(fields, (False, True), contributions, missing, np.zeros(200), NOTHING[:200])
    # The same energy, and the nats on the number or on the category.
    number, category = combination.score(np.array([[30.0, 0.0], [0.0, 30.0]]), np.zeros(2), NOTHING[:2])
    assert category > number
    assert combination.oddest_category is not None
    least, most = (np.array([(v - combination.location[1]) / combination.spread[1]]) for v in (0.0, 30.0))
    expected = combination.oddest_category(most) - combination.oddest_category(least)
    assert category - number == pytest.approx(float(expected[0]))


@pytest.mark.parametrize(("categorical", "has_map"), [((False,), True), ((True,), False)])
def test_map_of_the_oddest_category_without_categories_is_refused_and_so_is_its_absence(
    categorical: tuple[bool, ...], has_map: bool
) -> None:
    straight = IncreasingMap(x=(0.0,), y=(0.0,), slope=1.0)
    with pytest.raises(ValueError, match="a map of the oddest category belongs to categorical fields"):
        Combination(
            fields=("a",),
            typical=(0.0,),
            location=(0.0,),
            spread=(1.0,),
            categorical=categorical,
            energy=straight,
            evidence={},
            oddest_category=straight if has_map else None,
        )


# --- the file ----------------------------------------------------------------------------------------


def calibration_json(**changed: Any) -> dict[str, Any]:
    file = CalibrationFile(
        created="2026-03-02T08:15:00+00:00",
        rate=0.05,
        combination=plain_combination(categorical=True),
        scores=dict.fromkeys(STATISTICS, (1.0, 2.0)),
    )
    found = file.model_dump(mode="json")
    found["combination"].update(changed.pop("combination", {}))
    return found | changed


def test_calibration_survives_its_file() -> None:
    file = CalibrationFile.model_validate(calibration_json())
    assert parse_calibration(file.model_dump_json().encode(), "x") == file
    assert file.n == 2


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"scores": {"score": [1.0]}}, "the file: scores of elbo, reconstruction_error are missing"),
        (
            {"scores": {"score": [1.0], "elbo": [1.0], "reconstruction_error": []}},
            "the file: every statistic needs equally many scores, at least one",
        ),
        (
            {"scores": {"score": [], "elbo": [], "reconstruction_error": []}},
            "the file: every statistic needs equally many scores, at least one",
        ),
        ({"combination": {"typical": [0.0, 1.0]}}, "combination: typical has 2 values for 1 fields"),
        ({"combination": {"categorical": []}}, "combination: categorical has 0 values for 1 fields"),
        ({"combination": {"spread": [0.0]}}, "combination: a spread must be above 0"),
        (
            {"combination": {"categorical": [False]}},
            "combination: a map of the oddest category belongs to categorical fields, and to nothing else",
        ),
        ({"format": 2}, "format: Input should be 4"),
        ({"rate": "often"}, "rate: Input should be a valid number, unable to parse string as a number"),
    ],
)
def test_calibration_that_is_wrong_is_refused_with_its_place(changed: dict[str, Any], detail: str) -> None:
    with pytest.raises(BundleError) as info:
        parse_calibration(json.dumps(calibration_json(**changed)).encode(), "bundle 'a@1'")
    assert str(info.value) == f"bundle 'a@1': calibration.json: {detail}"


def test_calibration_score_that_is_nan_is_refused_before_it_scores() -> None:
    text = CalibrationFile.model_validate(calibration_json()).model_dump_json().replace("2.0]", "NaN]", 1)
    with pytest.raises(BundleError, match=r"Input should be a finite number$"):
        parse_calibration(text.encode(), "bundle 'a@1'")
