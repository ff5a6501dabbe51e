from pathlib import Path
from typing import Any

import pytest

from tests.bundles import VERSION, odd_record, write_tiny_bundle
from tests.service.conftest import Client, ClientFactory
from tests.service.v2.test_infer import inputs_of

BODY: dict[str, Any] = {"inputs": inputs_of([odd_record()])}


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_is(path: str, client: Client) -> None:
    found = client.get(path).json()
    assert list(found) == ["name", "version", "extensions"]
    assert (found["name"], "binary_tensor_data" in found["extensions"]) == ("nelbo", True)


def test_health_answers_where_models_are_loaded(client: Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/pumps/ready").json() == {"name": "pumps", "ready": True}
    assert client.get(f"/v2/models/pumps/versions/{VERSION}/ready").json() == {"name": "pumps", "ready": True}


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/pumps/ready", "/v2/models/pumps"])
def test_what_is_not_ready_says_so_with_503(path: str, client_factory: ClientFactory) -> None:
    found = client_factory(load=False).get(path)
    assert (found.status_code, found.headers["retry-after"], list(found.json())) == (503, "5", ["error"])


def test_a_server_that_loads_is_alive(client_factory: ClientFactory) -> None:
    assert client_factory(load=False).get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/pumps", f"/v2/models/pumps/versions/{VERSION}"])
def test_a_model_names_its_inputs_and_outputs(path: str, client: Client) -> None:
    found = client.get(path).json()
    assert list(found) == ["name", "versions", "platform", "inputs", "outputs"]
    assert (found["name"], found["versions"], found["platform"]) == ("pumps", [VERSION], "onnxruntime_onnx")
    assert found["inputs"] == [
        {"name": "pressure", "datatype": "FP64", "shape": [-1]},
        {"name": "valve", "datatype": "BYTES", "shape": [-1]},
        {"name": "in/out [l/s]", "datatype": "FP64", "shape": [-1]},
        {"name": "rpm", "datatype": "FP64", "shape": [-1]},
        {"name": "heated", "datatype": "BOOL", "shape": [-1]},
    ]
    assert found["outputs"][2] == {"name": "flagged", "datatype": "BOOL", "shape": [-1]}
    assert found["outputs"][-1] == {"name": "contributions", "datatype": "FP64", "shape": [-1, 5]}


def test_the_index_lists_the_models(client: Client) -> None:
    entry = {"name": "pumps", "version": VERSION, "state": "READY", "reason": ""}
    assert client.post("/v2/repository/index").json() == [entry]
    assert client.post("/v2/repository/index", json={"ready": True}).json() == [entry]
    assert client.post("/v2/repository/index", content=b"[]").status_code == 400


def test_the_index_says_why_a_model_does_not_answer(client_factory: ClientFactory, tmp_path: Path) -> None:
    (write_tiny_bundle(tmp_path) / "schema.json").write_bytes(b"{}")
    client = client_factory(tmp_path)
    (entry,) = client.post("/v2/repository/index", json={}).json()
    assert (entry["state"], entry["version"], "schema.json" in entry["reason"]) == ("UNAVAILABLE", "", True)
    assert client.post("/v2/repository/index", json={"ready": True}).json() == []


@pytest.mark.parametrize("path", ["/v2/models/pumps/infer", f"/v2/models/pumps/versions/{VERSION}/infer"])
def test_records_are_scored_and_counted(path: str, client: Client) -> None:
    found = client.post(path, json=BODY)
    assert (found.status_code, found.json()["outputs"][2]["data"]) == (200, [True])
    scrape = client.scrape()
    assert scrape.value("nelbo_records_scored_total", model="pumps", outcome="flagged") == 1
    route = path.replace("pumps", "{name}").replace(VERSION, "{version}")
    assert scrape.value("nelbo_http_requests_total", route=route, method="POST", status="200") == 1


def test_a_large_body_is_answered_as_a_small_one(client: Client) -> None:
    record = odd_record(valve="shut" * 20_000)
    assert client.post("/v2/models/pumps/infer", json={"inputs": inputs_of([record])}).status_code == 200


def test_a_full_queue_refuses_in_the_form_of_the_protocol(client_factory: ClientFactory) -> None:
    client = client_factory(max_queued_records=1)
    client.service.batching._n_queued = 1
    found = client.post("/v2/models/pumps/infer", json=BODY)
    assert (found.status_code, found.headers["retry-after"], list(found.json())) == (503, "1", ["error"])
    assert client.scrape().value("nelbo_requests_rejected_total", reason="queue-full") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/model", 404),
        ("GET", "/v2/models/fans", 404),
        ("GET", "/v2/models/fans/ready", 404),
        ("POST", "/v2/models/fans/infer", 404),
        ("GET", "/v2/models/pumps/versions/1", 404),
        ("GET", "/v2/models/pumps/versions/1/ready", 404),
        ("POST", "/v2/models/pumps/versions/1/infer", 404),
        ("GET", "/v2/models/pumps/infer", 405),
        ("POST", "/v2/models/pumps/infer?rate=0.1", 400),
        ("POST", "/v2/models/pumps/infer", 400),
    ],
)
def test_every_refusal_has_the_form_of_the_protocol(method: str, path: str, status: int, client: Client) -> None:
    found = client.request(method, path)
    assert (found.status_code, found.headers["content-type"], list(found.json())) == (
        status,
        "application/json",
        ["error"],
    )


def test_a_body_beyond_the_limit_is_refused_in_the_form_of_the_protocol(client_factory: ClientFactory) -> None:
    found = client_factory(max_body_bytes=10).post("/v2/models/pumps/infer", json=BODY)
    size = found.request.headers["content-length"]
    assert (found.status_code, found.json()) == (413, {"error": f"expected a body of at most 10 bytes, got {size}"})


def test_a_refusal_under_v1_keeps_its_form(client: Client) -> None:
    assert client.get("/v1/models/fans").headers["content-type"] == "application/problem+json"
