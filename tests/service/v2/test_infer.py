import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nelbo.store import Store
from service.answer import Tally, answer
from service.live import Live, ModelState
from service.problems import Answer
from service.request import ScoreRequest
from service.v2.infer import infer
from service.v2.request import InferRequest
from tests.bundles import VERSION, normal_records, odd_record

DATATYPES = {"pressure": "FP64", "valve": "BYTES", "in/out [l/s]": "FP64", "rpm": "FP64", "heated": "BOOL"}
STATISTICS = ("score", "reconstruction_error", "elbo")


@pytest.fixture(scope="module")
def live(models: Path) -> Live:
    live = Live(Store(models))
    live.load_all()
    return live


def inputs_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(records)], "datatype": datatype, "data": [record[name] for record in records]}
        for name, datatype in DATATYPES.items()
    ]


def post(live: Live, records: list[dict[str, Any]], **options: Any) -> tuple[Answer, Tally]:
    return sent(live, json.dumps({"inputs": inputs_of(records), **options}).encode())


def sent(live: Live, body: bytes, **options: Any) -> tuple[Answer, Tally]:
    return infer(live, InferRequest(options.pop("name", "pumps"), body, **options), max_records=100)


def answered(live: Live, records: list[dict[str, Any]], **options: Any) -> Any:
    return json.loads(post(live, records, **options)[0].body)


def outputs(found: Any) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in found["outputs"]}


def test_an_answer_names_its_model_and_has_the_outputs_in_their_order(live: Live) -> None:
    found = answered(live, [odd_record()], id="a request")
    assert list(found) == ["model_name", "model_version", "id", "parameters", "outputs"]
    assert (found["model_name"], found["model_version"], found["id"]) == ("pumps", VERSION, "a request")
    assert [(output["name"], output["datatype"], output["shape"]) for output in found["outputs"]] == [
        ("score", "FP64", [1]),
        ("p_value", "FP64", [1]),
        ("flagged", "BOOL", [1]),
        ("reconstruction_error", "FP64", [1]),
        ("elbo", "FP64", [1]),
        ("kl", "FP64", [1]),
    ]


def test_the_same_records_get_the_same_numbers_and_counts_as_under_v1(live: Live) -> None:
    records = [*normal_records(20, seed=9), odd_record(), odd_record(valve="ajar", rpm=None)]
    body = json.dumps({"records": records}).encode()
    by_record, expected = answer(live, ScoreRequest("pumps", body, query="rate=0.02"), max_records=100)
    by_tensor, tally = post(live, records, parameters={"rate": 0.02})
    results, found = json.loads(by_record.body)["results"], outputs(json.loads(by_tensor.body))
    assert found["flagged"] == [result["flagged"] for result in results]
    assert found["p_value"] == [result["p_value"] for result in results]
    assert found["kl"] == [result["kl"] for result in results]
    for name in STATISTICS:
        assert found[name] == [result[name]["value"] for result in results]
    for name in ("model", "n_records", "n_flagged", "n_missing", "n_unseen", "errors", "rejected"):
        assert getattr(tally, name) == getattr(expected, name)
    assert tally.p_values.tolist() == expected.p_values.tolist()
    assert (tally.n_missing["rpm"], tally.n_unseen) == (sum(r["rpm"] is None for r in records), {"valve": 1})
    assert tally.scored is not None


def test_each_stage_is_measured_and_together_they_are_all_the_time(live: Live) -> None:
    ticks = iter([1.0, 3.0, 3.5, 7.5, 9.5])
    body = json.dumps({"inputs": inputs_of([odd_record()])}).encode()
    _, tally = infer(live, InferRequest("pumps", body), max_records=100, clock=lambda: next(ticks))
    seconds = {stage: spent for stage, (spent, _) in tally.stages.items()}
    assert seconds == {"decide": 0.5, "decode": 2.0, "infer": 4.0, "explain": 0.0, "encode": 2.0}


def test_the_parameters_are_the_decision_of_v1_without_what_is_null(live: Live) -> None:
    by_record, _ = answer(live, ScoreRequest("pumps", b'{"records":[]}', query="rate=0.02"), max_records=100)
    decision = json.loads(by_record.body)["decision"]
    expected = {name: value for name, value in decision.items() if value is not None}
    assert list(answered(live, [odd_record()], parameters={"rate": 0.02})["parameters"].items()) == list(
        expected.items()
    )


def test_a_rate_of_zero_flags_nothing_and_has_no_threshold(live: Live) -> None:
    found = answered(live, [odd_record()], parameters={"rate": 0})
    assert ("threshold" in found["parameters"], outputs(found)["flagged"]) == (False, [False])


def test_a_budget_of_false_alarms_with_a_confidence_is_heard(live: Live) -> None:
    wish = {"max_false_alarms": 180, "per": "hour", "records_per_s": 1, "confidence": 0.9}
    found = answered(live, [odd_record()], parameters=wish)["parameters"]
    assert (found["rate"], found["confidence"]) == (0.05, 0.9)


def test_a_false_discovery_rate_flags_by_what_else_is_in_the_request(live: Live) -> None:
    normal = normal_records(40, seed=12)
    alone = answered(live, [odd_record(), *normal], parameters={"fdr": 0.1})
    among = answered(live, [odd_record()] * 10 + normal, parameters={"fdr": 0.1})
    assert (outputs(alone)["flagged"].count(True), outputs(among)["flagged"][:10]) == (0, [True] * 10)
    assert alone["parameters"]["fdr"] == 0.1


def test_contributions_are_answered_to_who_names_them_and_add_up_to_the_elbo(live: Live) -> None:
    found = answered(live, normal_records(3), outputs=[{"name": "contributions"}, {"name": "elbo"}, {"name": "kl"}])
    assert [output["shape"] for output in found["outputs"]] == [[3, 5], [3], [3]]
    by_name = outputs(found)
    contributions = np.array(by_name["contributions"]).reshape(3, 5)
    assert contributions.sum(axis=1) + by_name["kl"] == pytest.approx(-np.array(by_name["elbo"]))


def test_binary_outputs_stand_behind_the_json(live: Live) -> None:
    records = normal_records(3)
    expected = outputs(answered(live, records))
    found, _ = post(live, records, parameters={"binary_data_output": True})
    n_json = int(found.headers["inference-header-content-length"])
    data, at = found.body[n_json:], 0
    assert found.headers["content-type"] == "application/octet-stream"
    for output in json.loads(found.body[:n_json])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        dtype = "?" if output["datatype"] == "BOOL" else "<f8"
        assert "data" not in output
        assert np.frombuffer(data[at : at + size], dtype=dtype).tolist() == expected[output["name"]]
        at += size
    assert at == len(data)


def test_an_output_says_itself_whether_it_is_binary(live: Live) -> None:
    wanted = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "flagged"}]
    found, _ = post(live, [odd_record()], parameters={"binary_data_output": True}, outputs=wanted)
    n_json = int(found.headers["inference-header-content-length"])
    score, flagged = json.loads(found.body[:n_json])["outputs"]
    assert ("data" in score, "data" in flagged, found.body[n_json:]) == (True, False, b"\x01")


def test_no_records_get_an_empty_answer(live: Live) -> None:
    found = outputs(answered(live, []))
    assert all(data == [] for data in found.values())


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        (
            {"outputs": [{"name": "anomaly"}]},
            "output 'anomaly': expected one of score, p_value, flagged, reconstruction_error, elbo, kl, contributions, "
            "got another name",
        ),
        ({"outputs": [{"name": "kl"}, {"name": "kl"}]}, "output 'kl': expected it once, got it several times"),
        ({"parameters": {"rate": 1}}, "parameter 'rate': expected a number, 0 ≤ rate < 1, got 1"),
        ({"parameters": {"rate": "0.1"}}, "the request: Expected `float`, got `str` - at `$.parameters.rate`"),
        ({"parameters": {"per": "day"}}, "parameter 'max_false_alarms': expected it beside per, got none"),
        (
            {"parameters": {"rate": 0.001}},
            "false-alarm rate 0.001 needs at least 999 calibration records, this bundle has 199; "
            "its smallest rate is 0.005",
        ),
    ],
)
def test_a_wrong_wish_is_refused_with_400(options: dict[str, Any], detail: str, live: Live) -> None:
    found, tally = post(live, [odd_record()], **options)
    assert (found.status, json.loads(found.body)) == (400, {"error": detail})
    assert (tally.rejected is not None, tally.n_records, tally.scored) == (True, (), None)


def test_a_model_name_in_the_body_is_that_of_the_path(live: Live) -> None:
    assert post(live, [odd_record()], model_name="pumps")[0].status == 200
    found, _ = post(live, [odd_record()], model_name="fans")
    detail = "model_name: expected that of the path, 'pumps', or none, got another"
    assert (found.status, json.loads(found.body)) == (400, {"error": detail})


def test_a_query_is_refused_for_it_would_look_as_if_it_were_heard(live: Live) -> None:
    found, _ = sent(live, b"{}", query="rate=0.1")
    assert (found.status, json.loads(found.body)["error"].split(",")[0]) == (400, "expected no query")


def test_a_compressed_body_is_refused(live: Live) -> None:
    found, tally = sent(live, b"{}", content_encoding="gzip")
    assert (found.status, found.headers["accept-encoding"], tally.rejected) == (
        415,
        "identity",
        "unsupported-media-type",
    )


def test_a_body_that_is_not_json_is_refused(live: Live) -> None:
    found, tally = sent(live, b"{")
    assert (found.status, tally.rejected) == (400, "not-json")


def test_too_many_records_are_refused_with_413(live: Live) -> None:
    found, tally = post(live, normal_records(101))
    assert (found.status, tally.rejected) == (413, "too-many-records")
    assert json.loads(found.body) == {"error": "expected at most 100 records, got 101"}


def test_only_the_version_that_serves_answers(live: Live) -> None:
    body = json.dumps({"inputs": inputs_of([odd_record()])}).encode()
    assert sent(live, body, version=VERSION)[0].status == 200
    found, tally = sent(live, body, version="1")
    assert (found.status, tally.rejected, tally.model) == (404, "unknown-model", None)
    assert json.loads(found.body) == {"error": f"model 'pumps' serves version '{VERSION}', not '1'"}


def test_an_unknown_model_is_refused_with_404(live: Live) -> None:
    assert sent(live, b"{}", name="fans")[0].status == 404


def test_a_model_that_is_not_loaded_yet_answers_503_with_retry_after(models: Path) -> None:
    waiting = Live(Store(models))
    waiting._states = {"pumps": ModelState()}
    found, tally = sent(waiting, b"{}")
    assert (found.status, found.headers["retry-after"], tally.rejected) == (503, "5", "model-not-ready")
    assert list(json.loads(found.body)) == ["error"]
