from typing import Any

import msgspec
import pytest

from nelbo.bundle import read_bundle
from nelbo.errors import RecordError
from nelbo.intervals import Interval
from nelbo.results import decision_answer, fault_of, model_of, results, shown_value
from nelbo.scoring import Scorer
from tests.bundles import VERSION, normal_records, odd_record, tiny_scorer, write_tiny_bundle


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


def answered(scorer: Scorer, records: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    scored = scorer.score(scorer.decoder.objects(records), scorer.decider.decide(settings.pop("rate", None)))
    decoded: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(results(scorer, scored, **settings)))
    return decoded


def test_names_stand_in_the_order_of_the_contract(scorer: Scorer) -> None:
    (result,) = answered(scorer, [odd_record()])
    assert list(result) == [
        *("index", "id", "flagged", "p_value", "score", "reconstruction_error", "elbo", "kl"),
        *("contributions", "reason", "repair", "missing", "unseen", "segment"),
    ]
    assert list(result["score"]) == ["value", "p_value", "threshold"]
    assert list(result["elbo"]) == list(result["reconstruction_error"]) == ["value", "p_value", "threshold", "beyond"]
    assert list(result["contributions"][0]) == [
        *("field", "contribution", "attribution", "value", "expected", "low", "high")
    ]


def test_faulty_record_has_index_id_and_error(scorer: Scorer) -> None:
    (result,) = answered(scorer, [odd_record(pressure="high")])
    assert result == {
        "index": 0,
        "id": None,
        "error": {
            "field": "pressure",
            "expected": "a number",
            "found": "'high'",
            "detail": "record 0, field 'pressure': expected a number, got 'high'",
        },
    }


def test_faulty_records_stand_in_their_place(scorer: Scorer) -> None:
    records = [odd_record(rpm=True), *normal_records(2), odd_record(rpm="x"), *normal_records(1)]
    found = answered(scorer, records)
    assert [result["index"] for result in found] == [0, 1, 2, 3, 4]
    assert ["error" in result for result in found] == [True, False, False, True, False]
    assert [result["id"] for result in found] == [None, "P-0", "P-1", None, "P-0"]


def test_model_and_decision_are_named_in_order(scorer: Scorer) -> None:
    model = msgspec.to_builtins(model_of(scorer))
    assert model == {"name": "pumps", "version": VERSION, "digest": scorer.bundle.digest}
    decision = msgspec.to_builtins(decision_answer(scorer, scorer.decider.decide(0.05)))
    assert list(decision) == [
        *("rate", "effective_rate", "rate_low", "rate_high", "mode", "n_calibration", "threshold", "state"),
        *("confidence", "fdr", "segments"),
    ]
    assert (decision["rate"], decision["effective_rate"], decision["n_calibration"]) == (0.05, 0.05, 199)


def test_elbo_is_beyond_below_its_threshold_and_the_error_above(scorer: Scorer) -> None:
    for result in answered(scorer, [*normal_records(300, seed=8), odd_record()]):
        elbo, error = result["elbo"], result["reconstruction_error"]
        assert elbo["beyond"] == (elbo["value"] < elbo["threshold"])
        assert error["beyond"] == (error["value"] > error["threshold"])
        assert result["flagged"] == (result["score"]["value"] > result["score"]["threshold"])
        assert result["p_value"] == result["score"]["p_value"]
        assert elbo["value"] == pytest.approx(-(error["value"] + result["kl"]), rel=1e-12)


def test_threshold_is_null_where_nothing_is_ever_flagged(scorer: Scorer) -> None:
    (result,) = answered(scorer, [odd_record()], rate=0.0)
    assert [result[name]["threshold"] for name in ("score", "elbo", "reconstruction_error")] == [None] * 3
    assert [result["flagged"], result["elbo"]["beyond"], result["reconstruction_error"]["beyond"]] == [False] * 3
    assert decision_answer(scorer, scorer.decider.decide(0.0)).threshold is None


@pytest.mark.parametrize(
    ("explain", "explained"), [("flagged", [False, True]), ("all", [True, True]), ("none", [False, False])]
)
def test_contributions_are_given_for_those_that_want_them(scorer: Scorer, explain: str, explained: list[bool]) -> None:
    normal = {"pressure": 5.0, "in/out [l/s]": 20.0, "rpm": 1500.0, "valve": "open", "heated": False}
    found = answered(scorer, [normal, odd_record()], explain=explain)
    assert [result["contributions"] is not None for result in found] == explained


def test_contributions_add_up_and_the_largest_attribution_comes_first(scorer: Scorer) -> None:
    (result,) = answered(scorer, [odd_record(rpm=None)])
    contributions = result["contributions"]
    total = sum(part["contribution"] for part in contributions)
    assert total == pytest.approx(result["reconstruction_error"]["value"], rel=1e-12)
    attributions = [part["attribution"] for part in contributions]
    assert attributions == sorted(attributions, reverse=True)
    assert result["missing"] == ["rpm"]


def test_value_is_shown_as_it_was_sent_and_expected_in_the_fields_own_step(scorer: Scorer) -> None:
    record = odd_record(pressure=5, valve="ajar", heated=False) | {"in/out [l/s]": 30.3, "rpm": 1503.0}
    (result,) = answered(scorer, [record], explain="all")
    parts = {part["field"]: part for part in result["contributions"]}
    assert {name: part["value"] for name, part in parts.items()} == {
        "pressure": 5,
        "valve": "ajar",
        "in/out [l/s]": 30.3,
        "rpm": 1503,
        "heated": False,
    }
    # Without rpm the latent is (0 + 5.15 + 0) / 3 widths of 100, to the step of 1.
    assert parts["rpm"]["expected"] == 1672
    assert (parts["valve"]["expected"], parts["heated"]["expected"]) == ("open", False)
    assert result["unseen"] == ["valve"]


def test_left_out_null_and_nan_values_are_shown_as_null() -> None:
    values: list[Any] = [msgspec.UNSET, None, float("nan"), float("inf"), 2.0, 2.5, "x", True, 2.0**60]
    found = [shown_value(values, row) for row in range(len(values))]
    assert found == [None, None, None, None, 2, 2.5, "x", True, 2.0**60]
    assert isinstance(found[4], int)


def test_no_record_is_no_result(scorer: Scorer) -> None:
    assert answered(scorer, [], explain="all") == []


def test_fault_without_a_field_says_so() -> None:
    fault = fault_of(RecordError(3, None, "a JSON object", "1")).error
    assert (fault.field, fault.detail) == (None, "record 3: expected a JSON object, got 1")


# --- the reason and the repair -----------------------------------------------------------------------

CALM = {"serial": "P-1", "pressure": 5.0, "in/out [l/s]": 20.0, "rpm": 1500.0, "valve": "open", "heated": False}


@pytest.fixture(scope="session")
def sure(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """With an interval of rpm, from 45 below what is expected to 55 above."""
    rpm = Interval(n=(19,), least=0.0, greatest=3e3, centre=0.0, scale=1e9, middle=(0.0,), low=(-45e-9,), high=(55e-9,))
    return Scorer(read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models"), intervals={"rpm": rpm})))


def test_reason_names_value_expectation_and_interval(sure: Scorer) -> None:
    """Flow one width above its centre lets expect a third of a width: 1533 by the step, from 1488.3 to 1588.3."""
    (result,) = answered(sure, [CALM | {"in/out [l/s]": 22.0, "pressure": 40.0, "rpm": -9000}])
    parts = {part["field"]: part for part in result["contributions"]}
    assert set(result["reason"].split("; ")) == {"pressure 40, expected 5.17", "rpm -9000, expected 1533 (1489–1588)"}
    assert (parts["rpm"]["expected"], parts["rpm"]["low"], parts["rpm"]["high"]) == (1533, 1489, 1588)
    assert (parts["pressure"]["low"], parts["pressure"]["high"]) == (None, None)


def test_repair_holds_what_would_be_normal_instead(sure: Scorer) -> None:
    record = CALM | {"in/out [l/s]": 22.0, "pressure": 40.0, "rpm": -9000}
    (result,) = answered(sure, [record])
    assert result["repair"]["changes"] == {"pressure": 5.17, "rpm": 1533}
    (again,) = answered(sure, [record | result["repair"]["changes"]])
    assert (result["repair"]["p_value"], result["repair"]["flagged"]) == (again["p_value"], again["flagged"])
    assert not again["flagged"]


def test_reason_of_an_alarm_that_its_repair_does_not_end_says_so(scorer: Scorer) -> None:
    """At a rate of a half many a record is flagged that is by nature not the most usual."""
    found = [result for result in answered(scorer, normal_records(300, 40), rate=0.5) if result["flagged"]]
    unmended = [result for result in found if result["repair"] is not None and result["repair"]["flagged"]]
    assert unmended
    assert all(result["reason"].endswith("these explain only a part of it") for result in unmended)


def test_fields_are_expected_by_those_that_are_not_repaired(scorer: Scorer) -> None:
    """Flow is expected by pressure and rpm as they are, and these by flow and each by nothing of the other."""
    (result,) = answered(scorer, [CALM | {"pressure": 40.0, "rpm": -9000}])
    expected = {part["field"]: part["expected"] for part in result["contributions"]}
    assert {name: expected[name] for name in ("pressure", "rpm")} == result["repair"]["changes"]
    assert expected["in/out [l/s]"] == pytest.approx(20 + 2 * (70 - 105) / 3, rel=1e-4)


def test_records_that_are_not_flagged_have_neither_reason_nor_repair(scorer: Scorer) -> None:
    (result,) = answered(scorer, [CALM], explain="all")
    assert (result["flagged"], result["reason"], result["repair"]) == (False, None, None)


def test_nobody_who_asks_for_no_explanation_pays_for_a_reason(scorer: Scorer) -> None:
    (result,) = answered(scorer, [odd_record()], explain="none")
    assert (result["contributions"], result["reason"], result["repair"]) == (None, None, None)


def test_unseen_and_missing_values_are_always_named(scorer: Scorer) -> None:
    records = [odd_record(valve="ajar", rpm=None, pressure=float(p)) for p in range(9)] + [CALM | {"valve": "ajar"}]
    flagged = [result for result in answered(scorer, records, rate=0.3) if result["flagged"]]
    assert len(flagged) == 10
    for result in flagged:
        assert "valve 'ajar', never seen in training" in result["reason"]
        assert ("rpm is missing" in result["reason"]) == ("rpm" in result["missing"])


def test_record_of_nothing_but_missing_values_has_no_repair(scorer: Scorer) -> None:
    (result,) = answered(scorer, [dict.fromkeys(CALM)], rate=0.999)
    assert result["repair"] is None
    assert result["reason"].startswith("no few fields explain it; also: pressure is missing; valve is missing; ")
