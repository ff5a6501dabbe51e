import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.openapi.models import OpenAPI

from nelbo.schema import Column, Schema
from service.forms import CSV, FORMS, NDJSON
from service.openapi import record_schema
from service.query import PARAMETERS
from tests.service.conftest import Client, ClientFactory

SCORE = "/v1/models/{name}/score"


def nodes(document: object) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(document, dict):
        yield document
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    for child in children:
        yield from nodes(child)


def test_the_document_has_the_form_of_openapi_3_1(client: Client) -> None:
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    OpenAPI.model_validate(found)


def test_every_reference_leads_somewhere(client: Client) -> None:
    found = client.get("/openapi.json").json()
    references = {node["$ref"] for node in nodes(found) if isinstance(node.get("$ref"), str)}
    assert references <= {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert "#/components/schemas/Record-pumps" in references


def test_what_is_plain_text_is_declared_so(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_every_path_is_described(client: Client) -> None:
    assert set(client.get("/openapi.json").json()["paths"]) == {
        SCORE,
        "/v1/models",
        "/v1/models/{name}",
        "/v1/models/{name}/promote",
        "/v1/models/{name}/reload",
        "/v1/models/{name}/rollback",
        "/v1/models/{name}/versions",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/repository/index",
        "/healthz/live",
        "/healthz/ready",
        "/metrics",
    }


def test_every_example_of_a_body_is_scored_without_an_error(client: Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][SCORE]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert sorted(examples) == ["pumps", "pumps-columns"]
    for example in examples.values():
        assert client.post("/v1/models/pumps/score?strict=true", json=example["value"]).status_code == 200


def test_every_form_is_declared_and_its_example_is_scored_without_an_error(client: Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][SCORE]["post"]
    declared = operation["requestBody"]["content"]
    assert set(declared) == set(operation["responses"]["200"]["content"]) == set(FORMS)
    for form in (CSV, NDJSON):
        text = declared[form]["examples"]["pumps"]["value"]
        options = {"content": text.encode(), "headers": {"content-type": form, "accept": NDJSON}}
        (line,) = client.post("/v1/models/pumps/score", **options).text.splitlines()
        assert "error" not in json.loads(line)


def test_scoring_declares_its_query_and_its_problems(client: Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][SCORE]["post"]
    declared = [parameter["name"] for parameter in operation["parameters"]]
    assert declared[:2] == ["name", "rate"]
    assert sorted(declared[1:]) == sorted(PARAMETERS)
    assert sorted(operation["responses"]) == ["200", "400", "404", "413", "415", "421", "422", "503"]


def test_the_answer_is_described_by_the_structs_that_write_it(client: Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert list(schemas["ScoreAnswer"]["properties"]) == ["model", "decision", "results"]
    assert "p_value" in schemas["Result"]["properties"]


def test_a_record_is_described_by_its_kinds_and_closes_no_category() -> None:
    schema = Schema(
        columns=(
            Column(name="rpm", role="field", kind="numeric"),
            Column(name="valve", role="field", kind="categorical", categories=("open", "shut"), nullable=True),
            Column(name="at", role="field", kind="timestamp", nullable=True),
            Column(name="failed", role="label"),
        )
    )
    found = record_schema(schema)
    assert (found["required"], found["additionalProperties"]) == (["rpm"], False)
    assert found["properties"]["rpm"] == {"type": ["number", "null"]}
    assert found["properties"]["valve"] == {"type": ["string", "null"], "examples": ["open", "shut"]}
    assert len(found["properties"]["at"]["anyOf"]) == 3
    assert found["properties"]["failed"] == {}


def test_a_schema_that_ignores_extra_names_leaves_its_record_open() -> None:
    schema = Schema(extra="ignore", columns=(Column(name="rpm", role="field", kind="numeric"),))
    assert "additionalProperties" not in record_schema(schema)


def test_the_document_is_there_without_a_model(client_factory: ClientFactory, tmp_path: Path) -> None:
    OpenAPI.model_validate(client_factory(tmp_path).get("/openapi.json").json())


def test_the_documentation_page_is_served(client: Client) -> None:
    assert "/openapi.json" in client.get("/docs").text
