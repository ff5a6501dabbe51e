import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nelbo.scoring import Scorer
from tests.bundles import VERSION, normal_records, odd_record, write_tiny_bundle
from tests.service.conftest import Client, ClientFactory

SCORE = "/v1/models/pumps/score"
JSON = {"content-type": "application/json"}
GOOD = msgspec.json.encode(odd_record())
ONE = b'{"records":[' + GOOD + b"]}"
COLUMNS = {name: [value] for name, value in odd_record().items()}

# Method, path, headers, body, expected status.
Malformed = tuple[str, str, dict[str, str], bytes, int]


def body(text: bytes, status: int) -> Malformed:
    return "POST", SCORE, JSON, text, status


def columns(status: int, **changed: object) -> Malformed:
    return body(msgspec.json.encode({"columns": COLUMNS | changed}), status)


def query(text: str) -> Malformed:
    return "POST", f"{SCORE}?{text}", JSON, ONE, 422


def headers(status: int = 415, **values: str) -> Malformed:
    return "POST", SCORE, {name.replace("_", "-"): value for name, value in values.items()}, ONE, status


MALFORMED: dict[str, Malformed] = {
    # not JSON
    "empty body": body(b"", 400),
    "blank body": body(b" \n ", 400),
    "half a body": body(ONE[:-3], 400),
    "text after the body": body(ONE + b"x", 400),
    "two bodies": body(ONE + ONE, 400),
    "single quotes": body(b"{'records':[]}", 400),
    "a trailing comma": body(b'{"records":[],}', 400),
    "a comment": body(b'{"records":[]} // none', 400),
    "a bare name": body(b"{records:[]}", 400),
    "NaN": body(b'{"records":[{"pressure":NaN}]}', 400),
    "Infinity": body(b'{"records":[{"pressure":-Infinity}]}', 400),
    "a number with a leading zero": body(b'{"records":[{"pressure":01}]}', 400),
    "a number with a leading plus": body(b'{"records":[{"pressure":+1}]}', 400),
    "a hexadecimal number": body(b'{"records":[{"pressure":0x10}]}', 400),
    "a control character in a string": body(b'{"records":[{"valve":"\x01"}]}', 400),
    "an unknown escape": body(b'{"records":[{"valve":"\\x"}]}', 400),
    "a byte-order mark": body(b"\xef\xbb\xbf" + ONE, 400),
    "UTF-16": body(ONE.decode().encode("utf-16"), 400),
    "Latin-1": body(b'{"r\xe9cords":[]}', 400),
    "too deep": body(b'{"records":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "too deep and never closed": body(b"[" * 100_000, 400),
    "form fields": body(b"pressure=1&valve=open", 400),
    "gzip that is not declared": body(gzip.compress(ONE), 400),
    # the wrong shape
    "null": body(b"null", 422),
    "a number": body(b"1e400", 422),
    "a list of records": body(b"[" + GOOD + b"]", 422),
    "one record": body(GOOD, 422),
    "an empty object": body(b"{}", 422),
    "records that are null": body(b'{"records":null}', 422),
    "records that are an object": body(b'{"records":{}}', 422),
    "records and columns": body(b'{"records":[],"columns":{}}', 422),
    "records twice": body(b'{"records":[' + GOOD + b'],"records":[]}', 422),
    "another name beside records": body(b'{"records":[],"rate":0.1}', 422),
    "columns that are a list": body(b'{"columns":[]}', 422),
    "no columns": body(b'{"columns":{}}', 422),
    "a column that is no list": columns(422, pressure=1),
    "columns of unequal length": columns(422, pressure=[1, 2]),
    "an unknown column": columns(422, presure=[1]),
    "a column left out": body(b'{"columns":{"pressure":[1]}}', 422),
    "a column twice": body(b'{"columns":{"pressure":[1],"pressure":[1]}}', 422),
    # the wrong query
    "an unknown parameter": query("rat=0.1"),
    "a wish that contradicts another": query("fdr=0.1&rate=0.1"),
    "a part of a wish": query("per=day"),
    "a parameter twice": query("rate=0.1&rate=0.1"),
    "a rate that is no number": query("rate=low"),
    "a rate without a value": query("rate"),
    "an empty rate": query("rate="),
    "a negative rate": query("rate=-0.1"),
    "a rate of one": query("rate=1"),
    "a rate of NaN": query("rate=nan"),
    "a rate beyond any float": query("rate=1e999"),
    "a rate with an underscore": query("rate=0.0_1"),
    "a rate in other digits": query("rate=0.%D9%A1"),
    "a rate too small for the calibration": query("rate=0.0001"),
    "an unknown explain": query("explain=some"),
    "strict in capitals": query("strict=True"),
    "a query that is no UTF-8": query("rate=%ff"),
    # the wrong headers
    "no content type": headers(),
    "text": headers(content_type="text/plain"),
    "form": headers(content_type="application/x-www-form-urlencoded"),
    "another JSON": headers(content_type="application/vnd.api+json"),
    "another charset": headers(content_type="application/json; charset=latin-1"),
    "an empty content type": headers(content_type=""),
    "declared gzip": headers(content_type="application/json", content_encoding="gzip"),
    "an unknown encoding": headers(content_type="application/json", content_encoding="zip"),
    # the wrong place or method
    "an unknown model": ("POST", "/v1/models/fans/score", JSON, ONE, 404),
    "a path for a name": ("POST", "/v1/models/..%2Fpumps/score", JSON, ONE, 404),
    "a name with a null byte": ("POST", "/v1/models/pumps%00/score", JSON, ONE, 404),
    "a name in capitals": ("POST", "/v1/models/PUMPS/score", JSON, ONE, 404),
    "an unknown path": ("GET", "/v1/model", {}, b"", 404),
    "a slash too many": ("GET", "/v1/models/", {}, b"", 404),
    "an unknown model to describe": ("GET", "/v1/models/fans", {}, b"", 404),
    "an unknown model's versions": ("GET", "/v1/models/fans/versions", {}, b"", 404),
    "GET to score": ("GET", SCORE, {}, b"", 405),
    "PUT to score": ("PUT", SCORE, JSON, ONE, 405),
    "a made-up method": ("FROB", SCORE, JSON, ONE, 405),
    "DELETE of a model": ("DELETE", "/v1/models/pumps", {}, b"", 405),
    "POST to metrics": ("POST", "/metrics", JSON, b"", 405),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_is_refused_with_a_problem(case: str, client: Client) -> None:
    method, path, sent, content, status = MALFORMED[case]
    found = client.request(method, path, headers=sent, content=content)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json")
    assert {"type", "title", "status", "detail"} <= set(found.json())
    assert found.json()["status"] == status
    assert client.score([odd_record()]).status_code == 200


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (b'{"pressure":1e400}', "record 0, field 'pressure': expected a number, got 1e400"),
        (GOOD.replace(b"9.5", b'"9.5"'), "record 0, field 'pressure': expected a number, got '9.5'"),
        (GOOD.replace(b"9.5", b"[9.5]"), "record 0, field 'pressure': expected a number, got [9.5]"),
        (GOOD.replace(b"3000.0", b"false"), "record 0, field 'rpm': expected a number, got false"),
        (GOOD.replace(b"true", b"1"), "record 0, field 'heated': expected true or false, got 1"),
        (GOOD.replace(b'"shut"', b"3"), "record 0, field 'valve': expected a string, got 3"),
        (b"null", "record 0: expected a JSON object, got null"),
        (b"[1,2]", "record 0: expected a JSON object, got [1, 2]"),
        (GOOD[:-1] + b',"rpm":1}', "record 0, field 'rpm': expected the name once, got it several times"),
    ],
)
def test_a_malformed_record_is_told_what_was_expected_and_found(record: bytes, detail: str, client: Client) -> None:
    found = client.post(SCORE, content=b'{"records":[' + record + b"]}", headers=JSON)
    assert (found.status_code, found.json()["results"][0]["error"]["detail"]) == (200, detail)


def test_an_unknown_model_is_answered_with_a_problem_that_says_where_to_look(client: Client) -> None:
    found = client.post("/v1/models/fans/score", json={"records": []})
    assert found.json() == {
        "type": "urn:nelbo:problem:unknown-model",
        "title": "There is no such model",
        "status": 404,
        "detail": "no model 'fans' is served; GET /v1/models lists those that are",
    }


def test_a_wrong_method_is_answered_with_the_right_ones(client: Client) -> None:
    found = client.get(SCORE)
    assert (found.headers["allow"], found.json()["detail"]) == ("POST", "expected POST, got another method")


def test_an_unread_media_type_is_answered_with_those_that_are_read(client: Client) -> None:
    found = client.post(SCORE, content=ONE, headers={"content-type": "text/plain"})
    forms = "application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream"
    assert found.headers["accept"] == forms
    assert found.json()["detail"] == f"expected Content-Type {forms}, text in UTF-8, got 'text/plain'"


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;"])
def test_json_may_be_declared_in_several_ways(media_type: str, client: Client) -> None:
    assert client.post(SCORE, content=ONE, headers={"content-type": media_type}).status_code == 200


def test_a_declared_length_beyond_the_limit_is_refused_unread(client_factory: ClientFactory) -> None:
    found = client_factory(max_body_bytes=20).post(SCORE, content=ONE, headers=JSON)
    assert (found.status_code, found.headers["connection"]) == (413, "close")
    assert found.json()["detail"] == f"expected a body of at most 20 bytes, got {len(ONE)}"


def test_a_chunked_body_is_counted_while_it_comes(client_factory: ClientFactory) -> None:
    sent: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for i in range(1000):
            sent.append(i)
            yield b" " * 10

    found = client_factory(max_body_bytes=25).post(SCORE, content=endless(), headers=JSON)
    assert (found.status_code, found.json()["detail"]) == (413, "expected a body of at most 25 bytes, got more")
    assert len(sent) == 3


def test_a_body_as_long_as_the_limit_is_read(client_factory: ClientFactory) -> None:
    assert client_factory(max_body_bytes=len(ONE)).post(SCORE, content=ONE, headers=JSON).status_code == 200


def test_more_records_than_the_limit_are_refused(client_factory: ClientFactory) -> None:
    found = client_factory(max_records=2).score(normal_records(3))
    assert found.status_code == 413
    assert found.json()["detail"].startswith("expected at most 2 records")


def test_a_large_body_gets_the_same_scores_as_small_ones(client: Client) -> None:
    records = normal_records(1200, seed=3)
    assert len(json.dumps({"records": records})) > 64 * 1024
    at_once = client.score(records).json()["results"]
    in_parts = [client.score(records[start : start + 100]).json()["results"] for start in range(0, 1200, 100)]
    one_by_one = [result["score"]["value"] for part in in_parts for result in part]
    np.testing.assert_allclose([result["score"]["value"] for result in at_once], one_by_one, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.2])
def test_flagged_means_the_p_value_is_within_the_rate_and_the_score_beyond_its_threshold(
    rate: float, client: Client
) -> None:
    found = client.score([*normal_records(300, seed=11), odd_record()], f"?rate={rate}").json()
    effective_rate = found["decision"]["effective_rate"]
    results = found["results"]
    assert [r["flagged"] for r in results] == [r["p_value"] <= effective_rate for r in results]
    assert [r["flagged"] for r in results] == [r["score"]["value"] > r["score"]["threshold"] for r in results]
    assert {r["flagged"] for r in results} == {True, False}


def test_contributions_and_kl_add_up_to_the_negative_elbo(client: Client) -> None:
    for result in client.score([*normal_records(20), odd_record()], "?explain=all").json()["results"]:
        total = sum(part["contribution"] for part in result["contributions"]) + result["kl"]
        assert total == pytest.approx(-result["elbo"]["value"], rel=1e-9)


def test_models_are_listed_with_what_serves(client: Client) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["state"], model["version"], model["reason"]) == ("pumps", "loaded", VERSION, None)


def test_a_model_is_described_with_a_record_that_it_scores(client: Client) -> None:
    found = client.get("/v1/models/pumps").json()
    assert list(found) == ["model", "created", "schema", "example", "calibration", "metrics", "card", "drift"]
    assert found["calibration"]["n_calibration"] == 199
    assert found["metrics"] == {"auroc": 0.97}
    assert found["card"].startswith("# pumps")
    assert client.score([found["example"]], "?strict=true").status_code == 200


def test_records_like_those_of_the_fit_are_fresh_and_others_are_drifting(client: Client) -> None:
    before = client.score(normal_records(300, seed=5)).json()["decision"]["state"]
    fresh = client.get("/v1/models/pumps").json()["drift"]
    assert (before, fresh["state"], fresh["n_records"], fresh["next_command"]) == ("fresh", "fresh", 250, None)
    assert [field["field"] for field in fresh["fields"]] == ["pressure", "valve", "in/out [l/s]", "rpm", "heated"]
    moved = [record | {"pressure": record["pressure"] + 1.0} for record in normal_records(500, seed=6)]
    client.score(moved)
    drift = client.get("/v1/models/pumps").json()["drift"]  # judges at once
    after = client.score(normal_records(1)).json()["decision"]["state"]
    assert (after, drift["state"]) in {("drifting", "drifting"), ("stale", "stale")}
    assert drift["reason"].startswith("field 'pressure' has changed most")
    assert client.scrape().value("nelbo_drift_state", model="pumps") >= 1
    psi = {
        field: client.scrape().value("nelbo_drift_statistic", model="pumps", field=field, statistic="psi")
        for field in ("pressure", "rpm")
    }
    assert psi["pressure"] > 10 * psi["rpm"]


def test_drift_is_not_told_of_few_records(client: Client) -> None:
    client.score(normal_records(90, seed=7))
    drift = client.get("/v1/models/pumps").json()["drift"]
    assert (drift["state"], drift["fields"]) == ("fresh", [])
    assert drift["reason"] == "there are 90 records, and a judgement needs 250"
    assert client.scrape().value("nelbo_drift_statistic", model="pumps", field="rpm", statistic="psi") == 0.0


def test_versions_say_which_one_serves(client: Client) -> None:
    assert client.get("/v1/models/pumps/versions").json() == {
        "name": "pumps",
        "versions": [{"version": VERSION, "aliases": [], "serving": True}],
    }


def test_health_is_answered_before_a_model_is_loaded(client_factory: ClientFactory) -> None:
    client = client_factory(load=False)
    assert [client.get(f"/healthz/{kind}").status_code for kind in ("live", "ready")] == [200, 503]
    client.service.live.load_all()
    assert [client.get(f"/healthz/{kind}").status_code for kind in ("live", "ready")] == [200, 200]


def test_no_model_answers_503_rather_than_404_while_it_failed_to_load(
    client_factory: ClientFactory, tmp_path: Path
) -> None:
    (tmp_path / "pumps" / "1").mkdir(parents=True)
    (tmp_path / "pumps" / "1" / "manifest.json").write_text("{}")
    found = client_factory(tmp_path).score([])
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    assert "manifest.json: expected format version 1, got None" in found.json()["detail"]


def test_a_request_id_is_sent_back_or_made_up(client: Client) -> None:
    assert client.get("/healthz/live", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made_up = client.get("/healthz/live", headers={"x-request-id": 'a"\\nb'}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{20}", made_up)


def test_a_failure_of_ours_is_a_problem_without_its_text(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("pressure 9.5")

    monkeypatch.setattr(Scorer, "score", fail)
    found = client.post(SCORE, content=ONE, headers={**JSON, "x-request-id": "r1"})
    assert (found.status_code, found.json()["detail"]) == (500, "the log says why under request id r1")
    assert "9.5" not in found.text


def test_a_store_that_cannot_be_read_is_a_problem_of_its_own(client_factory: ClientFactory, tmp_path: Path) -> None:
    aliases = write_tiny_bundle(tmp_path).parent / "aliases.json"
    client = client_factory(tmp_path)
    aliases.write_text("{")
    found = client.get("/v1/models/pumps/versions")
    assert (found.status_code, found.json()["type"]) == (503, "urn:nelbo:problem:store-not-readable")
    assert client.score([odd_record()]).status_code == 200
