"""The OpenAPI document: the declared routes, and what only the loaded models can say."""

import csv
import io
from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from nelbo.intent import SECONDS
from nelbo.results import DecisionAnswer, FaultyResult, Model, Result
from nelbo.schema import Column, Schema
from nelbo.scoring import Scorer
from service.access import Access
from service.answer import ScoreAnswer
from service.catalog import ModelDescription, Models, Versions, example_record
from service.forms import ARROW, CSV, NDJSON
from service.lifecycle import Serving
from service.live import Live
from service.problems import JSON, MEDIA_TYPE, Problem
from service.v2.inputs import example_inputs
from service.v2.refusal import PATHS, Refusal
from service.v2.routes import INFER_PATH, INFER_VERSION_PATH
from service.v2.routes import STRUCTS as OF_PROTOCOL

Document = dict[str, Any]
SCORE_PATH = "/v1/models/{name}/score"
# Two structs without a tag are no union that msgspec describes, so the score's answer is put together below.
_STRUCTS = (
    Model,
    DecisionAnswer,
    Result,
    FaultyResult,
    Models,
    ModelDescription,
    Versions,
    Serving,
    Problem,
    *OF_PROTOCOL,
)
_TITLES = {
    400: "The body is not of the form that it is declared to have.",
    401: "There is no key, or it is unknown, revoked or expired.",
    403: "The key has another scope; or where none is needed, a page in a browser asks to manage models.",
    404: "There is no such model.",
    413: "The body is too large, or holds too many records.",
    415: "The body is compressed, or declared to have a form that is not read.",
    421: "The service was asked for by a name of the public network, and only its own machine may ask.",
    422: "The query, the shape of the body, or with `strict=true` a record is wrong.",
    503: "The model failed to load or is being loaded; too many records wait already; or the answer took too long.",
}
_SCALAR = ["string", "number", "boolean", "null"]


def responses(answer: type[msgspec.Struct], *statuses: int) -> dict[int | str, Any]:
    """How a route declares what it answers with.

    Args:
        answer: the body of a 200.
        statuses: of the problems that it may answer with instead.
    """
    found: dict[int | str, Any] = {200: {"description": "Fine.", "content": _content(JSON, _ref(answer.__name__))}}
    for status in statuses:
        found[status] = {"description": _TITLES[status], "content": _content(MEDIA_TYPE, _ref("Problem"))}
    return found


# Declared by hand: the route reads the bytes itself, and the schemas of records come from the loaded models.
SCORE_EXTRA: Document = {
    "parameters": [
        {
            "name": "rate",
            "in": "query",
            "description": "False-alarm rate: the share of normal records that may be flagged. "
            "Without it, the rate that the model was calibrated for.",
            "schema": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        },
        {
            "name": "confidence",
            "in": "query",
            "description": "Probability with which the true false-alarm rate stays below the rate; without it, the "
            "rate holds in the mean over calibration sets.",
            "schema": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 1},
        },
        {
            "name": "max_false_alarms",
            "in": "query",
            "description": "Instead of a rate: so many false alarms a while, with `per` and `records_per_s`.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        },
        {
            "name": "per",
            "in": "query",
            "description": "The while that `max_false_alarms` is meant for.",
            "schema": {"type": "string", "enum": list(SECONDS)},
        },
        {
            "name": "records_per_s",
            "in": "query",
            "description": "The traffic that `max_false_alarms` is meant for.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        },
        {
            "name": "fdr",
            "in": "query",
            "description": "Instead of a rate: the share of this request's flagged records that may be normal, in the "
            "mean (Benjamini-Hochberg).",
            "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        },
        {
            "name": "window",
            "in": "query",
            "description": "With JSON lines and `fdr`, and only then: the records that it holds for, one window after "
            "another. Each window is answered when it is whole.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        },
        {
            "name": "explain",
            "in": "query",
            "description": "Which records get contributions and expected values, field by field.",
            "schema": {"type": "string", "enum": ["flagged", "all", "none"], "default": "flagged"},
        },
        {
            "name": "strict",
            "in": "query",
            "description": "With `true`, one wrong record refuses the request; else it gets an error of its own. "
            "Not with JSON lines, whose answer begins before they end.",
            "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
        },
    ],
}


def document(app: FastAPI, live: Live, access: Access) -> Document:
    """The document as it holds now: it names the loaded models, their records and an example of each."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=app.openapi_version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    scorers = live.scorers()
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    records = {_component(name): record_schema(scorer.schema) for name, scorer in scorers.items()}
    columns = {_component(name, "Columns"): columns_schema(scorer.schema) for name, scorer in scorers.items()}
    found["components"] = {"schemas": {ScoreAnswer.__name__: _score_answer(), **components, **records, **columns}}
    score = found["paths"][SCORE_PATH]["post"]
    score["requestBody"] = _score_body(scorers)
    score["responses"]["200"]["content"] |= _other_answers()
    for path in (INFER_PATH, INFER_VERSION_PATH):
        found["paths"][path]["post"]["requestBody"]["content"][JSON]["examples"] = _infer_examples(scorers)
    _guard(found, access)
    for operation in _operations(found):
        # FastAPI's own form of a 422, for parameters that it would check; a path's name is any text.
        if MEDIA_TYPE not in operation["responses"].get("422", {}).get("content", {}):
            operation["responses"].pop("422", None)
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "name" and scorers:
                parameter["example"] = next(iter(scorers))
    return found


def _guard(found: Document, access: Access) -> None:
    """Says of each operation which scope it needs, and how its refusal looks."""
    if not access.is_open:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, of_path in found["paths"].items():
        refused = (
            _content(JSON, _ref(Refusal.__name__)) if path.startswith(PATHS) else _content(MEDIA_TYPE, _ref("Problem"))
        )
        for operation in of_path.values():
            scope = operation.setdefault("x-scope", "admin")
            if not access.is_open:
                operation["security"] = [] if scope == "open" else [{"key": [scope]}]
            statuses = _refusals(access, scope)
            operation["responses"] |= {str(s): {"description": _TITLES[s], "content": refused} for s in statuses}


def _refusals(access: Access, scope: str) -> list[int]:
    """The statuses of what is refused before a route is looked for."""
    if scope == "open":
        return []
    if not access.is_open:
        return [401, 403]
    return [403] * (scope == "admin") + [421] * access.is_local


def _operations(found: Document) -> list[Document]:
    return [operation for path in found["paths"].values() for operation in path.values()]


def _result() -> Document:
    return {"anyOf": [_ref(Result.__name__), _ref(FaultyResult.__name__)]}


def _score_answer() -> Document:
    result = _result()
    of_field = {
        "model": _ref(Model.__name__),
        "decision": _ref(DecisionAnswer.__name__),
        "results": {"type": "array", "items": result},
    }
    return _object(of_field, list(ScoreAnswer.__struct_fields__))


def _score_body(scorers: dict[str, Scorer]) -> Document:
    by_record = _object({"records": {"type": "array", "items": _of_any(scorers, "Record")}}, ["records"])
    by_column = _object({"columns": _of_any(scorers, "Columns")}, ["columns"])
    examples = {name: {"value": {"records": [example_record(scorer)]}} for name, scorer in scorers.items()}
    columnar = {
        f"{name}-columns": {"value": {"columns": {key: [value] for key, value in example_record(scorer).items()}}}
        for name, scorer in scorers.items()
    }
    content: Document = {"schema": {"oneOf": [by_record, by_column]}}
    if scorers:
        content["examples"] = examples | columnar
    return {"required": True, "content": {JSON: content, **_other_bodies(scorers)}}


def _other_bodies(scorers: dict[str, Scorer]) -> Document:
    lines: Document = {"schema": _of_any(scorers, "Record"), "examples": _texts(scorers, _line)}
    text: Document = {"schema": {"type": "string"}, "examples": _texts(scorers, _table)}
    return {NDJSON: lines, CSV: text, ARROW: {"schema": {"type": "string", "contentMediaType": ARROW}}}


def _infer_examples(scorers: dict[str, Scorer]) -> Document:
    return {
        name: {"value": {"inputs": example_inputs(scorer.schema, example_record(scorer))}}
        for name, scorer in scorers.items()
    }


def _other_answers() -> Document:
    """What an answer looks like where `Accept` asks for it, or where JSON lines came."""
    binary = {"type": "string", "contentMediaType": ARROW}
    return _content(NDJSON, _result()) | _content(CSV, {"type": "string"}) | _content(ARROW, binary)


def _texts(scorers: dict[str, Scorer], text_of: Callable[[Document], str]) -> Document:
    return {name: {"value": text_of(example_record(scorer))} for name, scorer in scorers.items()}


def _line(record: Document) -> str:
    return msgspec.json.encode(record).decode() + "\n"


def _table(record: Document) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    values = (str(value).lower() if isinstance(value, bool) else value for value in record.values())
    rows.writerows([record, values])
    return text.getvalue()


def record_schema(schema: Schema) -> Document:
    """A record of a model as JSON schema. A category that training did not see is a state, so no enum is closed."""
    properties = {column.name: _value_schema(column) for column in schema.columns}
    return _object(properties, _required(schema), closed=schema.extra == "refuse")


def columns_schema(schema: Schema) -> Document:
    """The columnar form of a model's records as JSON schema: equally long lists."""
    properties = {column.name: {"type": "array", "items": _value_schema(column)} for column in schema.columns}
    return _object(properties, _required(schema), closed=schema.extra == "refuse")


def _required(schema: Schema) -> list[str]:
    return [field.name for field in schema.fields if not field.nullable]


def _value_schema(column: Column) -> Document:
    match column.kind:
        case "numeric":
            return {"type": ["number", "null"]}
        case "boolean":
            return {"type": ["boolean", "null"]}
        case "timestamp":
            text = {"type": "string", "description": "ISO 8601"}
            return {"anyOf": [text, {"type": "number", "description": "seconds since 1970, UTC"}, {"type": "null"}]}
        case "categorical":
            integers = any(isinstance(value, int) for value in column.known + column.rare)
            return {"type": ["integer" if integers else "string", "null"], "examples": list(column.known[:3])}
    return {"type": _SCALAR} if column.role == "id" else {}


def _object(properties: Document, required: list[str], *, closed: bool = True) -> Document:
    found: Document = {"type": "object", "properties": properties, "required": required}
    return {**found, "additionalProperties": False} if closed else found


def _of_any(scorers: dict[str, Scorer], what: str) -> Document:
    """What one of the loaded models takes; the path says which of them it is."""
    return {"anyOf": [_ref(_component(name, what)) for name in scorers]} if scorers else {"type": "object"}


def _component(name: str, what: str = "Record") -> str:
    return f"{what}-{name}"


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(media_type: str, schema: Document) -> Document:
    return {media_type: {"schema": schema}}
