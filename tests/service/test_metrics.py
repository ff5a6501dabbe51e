import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from service.metrics import OUTCOMES, REASONS, STAGES, Histogram
from service.problems import KINDS
from tests.bundles import VERSION, normal_records, odd_record, write_tiny_bundle
from tests.service.conftest import Client, ClientFactory


def test_a_value_on_a_bound_falls_into_the_bucket_of_that_bound() -> None:
    histogram = Histogram([1.0, 2.0])
    histogram.add(1.0)
    histogram.add_all(np.array([1.5, 2.0, 9.0]))
    assert histogram.samples() == ([("1.0", 1), ("2.0", 3), ("+Inf", 4)], 13.5)


def test_counters_equal_what_was_sent(client: Client) -> None:
    normal = normal_records(10, seed=4)
    n_flagged = sum(result["flagged"] for result in client.score(normal).json()["results"])
    client.score([odd_record(), odd_record(valve="ajar", rpm=None), odd_record(pressure="x"), {"pressure": 1}])
    client.score([odd_record(rpm=None)] * 3)
    found = client.scrape()
    outcomes = {o: found.value("nelbo_records_scored_total", model="pumps", outcome=o) for o in OUTCOMES}
    assert outcomes == {"normal": 10 - n_flagged, "flagged": n_flagged + 5, "invalid": 2}
    reasons = {r: found.value("nelbo_record_errors_total", model="pumps", reason=r) for r in REASONS}
    assert reasons == {"missing": 1, "wrong-value": 1, "unknown": 0, "repeated": 0, "not-a-record": 0}
    n_missing = sum(record["rpm"] is None for record in normal) + 4
    assert found.value("nelbo_values_missing_total", model="pumps", field="rpm") == n_missing
    assert found.value("nelbo_categories_unseen_total", model="pumps", field="valve") == 1


def test_histograms_count_every_record_request_and_stage(client: Client) -> None:
    client.score([odd_record(), odd_record(), odd_record(pressure="x")])
    client.score([])
    found = client.scrape()
    assert found.value("nelbo_score_p_value_count", model="pumps") == 2
    assert found.value("nelbo_score_p_value_bucket", model="pumps", le="0.002") == 0
    assert found.value("nelbo_score_p_value_bucket", model="pumps", le="0.005") == 2
    assert (found.value("nelbo_batch_records_count"), found.value("nelbo_batch_records_sum")) == (2, 3)
    assert [found.value("nelbo_stage_duration_seconds_count", stage=stage) for stage in STAGES] == [2] * len(STAGES)


def test_refused_requests_are_counted_by_their_kind_of_problem_and_no_record_of_theirs(client: Client) -> None:
    client.score([odd_record(pressure="x")], "?strict=true")
    client.post("/v1/models/pumps/score", content=b"{", headers={"content-type": "application/json"})
    client.post("/v1/models/fans/score", json={"records": []})
    client.get("/v1/models/fans")
    client.get("/nothing")
    found = client.scrape()
    rejected = {kind: found.value("nelbo_requests_rejected_total", reason=kind) for kind in KINDS}
    expected = {"wrong-records": 1, "not-json": 1, "unknown-model": 2, "not-found": 1}
    assert {kind: n for kind, n in rejected.items() if n} == expected
    assert found.value("nelbo_records_scored_total", model="pumps", outcome="invalid") == 0


def test_responses_are_counted_by_route_method_and_status(client: Client) -> None:
    client.score([])
    client.score([], "?rate=2")
    client.get("/v1/models/a")
    client.get("/v1/models/b")
    client.get("/wp-admin")
    client.request("FROB", "/metrics")
    found = client.scrape()
    score, model = "/v1/models/{name}/score", "/v1/models/{name}"
    assert found.value("nelbo_http_requests_total", route=score, method="POST", status="200") == 1
    assert found.value("nelbo_http_requests_total", route=score, method="POST", status="422") == 1
    assert found.value("nelbo_http_requests_total", route=model, method="GET", status="404") == 2
    assert found.value("nelbo_http_requests_total", route="unmatched", method="GET", status="404") == 1
    assert found.value("nelbo_http_requests_total", route="/metrics", method="OTHER", status="405") == 1
    assert found.value("nelbo_http_request_duration_seconds_count", route=score) == 2


def test_names_from_requests_add_no_series(client: Client) -> None:
    def attack(i: int) -> None:
        client.post(f"/v1/models/m{i}/score", json={"records": []})
        client.score([odd_record(**{f"field{i}": i})], f"?p{i}=1")
        client.get(f"/{i}", headers={"x-request-id": f"r{i}"})

    attack(0)
    client.scrape()
    before = client.scrape().series.keys()
    for i in range(1, 30):
        attack(i)
    assert client.scrape().series.keys() == before


def test_every_series_of_a_loaded_model_is_there_before_the_first_request(client: Client) -> None:
    found = client.scrape()
    assert [found.value("nelbo_records_scored_total", model="pumps", outcome=o) for o in OUTCOMES] == [0, 0, 0]
    assert found.value("nelbo_values_missing_total", model="pumps", field="in/out [l/s]") == 0


def test_a_model_is_shown_with_its_version_and_the_age_of_its_calibration(client: Client) -> None:
    found = client.scrape()
    digest = client.get("/v1/models/pumps").json()["model"]["digest"]
    created = datetime.fromisoformat("2026-03-02T08:15:00+00:00").timestamp()
    assert found.value("nelbo_model_info", model="pumps", version=VERSION, digest=digest) == 1
    assert found.value("nelbo_model_load_success", model="pumps") == 1
    assert found.value("nelbo_calibration_age_seconds", model="pumps") == pytest.approx(time.time() - created, abs=60)
    assert found.value("nelbo_model_last_load_timestamp_seconds", model="pumps") == pytest.approx(time.time(), abs=60)


def test_what_alerts_compare_with_is_shown(client: Client) -> None:
    found = client.scrape()
    assert found.value("nelbo_effective_rate", model="pumps") == 0.05  # 10 of 199 + 1 calibration records
    assert found.value("nelbo_reference_missing_share", model="pumps", field="pressure") == 0
    n_missing = sum(record["rpm"] is None for record in normal_records(400, seed=1000))
    assert found.value("nelbo_reference_missing_share", model="pumps", field="rpm") == n_missing / 400
    assert found.value("nelbo_ready") == 1


def test_a_service_that_is_not_ready_says_so_in_its_metrics(client_factory: ClientFactory) -> None:
    client = client_factory(load=False)
    assert client.scrape().value("nelbo_ready") == 0
    client.service.live.load_all()
    assert client.scrape().value("nelbo_ready") == 1


def test_the_durations_of_every_route_are_there_before_the_first_request(client: Client) -> None:
    found = client.scrape()
    routes = ("/v1/models/{name}/score", "/v1/models", "/healthz/ready", "unmatched")
    counts = [found.value("nelbo_http_request_duration_seconds_count", route=route) for route in routes]
    assert counts == [0, 0, 0, 0]


def test_a_model_that_failed_to_load_is_shown_as_such(client_factory: ClientFactory, tmp_path: Path) -> None:
    (write_tiny_bundle(tmp_path) / "score.onnx").unlink()
    assert client_factory(tmp_path).scrape().value("nelbo_model_load_success", model="pumps") == 0


def test_two_apps_count_apart(client_factory: ClientFactory) -> None:
    first, second = client_factory(), client_factory()
    first.score([odd_record()])
    assert second.scrape().value("nelbo_records_scored_total", model="pumps", outcome="flagged") == 0


def test_the_process_is_measured_too(client: Client) -> None:
    assert "process_resident_memory_bytes" in client.get("/metrics").text


def test_openmetrics_is_written_where_it_is_asked_for(client: Client) -> None:
    found = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert found.headers["content-type"].startswith("application/openmetrics-text")
    assert found.text.endswith("# EOF\n")
