"""The FastAPI application: thin routes over `answer` and `catalog`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nelbo.errors import StoreError
from nelbo.resources import read_resources
from service import catalog
from service.access import DOCUMENT_PATH, Access, declaring
from service.answer import ScoreAnswer
from service.apart import Apart
from service.batching import Batching
from service.body import Bodies, headers_of, is_stream, read_request, request_of
from service.capacity import Capacity, capacity_of
from service.catalog import ModelDescription, Models, Versions
from service.edge import UNMATCHED, Edge
from service.keyring import KeyRing, key_ring_of
from service.lifecycle import Lifecycle, add_lifecycle
from service.loader import Loader, loader_of
from service.metrics import Metrics
from service.openapi import SCORE_EXTRA, SCORE_PATH, document, responses
from service.page import documentation_page
from service.problems import JSON, OF_ERROR, Answer, Kind, ProblemError, problem
from service.progress import progress_of
from service.request import ScoreRequest
from service.scrapes import Scrapes
from service.settings import Settings
from service.stream import Streams
from service.v2.refusal import in_form_of
from service.v2.routes import add_protocol

_DESCRIPTION = "Calibrated anomaly scores for records: you set the false-alarm rate, every alert says why."


class Service:
    """What the routes of one app share.

    Args:
        settings: of the process.
        loader: of the models.
        keys: of those who may ask; None where there is no file of them.
        capacity: for how much at once.
    """

    def __init__(self, settings: Settings, loader: Loader, keys: KeyRing | None, capacity: Capacity) -> None:
        self.settings, self.loader, self.keys, self.capacity = settings, loader, keys, capacity
        self.live = loader.live
        self.access = Access(self.keys, is_open=settings.is_open, is_local=settings.access is None)
        self.metrics = Metrics(self.live, are_keys_current=lambda: self.keys is None or self.keys.is_current)
        self.batching = Batching(
            self.live, self.metrics, settings.max_records, self.capacity, settings.request_deadline_s
        )
        self.apart = Apart()
        self.lifecycle = Lifecycle(self.live, settings.keep_versions)
        self.metrics.watch_queue(lambda: self.batching.n_queued)
        self.streams = Streams(
            self.live,
            self.batching,
            max_records=settings.max_records,
            max_body_bytes=settings.max_body_bytes,
            max_bytes_together=self.capacity.max_bytes,
        )
        self.bodies = Bodies(settings.max_body_bytes, max(self.capacity.max_bytes, settings.max_body_bytes))
        self.live.on_crowded = self.streams.let_go

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Loads the models while the app already answers health checks; until then it is not ready."""
        self.loader.begin()
        if self.keys is not None:
            self.keys.watch()
        yield
        self.loader.stop()
        if self.keys is not None:
            self.keys.close()
        self.batching.close()


def service_of(settings: Settings) -> Service:
    """What the routes share, with what this machine or container has.

    Raises:
        KeysError: the file of keys is wrong.
        TrustError: the file of pinned keys will not do.
    """
    return Service(settings, loader_of(settings), key_ring_of(settings), capacity_of(settings, read_resources()))


def create_app(of: Settings | Service) -> FastAPI:
    """The application; its models are loaded when it starts, or by `app.state.service.live.load_all()`.

    The page at /docs loads its script from a public network; /openapi.json needs none. Where keys are needed there is
    no such page: a browser could not send one.

    Args:
        of: what the routes share, or the settings to make that by.

    Raises:
        KeysError: the file of keys is wrong.
        TrustError: the file of pinned keys will not do.
    """
    service = service_of(of) if isinstance(of, Settings) else of
    settings = service.settings
    app = FastAPI(
        title="nelbo",
        description=_DESCRIPTION,
        version=_version(),
        lifespan=service.running,
        redirect_slashes=False,
        openapi_url=DOCUMENT_PATH,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Edge, metrics=service.metrics, access=service.access, routes=app.routes)
    _add_problems(app, service)
    _add_scoring(app, service)
    _add_models(app, service)
    add_lifecycle(app, service.lifecycle)
    add_protocol(app, service.live, service.batching, service.bodies, settings)
    _add_operations(app, service)
    if service.access.is_open:
        _add_page(app)
    service.metrics.know_routes([UNMATCHED, *(route.path for route in app.routes if isinstance(route, Route))])
    app.openapi = partial(document, app, service.live, service.access)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _version() -> str:
    try:
        return version("nelbo")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def _add_problems(app: FastAPI, service: Service) -> None:
    @app.exception_handler(ProblemError)
    async def refuse(request: Request, error: ProblemError) -> Response:
        service.metrics.reject(error.kind)
        return _response(in_form_of(request.url.path, error.answer))

    @app.exception_handler(StoreError)
    async def refuse_store(_: Request, error: StoreError) -> Response:
        kind = OF_ERROR[type(error)]
        service.metrics.reject(kind)
        return _response(problem(kind, service.live.said(str(error))))

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> Response:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        kind: Kind = "not-found"
        detail = "there is nothing at this path; /openapi.json lists what there is"
        if error.status_code == 405:
            kind, detail = "method-not-allowed", f"expected {headers['allow']}, got another method"
        service.metrics.reject(kind)
        return _response(in_form_of(request.url.path, problem(kind, detail, headers=headers)))


def _add_scoring(app: FastAPI, service: Service) -> None:
    @app.post(
        SCORE_PATH,
        summary="Score records",
        description="`records` is a list of objects; `columns` holds the same values as one list a field. JSON lines "
        "are answered line by line while they come. The records may also be CSV with a header or an Arrow IPC stream, "
        "and `Accept` may ask for the results in any of these forms. "
        "Every record gets its statistics with p-values and, if flagged, what each field contributed; "
        "a record that is wrong gets an error of its own.",
        operation_id="score",
        tags=["scoring"],
        responses=responses(ScoreAnswer, 400, 404, 413, 415, 422, 503),
        openapi_extra=SCORE_EXTRA | declaring("score"),
    )
    async def score(name: str, request: Request) -> Response:
        headers, query = headers_of(request.scope), request.scope["query_string"]
        if is_stream(headers):
            return _Stream(service.streams, request_of(name, headers, query))
        scoring = await read_request(name, headers, query, request.receive, service.bodies)
        return _response(await service.batching.score(scoring, request.receive))


class _Stream(Response):
    """The answer to JSON lines, which begins before they end."""

    def __init__(self, streams: Streams, scoring: ScoreRequest) -> None:
        super().__init__()
        self._streams, self._scoring = streams, scoring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._streams.answer(self._scoring, receive, send, progress_of(scope))


def _add_models(app: FastAPI, service: Service) -> None:
    live = service.live
    get = partial(app.get, tags=["models"], openapi_extra=declaring("read"))

    @get("/v1/models", summary="List models", operation_id="models", responses=responses(Models))
    async def models() -> Response:
        return _json(catalog.models(live))

    @get(
        "/v1/models/{name}",
        summary="Describe a model",
        description="Its schema, a record to try, its calibration, what its fit measured, and its card.",
        operation_id="model",
        responses=responses(ModelDescription, 404, 503),
    )
    async def model(name: str) -> Response:
        return _json(catalog.describe(live, name))

    @get(
        "/v1/models/{name}/versions",
        summary="List a model's versions",
        operation_id="versions",
        responses=responses(Versions, 404, 503),
    )
    async def versions(name: str) -> Response:
        return _json(await service.apart.read(lambda: catalog.versions(live, name)))


def _add_operations(app: FastAPI, service: Service) -> None:
    plain = partial(app.get, response_class=PlainTextResponse, tags=["operations"])
    health = partial(plain, openapi_extra=declaring("open"))
    scrapes = Scrapes(service.metrics.exposition)
    of_metrics = declaring("open" if service.settings.metrics_open else "read")

    @health("/healthz/live", summary="Is the process alive", operation_id="alive")
    async def alive() -> Response:
        return PlainTextResponse("alive\n")

    @health(
        "/healthz/ready",
        summary="May it get traffic",
        description="200 where every model answers, after its golden records were replayed, and nobody has told the "
        "service to stop; else 503, and the reasons for who may read.",
        operation_id="ready",
        responses={503: responses(Models, 503)[503]},
    )
    async def ready(request: Request) -> Response:
        problems = service.live.problems()
        if service.live.is_stopping:
            return _response(problem("stopping", "; ".join(problems)))
        if problems and not service.access.may(headers_of(request.scope), "read"):
            problems = ["not every model answers; to a key with the scope read, this says which and why"]
        if problems:
            return _response(problem("model-not-ready", "; ".join(problems)))
        return PlainTextResponse("ready\n")

    @plain("/metrics", summary="Metrics for Prometheus", operation_id="metrics", openapi_extra=of_metrics)
    async def metrics(request: Request) -> Response:
        body, content_type = await scrapes.take(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})


def _add_page(app: FastAPI) -> None:
    page = documentation_page(DOCUMENT_PATH, app.title)

    @app.get("/docs", include_in_schema=False, openapi_extra=declaring("read"))
    async def docs() -> Response:
        return page


def _json(found: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(found), headers={"content-type": JSON})


def _response(found: Answer) -> Response:
    return Response(found.body, found.status, found.headers)
