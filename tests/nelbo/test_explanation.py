from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nelbo.bundle import read_bundle
from nelbo.calibration import IncreasingMap
from nelbo.explanation import Causes, Repairs, causes, explain, repair
from nelbo.scoring import Scored, Scorer, novelty
from nelbo.store import Store
from tests.bundles import PUMPS, normal_records, odd_record, tiny_scorer

N_FIELDS = len(PUMPS.fields)
CALM = {"pressure": 5.0, "in/out [l/s]": 20.0, "rpm": 1500.0, "valve": "open", "heated": False}


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


def scored_by(scorer: Scorer, *records: dict[str, Any], rate: float | None = None) -> Scored:
    return scorer.score(scorer.decoder.objects(records), scorer.decider.decide(rate))


def causes_of(scorer: Scorer, scored: Scored) -> Causes:
    return causes(scorer, scored, explain(scorer, scored, np.arange(len(scored.batch))))


def names(found: Causes, at: int = 0) -> list[str]:
    return [PUMPS.fields[j].name for j in found.fields[at]]


# --- field by field ----------------------------------------------------------------------------------


def test_explanation_of_no_records_has_the_shapes_of_none(scorer: Scorer) -> None:
    scored = scored_by(scorer)
    explanation = explain(scorer, scored, np.empty(0, dtype=np.intp))
    assert explanation.attribution.shape == (0, N_FIELDS)
    assert causes(scorer, scored, explanation).fields == []
    assert repair(scorer, scored, causes(scorer, scored, explanation)).changes == []


def test_attribution_of_any_record_is_finite(scorer: Scorer) -> None:
    records = [odd_record(pressure=3e38), odd_record(rpm=-1e300), odd_record(valve="never seen", heated=None)]
    scored = scored_by(scorer, *records, {"pressure": None, "in/out [l/s]": None, "valve": None, "heated": None})
    explanation = explain(scorer, scored, np.arange(4))
    assert np.isfinite(explanation.attribution).all()
    assert np.isfinite(explanation.expected_numbers).all()


def test_attribution_is_the_fall_of_the_score_without_the_field(scorer: Scorer) -> None:
    record = odd_record()
    scored = scorer.score(scorer.decoder.objects([*normal_records(2), record]))
    explanation = explain(scorer, scored, np.array([2]))
    assert explanation.attribution.shape == (1, N_FIELDS)
    assert explanation.expected_numbers.shape == (1, len(PUMPS.numbers))
    assert explanation.expected_codes.shape == (1, len(PUMPS.codes))
    without = scorer.score(scorer.decoder.objects([record | {"pressure": None}]))
    fall = scored.statistics["score"][2] - without.statistics["score"][0]  # the oddest category stays as odd
    assert explanation.attribution[0, PUMPS.positions["pressure"]] == pytest.approx(fall, rel=1e-5)


def test_surprise_of_the_oddest_category_counts_in_full_in_the_attribution(scorer: Scorer) -> None:
    """The score's map of it holds a weight of an eighth: of its fall without the category, another 7 are added."""
    combination = scorer.bundle.calibration.combination
    plain = combination.model_copy(update={"oddest_category": IncreasingMap(x=(0.0,), y=(0.0,), slope=1e-12)})
    scored = scorer.score(scorer.decoder.objects([odd_record(valve="ajar"), odd_record(valve=None)]))
    whole, without = scored.statistics["score"]
    rest, rest_without = plain.score(scored.contributions, scored.kl, scored.outputs.evidence) + novelty(
        scored.contributions, scored.unseen
    )
    of_category = (whole - rest) - (without - rest_without)
    assert of_category > 0
    attribution = explain(scorer, scored, np.array([0])).attribution[0, PUMPS.positions["valve"]]
    assert attribution == pytest.approx(whole - without + 7 * of_category, rel=1e-5)


@pytest.mark.parametrize("name", ["pressure", "in/out [l/s]", "rpm"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_wrong_number_has_the_largest_attribution(scorer: Scorer, name: str, sign: int) -> None:
    """Eight widths off, where the others lie at their centres: hidden, nothing odd is left."""
    centres = {"pressure": (5.0, 0.5), "in/out [l/s]": (20.0, 2.0), "rpm": (1500.0, 100.0)}
    record = {field: at + 8 * sign * width * (field == name) for field, (at, width) in centres.items()}
    scored = scorer.score(scorer.decoder.objects([record | {"valve": "open", "heated": False}]))
    attribution = explain(scorer, scored, np.array([0])).attribution[0]
    assert attribution.argmax() == PUMPS.positions[name]


def test_unseen_category_has_the_largest_attribution_beside_usual_numbers(scorer: Scorer) -> None:
    record = {"pressure": 5.0, "in/out [l/s]": 20.0, "rpm": 1500.0, "valve": "ajar", "heated": False}
    scored = scorer.score(scorer.decoder.objects([record]))
    attribution = explain(scorer, scored, np.array([0])).attribution[0]
    assert attribution.argmax() == PUMPS.positions["valve"]


def test_explanation_of_a_record_is_the_same_beside_any_others(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects(normal_records(20, seed=5)))
    together = explain(scorer, scored, np.array([3, 11, 7]))
    alone = explain(scorer, scored, np.array([11]))
    assert together.rows.tolist() == [3, 11, 7]
    np.testing.assert_allclose(together.attribution[1], alone.attribution[0], rtol=1e-5, atol=1e-5)


def test_expected_value_comes_from_the_other_fields(scorer: Scorer) -> None:
    """Flow and rpm lie one width above their centres, so without pressure the latent is 2/3: (0 + 1 + 1) / 3."""
    record = {"pressure": 99.0, "in/out [l/s]": 22.0, "rpm": 1600.0, "valve": "open", "heated": False}
    scored = scorer.score(scorer.decoder.objects([record]))
    explanation = explain(scorer, scored, np.array([0]))
    of_pressure = explanation.expected_numbers[0, 0]
    assert of_pressure == pytest.approx(5.0 + 0.5 * 2 / 3, rel=1e-6)


def test_hiding_a_missing_field_changes_nothing(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([odd_record(rpm=None)]))
    attribution = explain(scorer, scored, np.array([0])).attribution
    assert attribution[0, PUMPS.positions["rpm"]] == pytest.approx(0.0, abs=1e-9)


# --- the few fields that make a record odd -----------------------------------------------------------


def test_two_wrong_numbers_are_the_causes_of_an_alarm(scorer: Scorer) -> None:
    scored = scored_by(scorer, CALM | {"pressure": 12.0, "rpm": -500.0})
    found = causes_of(scorer, scored)
    assert scored.flagged.all()
    assert set(names(found)) == {"pressure", "rpm"}
    assert found.are_enough.tolist() == [True]


def test_one_wrong_number_is_the_only_cause(scorer: Scorer) -> None:
    assert names(causes_of(scorer, scored_by(scorer, CALM | {"rpm": 9000.0}))) == ["rpm"]


def test_first_cause_is_the_field_of_the_largest_attribution(scorer: Scorer) -> None:
    scored = scored_by(scorer, *(odd_record(rpm=rpm) for rpm in (-3000.0, 1500.0, 9000.0)))
    explanation = explain(scorer, scored, np.arange(3))
    first = [fields[0] for fields in causes(scorer, scored, explanation).fields]
    assert first == explanation.attribution.argmax(axis=1).tolist()


def test_record_without_its_causes_is_not_flagged(scorer: Scorer) -> None:
    rng = np.random.default_rng(4)
    records = [odd_record(pressure=float(p), rpm=float(r)) for p, r in rng.normal((5, 1500), (3, 900), (40, 2))]
    scored = scored_by(scorer, *records)
    found = causes_of(scorer, scored)
    hidden = [record | dict.fromkeys(names(found, i)) for i, record in enumerate(records)]
    assert found.are_enough.any()
    assert (~scored_by(scorer, *hidden).flagged).tolist() == found.are_enough.tolist()


def test_causes_are_five_at_most_and_each_once(scorer: Scorer) -> None:
    scored = scored_by(scorer, *normal_records(30, seed=9), odd_record(), rate=0.999)
    for fields in causes_of(scorer, scored).fields:
        assert len(fields) == len(set(fields)) <= 5


@pytest.mark.parametrize("most_paired", [16, 4])
def test_two_fields_that_make_each_other_likely_are_causes_together(
    most_paired: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So fast and with so little torque no machine of the demo runs; but the one goes with the other.

    Of six fields four are looked at in pairs where there is no more room, these two since they are furthest out.
    """
    monkeypatch.setattr("nelbo.explanation._MOST_PAIRED", most_paired)
    machines = Scorer(read_bundle(Store(Path(__file__).parents[2] / "models").find("machines")))
    usual = {"Type": "L", "Air temperature [K]": 298.9, "Process temperature [K]": 309.1, "Tool wear [min]": 143}
    scored = scored_by(machines, usual | {"Rotational speed [rpm]": 2861, "Torque [Nm]": 4.6})
    explanation = explain(machines, scored, np.array([0]))
    together = [machines.schema.positions[name] for name in ("Rotational speed [rpm]", "Torque [Nm]")]
    assert scored.flagged[0]
    assert not set(together) & set(np.argsort(-explanation.attribution[0])[:2].tolist())
    found = causes(machines, scored, explanation)
    assert (sorted(found.fields[0]), found.are_enough[0]) == (sorted(together), True)


def test_missing_value_is_no_cause(scorer: Scorer) -> None:
    scored = scored_by(scorer, odd_record(rpm=None, valve=None))
    assert {"rpm", "valve"}.isdisjoint(names(causes_of(scorer, scored)))


def test_record_that_is_nothing_but_missing_has_no_cause(scorer: Scorer) -> None:
    found = causes_of(scorer, scored_by(scorer, dict.fromkeys(CALM), rate=0.999))
    assert (found.fields, found.are_enough.tolist()) == ([[]], [False])


def test_record_flagged_at_a_high_rate_is_explained_until_it_is_not_flagged(scorer: Scorer) -> None:
    """At a rate of a half a p-value above a tenth is no end: the record is still flagged with it."""
    records = [odd_record(pressure=5.9, rpm=1650.0) | {"in/out [l/s]": 20.0}, odd_record(heated=False)]
    scored = scored_by(scorer, *records, rate=0.5)
    found = causes_of(scorer, scored)
    hidden = [record | dict.fromkeys(names(found, i)) for i, record in enumerate(records)]
    assert (~scored_by(scorer, *hidden, rate=0.5).flagged).tolist() == found.are_enough.tolist()


def test_causes_of_a_record_are_the_same_beside_any_others(scorer: Scorer) -> None:
    records = [*normal_records(5), odd_record(), CALM | {"rpm": 9000.0}, odd_record(valve="ajar")]
    together, alone = (causes_of(scorer, scored_by(scorer, *some)) for some in (records, records[-1:]))
    assert together.fields[-1] == alone.fields[0]
    np.testing.assert_allclose(together.expected_numbers[-1], alone.expected_numbers[0], rtol=1e-5)


def test_what_is_expected_of_causes_comes_from_the_other_fields_alone(scorer: Scorer) -> None:
    """Without pressure and rpm, flow one width above its centre makes the latent 1/3."""
    scored = scored_by(scorer, CALM | {"pressure": 40.0, "in/out [l/s]": 22.0, "rpm": -9000.0})
    found = causes_of(scorer, scored)
    assert set(names(found)) == {"pressure", "rpm"}
    expected = dict(zip(("pressure", "in/out [l/s]", "rpm"), found.expected_numbers[0], strict=True))
    assert (expected["pressure"], expected["rpm"]) == pytest.approx((5 + 0.5 / 3, 1500 + 100 / 3), rel=1e-6)


# --- what they should have been ----------------------------------------------------------------------


def repaired(scorer: Scorer, scored: Scored) -> Repairs:
    return repair(scorer, scored, causes_of(scorer, scored))


def test_repair_puts_what_is_expected_in_the_fields_own_step(scorer: Scorer) -> None:
    found = repaired(scorer, scored_by(scorer, CALM | {"pressure": 40.0, "in/out [l/s]": 22.0, "rpm": -9000.0}))
    assert found.changes == [{"pressure": 5.17, "rpm": 1533.0}]


def test_repair_leaves_a_cause_alone_that_is_what_is_expected(scorer: Scorer) -> None:
    scored = scored_by(scorer, CALM | {"pressure": 40.0})
    both = [[PUMPS.positions["pressure"], PUMPS.positions["valve"]]]
    expected = (np.array([[5.0, 20.0, 1500.0]]), np.zeros((1, 2), dtype=np.int64))  # the valve open, as it is
    found = repair(scorer, scored, Causes(np.array([0]), both, np.array([True]), *expected))
    assert found.changes == [{"pressure": 5.0}]


def test_repaired_record_is_scored_as_if_it_had_been_sent(scorer: Scorer) -> None:
    records = [odd_record(), CALM | {"rpm": 9000.0}, odd_record(valve="ajar", rpm=None)]
    found = repaired(scorer, scored_by(scorer, *records))
    sent = scored_by(scorer, *(record | changes for record, changes in zip(records, found.changes, strict=True)))
    np.testing.assert_allclose(found.scored.statistics["score"], sent.statistics["score"], rtol=1e-6)
    assert found.scored.flagged.tolist() == sent.flagged.tolist()


def test_repair_leaves_the_scored_records_as_they_were(scorer: Scorer) -> None:
    scored = scored_by(scorer, CALM | {"rpm": 9000.0, "valve": "ajar"})
    numbers, codes = scored.batch.numbers.copy(), scored.batch.codes.copy()
    repaired(scorer, scored)
    np.testing.assert_array_equal(scored.batch.numbers, numbers)
    np.testing.assert_array_equal(scored.batch.codes, codes)
