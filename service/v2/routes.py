"""The protocol's paths, declared: thin routes over `infer` and `models`."""

from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from service.access import declaring
from service.batching import Batching
from service.body import Bodies, headers_of
from service.live import Live
from service.problems import JSON
from service.settings import Settings
from service.v2 import models
from service.v2.envelope import Envelope
from service.v2.outputs import BINARY, InferAnswer
from service.v2.queue import queued
from service.v2.refusal import Refusal
from service.v2.request import read_infer_request

# The bodies that the paths take and answer with.
STRUCTS: tuple[type[msgspec.Struct], ...] = (
    models.ServerLive,
    models.ServerReady,
    models.Server,
    models.IndexRequest,
    models.IndexEntry,
    models.ModelDescriptionV2,
    models.ModelReady,
    Envelope,
    InferAnswer,
    Refusal,
)
_WRONG = {
    400: "The request is wrong.",
    404: "There is no such model, or another version of it serves.",
    413: "The body is too large, or holds too many records.",
    415: "The body is compressed.",
    503: "The model failed to load, or is still being loaded; too many records wait; or the answer took too long.",
}
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"
INFER_PATH, INFER_VERSION_PATH = f"{_MODEL}/infer", f"{_VERSION}/infer"
_BODY = {
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "Bytes of the JSON, where the data of binary tensors stands behind it.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/Envelope"}},
            BINARY: {"schema": {"type": "string", "format": "binary"}},
        },
    },
}


def add_protocol(app: FastAPI, live: Live, batching: Batching, bodies: Bodies, settings: Settings) -> None:
    """Declares the paths under /v2.

    Args:
        app: to declare them in.
        live: the models.
        batching: whose queue inference requests join.
        bodies: reads them.
        settings: of the process.
    """
    _add_server(app, live, bodies)
    _add_models(app, live)
    _add_infer(app, live, batching, bodies, settings)


def _add_server(app: FastAPI, live: Live, bodies: Bodies) -> None:
    @app.get("/v2/health/live", **_declared("Is the process alive", models.ServerLive))
    async def alive_v2() -> Response:
        return _json(models.ServerLive(live=True))

    @app.get("/v2/health/ready", **_declared("May it get traffic", models.ServerReady, 503))
    async def ready_v2() -> Response:
        return _json(models.server_ready(live))

    @app.get("/v2/", include_in_schema=False, openapi_extra=declaring("read"))  # as the protocol's document has it
    @app.get("/v2", **_declared("Describe the server", models.Server))
    async def server_v2() -> Response:
        return _json(models.server(app.version))

    @app.post("/v2/repository/index", **_declared("List models", models.IndexEntry, 400, 413, is_list=True))
    async def index_v2(request: Request) -> Response:
        body = await bodies.read(headers_of(request.scope), request.receive)
        return _json(models.index(live, body))


def _add_models(app: FastAPI, live: Live) -> None:
    declared = _declared("Describe a model", models.ModelDescriptionV2, 404, 503)

    @app.get(_MODEL, **declared)
    async def model_v2(name: str) -> Response:
        return _json(models.describe(live, name))

    @app.get(_VERSION, **declared)
    async def version_v2(name: str, version: str) -> Response:
        return _json(models.describe(live, name, version))

    declared = _declared("Does a model answer", models.ModelReady, 404, 503)

    @app.get(f"{_MODEL}/ready", **declared)
    async def model_ready_v2(name: str) -> Response:
        return _json(models.model_ready(live, name))

    @app.get(f"{_VERSION}/ready", **declared)
    async def version_ready_v2(name: str, version: str) -> Response:
        return _json(models.model_ready(live, name, version))


def _add_infer(app: FastAPI, live: Live, batching: Batching, bodies: Bodies, settings: Settings) -> None:
    declared = _declared("Score records", InferAnswer, 400, 404, 413, 415, 503)
    declared["responses"][200]["content"][BINARY] = {"schema": {"type": "string", "format": "binary"}}
    declared["openapi_extra"] = _BODY | declaring("score")

    async def answered(request: Request, name: str, version: str | None) -> Response:
        headers, query = headers_of(request.scope), request.scope["query_string"]
        asked = await read_infer_request(name, version, headers, query, request.receive, bodies)
        found = await queued(live, batching, asked, settings.max_records, request.receive)
        return Response(found.body, found.status, found.headers)

    @app.post(INFER_PATH, **declared)
    async def infer_v2(name: str, request: Request) -> Response:
        return await answered(request, name, None)

    @app.post(INFER_VERSION_PATH, **declared)
    async def infer_version_v2(name: str, version: str, request: Request) -> Response:
        return await answered(request, name, version)


def _declared(summary: str, answer: type[msgspec.Struct], *statuses: int, is_list: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"$ref": f"#/components/schemas/{answer.__name__}"}
    schema = {"type": "array", "items": found} if is_list else found
    responses: dict[int, Any] = {200: {"description": "Fine.", "content": {JSON: {"schema": schema}}}}
    refused = {JSON: {"schema": {"$ref": f"#/components/schemas/{Refusal.__name__}"}}}
    responses |= {status: {"description": _WRONG[status], "content": refused} for status in statuses}
    return {
        "summary": summary,
        "tags": ["open inference protocol"],
        "responses": responses,
        "openapi_extra": declaring("read"),
    }


def _json(found: msgspec.Struct | list[Any]) -> Response:
    return Response(msgspec.json.encode(found), headers={"content-type": JSON})
