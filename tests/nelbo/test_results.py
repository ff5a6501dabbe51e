from typing import Any

import msgspec
import pytest

from nelbo.errors import RecordError
from nelbo.results import decision_answer, fault_of, model_of, results, shown_value
from nelbo.scoring import Scorer
from tests.bundles import VERSION, normal_records, odd_record, tiny_scorer


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
        *("contributions", "reason", "repair", "missing", "unseen"),
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
    decision = msgspec.to_builtins(decision_answer(scorer.decider.decide(0.05)))
    assert list(decision) == [
        *("rate", "effective_rate", "rate_low", "rate_high", "mode", "n_calibration", "threshold", "state"),
        *("confidence", "fdr"),
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
    assert decision_answer(scorer.decider.decide(0.0)).threshold is None


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
