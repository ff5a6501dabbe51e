from pathlib import Path
from typing import Any

import msgspec
import pytest
from scipy.stats import beta

from nelbo.store import Store
from service.answer import Reason, Tally, answer
from service.live import Live, ModelState
from service.problems import Answer
from service.request import ScoreRequest
from tests.bundles import normal_records, odd_record

FIVE_FIELDS = "has 5 fields, of which 'rpm' may be left out"


@pytest.fixture(scope="module")
def live(models: Path) -> Live:
    live = Live(Store(models))
    live.load_all()
    return live


def post(live: Live, body: object, query: str = "", **options: Any) -> tuple[Answer, Tally]:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return answer(live, ScoreRequest("pumps", encoded, query=query, **options), max_records=100)


def answered(live: Live, body: object, query: str = "", **options: Any) -> Any:
    return msgspec.json.decode(post(live, body, query, **options)[0].body)


def test_the_names_of_an_answer_stand_in_their_order(live: Live) -> None:
    found = answered(live, {"records": [odd_record()]})
    result = found["results"][0]
    assert list(found) == ["model", "decision", "results"]
    assert list(found["model"]) == ["name", "version", "digest"]
    assert " ".join(found["decision"]) == (
        "rate effective_rate rate_low rate_high mode n_calibration threshold state confidence fdr segments"
    )
    assert " ".join(result) == (
        "index id flagged p_value score reconstruction_error elbo kl contributions reason repair missing unseen segment"
    )
    assert list(result["score"]) == ["value", "p_value", "threshold"]
    assert list(result["elbo"]) == list(result["reconstruction_error"]) == ["value", "p_value", "threshold", "beyond"]
    assert " ".join(result["contributions"][0]) == "field contribution attribution value expected low high"


def test_a_rate_of_5_percent_over_199_calibration_records_is_kept_exactly(live: Live) -> None:
    decision = answered(live, {"records": []}, "rate=0.05")["decision"]
    assert (decision["rate"], decision["effective_rate"], decision["n_calibration"]) == (0.05, 10 / 200, 199)


def test_a_record_odder_than_every_calibration_record_gets_the_smallest_p_value(live: Live) -> None:
    result = answered(live, {"records": [odd_record()]})["results"][0]
    assert (result["flagged"], result["p_value"], result["id"]) == (True, 1 / 200, "P-odd")


def test_columns_and_records_get_the_same_answer(live: Live) -> None:
    records = normal_records(20, seed=9)
    columns = {name: [record[name] for record in records] for name in records[0]}
    by_record, by_column = post(live, {"records": records})[0], post(live, {"columns": columns})[0]
    assert by_record.body == by_column.body


def test_no_records_get_an_empty_answer(live: Live) -> None:
    found, tally = post(live, {"records": []})
    assert (found.status, msgspec.json.decode(found.body)["results"], tally.n_records) == (200, [], (0,))


def test_a_rate_of_zero_flags_nothing_and_has_no_threshold(live: Live) -> None:
    found = answered(live, {"records": [odd_record()]}, "rate=0")
    assert (found["decision"]["threshold"], found["results"][0]["flagged"]) == (None, False)


@pytest.mark.parametrize(("explain", "explained"), [("flagged", [False, True]), ("all", [True, True])])
def test_explain_says_which_records_get_contributions(explain: str, explained: list[bool], live: Live) -> None:
    found = answered(live, {"records": [normal_records(1)[0], odd_record()]}, f"explain={explain}")
    assert [result["contributions"] is not None for result in found["results"]] == explained


def test_flagged_record_is_answered_with_a_reason_and_a_repair(live: Live) -> None:
    calm = {"pressure": 5.0, "in/out [l/s]": 20.0, "rpm": 1500.0, "valve": "open", "heated": False}
    odd, normal = answered(live, {"records": [calm | {"rpm": -9000}, calm]})["results"]
    assert odd["reason"] == "rpm -9000, expected 1500"
    assert list(odd["repair"]) == ["changes", "p_value", "flagged"]
    assert (odd["repair"]["changes"], odd["repair"]["flagged"]) == ({"rpm": 1500.0}, False)
    assert (normal["reason"], normal["repair"]) == (None, None)


def test_explain_none_leaves_contributions_out(live: Live) -> None:
    assert answered(live, {"records": [odd_record()]}, "explain=none")["results"][0]["contributions"] is None


def test_a_wrong_record_gets_its_own_error_and_the_others_their_scores(live: Live) -> None:
    found = answered(live, {"records": [normal_records(1)[0], odd_record(pressure="high"), odd_record()]})
    assert found["results"][1] == {
        "index": 1,
        "id": None,
        "error": {
            "field": "pressure",
            "expected": "a number",
            "found": "'high'",
            "detail": "record 1, field 'pressure': expected a number, got 'high'",
        },
    }
    assert [result["index"] for result in found["results"]] == [0, 1, 2]
    assert found["results"][2]["flagged"] is True


def test_strict_refuses_a_wrong_record_with_a_pointer_to_it(live: Live) -> None:
    records = [normal_records(1)[0], odd_record(**{"in/out [l/s]": True})]
    found = answered(live, {"records": records}, "strict=true")
    assert found == {
        "type": "urn:nelbo:problem:wrong-records",
        "title": "Some records are wrong",
        "status": 422,
        "detail": "1 of 2 records cannot be scored, and strict=true",
        "errors": [
            {
                "detail": "record 1, field 'in/out [l/s]': expected a number, got true",
                "pointer": "/records/1/in~1out [l~1s]",
                "expected": "a number",
                "found": "true",
            }
        ],
    }


def test_strict_points_into_columns_where_columns_were_sent(live: Live) -> None:
    columns = {name: [value, value] for name, value in odd_record().items()} | {"heated": [True, 1]}
    errors = answered(live, {"columns": columns}, "strict=true")["errors"]
    assert [error["pointer"] for error in errors] == ["/columns/heated/1"]


def test_strict_points_at_a_record_that_is_none(live: Live) -> None:
    errors = answered(live, {"records": [odd_record(), 7]}, "strict=true")["errors"]
    assert [error["pointer"] for error in errors] == ["/records/1"]


def test_unseen_category_is_scored_named_and_counted(live: Live) -> None:
    found, tally = post(live, {"records": [odd_record(valve="ajar")]})
    assert msgspec.json.decode(found.body)["results"][0]["unseen"] == ["valve"]
    assert tally.n_unseen == {"valve": 1}


def test_missing_values_are_scored_named_and_counted(live: Live) -> None:
    found, tally = post(live, {"records": [odd_record(rpm=None), odd_record(rpm=None, pressure=None)]})
    results = msgspec.json.decode(found.body)["results"]
    assert [result["missing"] for result in results] == [["rpm"], ["pressure", "rpm"]]
    assert tally.n_missing == {"pressure": 1, "rpm": 2}


def test_a_tally_counts_what_the_answer_says(live: Live) -> None:
    _, tally = post(live, {"records": [*normal_records(3), odd_record(), odd_record(rpm="fast")]}, "rate=0.005")
    assert (tally.model, tally.n_records, tally.n_flagged, tally.errors) == ("pumps", (5,), 1, ("wrong-value",))
    assert tally.p_values.size == 4
    assert set(tally.stages) == {"decide", "decode", "infer", "explain", "encode"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"pressure":1}', "missing"),
        (b'{"pressure":1,"presure":1}', "unknown"),
        (msgspec.json.encode(odd_record())[:-1] + b',"rpm":1}', "repeated"),
        (b"7", "not-a-record"),
        (msgspec.json.encode(odd_record(rpm="none")), "wrong-value"),
    ],
)
def test_each_kind_of_wrong_record_has_its_reason(record: bytes, reason: Reason, live: Live) -> None:
    _, tally = post(live, b'{"records":[' + record + b"]}")
    assert tally.errors == (reason,)


def test_a_missing_field_is_told_with_what_the_schema_expects(live: Live) -> None:
    record = {name: value for name, value in odd_record().items() if name != "pressure"}
    detail = answered(live, {"records": [record]})["results"][0]["error"]["detail"]
    assert detail.startswith("record 0, field 'pressure': expected a value for 'pressure' (pumps@2026")
    assert detail.endswith(f"{FIVE_FIELDS}), got none")


def test_more_records_than_the_limit_are_refused(live: Live) -> None:
    found, tally = post(live, {"records": normal_records(101)})
    assert msgspec.json.decode(found.body)["detail"] == "expected at most 100 records, got 101"
    assert (found.status, tally.rejected, tally.n_records) == (413, "too-many-records", ())


def test_a_model_that_is_not_loaded_yet_answers_503_with_retry_after(models: Path) -> None:
    waiting = Live(Store(models))
    waiting._states = {"pumps": ModelState()}
    found, tally = post(waiting, {"records": []})
    assert (found.status, found.headers["retry-after"], tally.rejected) == (503, "5", "model-not-ready")


def test_a_rate_that_the_calibration_does_not_carry_is_refused_with_the_way_out(live: Live) -> None:
    found = answered(live, {"records": []}, "rate=0.001")
    assert found["detail"] == (
        "false-alarm rate 0.001 needs at least 999 calibration records, this bundle has 199; its smallest rate is 0.005"
    )
    assert found["errors"][0]["parameter"] == "rate"


def test_a_budget_of_false_alarms_is_the_rate_that_it_comes_to(live: Live) -> None:
    decision = answered(live, {"records": []}, "max_false_alarms=36&per=hour&records_per_s=1")["decision"]
    assert (decision["rate"], decision["effective_rate"], decision["confidence"]) == (0.01, 2 / 200, None)


def test_a_confidence_lowers_the_effective_rate_and_is_named(live: Live) -> None:
    decision = answered(live, {"records": []}, "rate=0.05&confidence=0.9")["decision"]
    # The largest k of 199 with P(Beta(k, 200 − k) ≤ 0.05) ≥ 0.9.
    k = max(k for k in range(1, 200) if beta.cdf(0.05, k, 200 - k) >= 0.9)
    assert (decision["effective_rate"], decision["confidence"]) == (k / 200, 0.9)


def test_a_false_discovery_rate_flags_by_what_else_is_in_the_request(live: Live) -> None:
    normal = normal_records(40, seed=12)
    alone = answered(live, {"records": [odd_record(), *normal]}, "fdr=0.1")
    among = answered(live, {"records": [odd_record()] * 10 + normal}, "fdr=0.1")
    # One p-value of 1/200 among 41 is above 0.1/41; ten of them among 50 are below 10 · 0.1/50.
    assert [result["flagged"] for result in alone["results"]].count(True) == 0
    assert (alone["decision"]["threshold"], alone["decision"]["fdr"]) == (None, 0.1)
    flagged = [result["flagged"] for result in among["results"]]
    assert flagged[:10] == [True] * 10
    assert (
        among["decision"]["rate"]
        == among["decision"]["effective_rate"]
        == max(result["p_value"] for result in among["results"] if result["flagged"])
    )


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (
            "rat=1",
            "query parameter 'rat': expected one of rate, confidence, max_false_alarms, records_per_s, "
            "fdr, per, window, explain, strict, got the name 'rat'",
        ),
        ("rate=.1&rate=.1", "query parameter 'rate': expected it once, got it several times"),
        ("rate=1", "query parameter 'rate': expected a number, 0 ≤ rate < 1, got 1"),
        ("rate=nan", "query parameter 'rate': expected a number, got 'nan'"),
        ("confidence=.4", "query parameter 'confidence': expected a number, 0.5 ≤ confidence < 1, got 0.4"),
        ("fdr=0", "query parameter 'fdr': expected a number, 0 < fdr < 1, got 0"),
        (
            "fdr=.1&rate=.1",
            "query parameter 'fdr': expected it without rate, confidence and max_false_alarms, "
            "got more than one of them",
        ),
        (
            "max_false_alarms=5&per=day",
            "query parameter 'records_per_s': expected it beside max_false_alarms and per, got none",
        ),
        (
            "max_false_alarms=5&per=year&records_per_s=1",
            "query parameter 'per': expected one of hour, day, week, got year",
        ),
        ("explain=some", "query parameter 'explain': expected one of flagged, all, none, got 'some'"),
        ("strict=1", "query parameter 'strict': expected true or false, got '1'"),
    ],
)
def test_a_wrong_query_names_its_parameter(query: str, detail: str, live: Live) -> None:
    found = answered(live, {"records": []}, query)
    assert (found["status"], found["errors"][0]["detail"]) == (422, detail)


@pytest.mark.parametrize("value", [b"0", b"{}", b"[]", b'","', b"[0,0]"])
@pytest.mark.parametrize("form", [b'{"records":[%s]}', b'{"columns":{"pressure":[%s]}}', b'{"other":[%s]}', b"[%s]"])
def test_a_flood_of_values_is_refused_before_anything_is_built_from_it(form: bytes, value: bytes, live: Live) -> None:
    found, tally = post(live, form % b",".join([value] * 2000))
    assert (found.status, tally.rejected) == (413, "too-many-records")


def test_commas_within_strings_are_no_values(live: Live) -> None:
    found, _ = post(live, {"records": [odd_record(serial='a,\\",b' * 1000)]})
    assert found.status == 200
