"""The outermost layer of the app: access, request ids, HTTP metrics, and the one place that catches everything."""

import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from traceback import clear_frames

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.access import Access, Need, need_of
from service.body import Headers, headers_of
from service.logs import RequestIds
from service.memory import give_memory_back
from service.metrics import Metrics
from service.problems import JSON_HEADERS, Answer, Kind, ProblemError, problem
from service.v2.refusal import in_form_of

UNMATCHED = "unmatched"
CLIENT_LEFT = 499  # what nginx logs for a client that went away before its answer
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")  # anything else could forge a log line's neighbours


class Edge:
    """Plain ASGI middleware: Starlette's BaseHTTPMiddleware would triple the cost of a bare route.

    Args:
        app: what answers.
        metrics: of the app.
        access: who may do what.
        routes: of the app, and what each needs.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, access: Access, routes: Sequence[BaseRoute]) -> None:
        self._app, self._metrics, self._access, self._routes = app, metrics, access, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, and sees that it is counted and answered whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        headers = headers_of(scope)
        request_id = request_id_of(headers)
        logs.request_ids.set(ids_of(headers, request_id))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _completed(message.get("headers", ()), request_id)
            await send(message)

        # Before a route is looked for: who has no key learns of no path, model or method whether it is there.
        need, route = need_of(self._routes, scope)
        try:
            refused = self._refused(headers, need)
            if refused is None:
                await self._app(scope, receive, send_with_id)
            else:
                status = refused.status
                await respond(in_form_of(scope["path"], refused), request_id, send)
        except Exception as error:  # the edge of the process: nothing that a request does may end it
            if has_left(error):
                status = status or CLIENT_LEFT
            else:
                found = in_form_of(scope["path"], failed(error, headers, request_id, route_of(scope)))
                if status == 0:
                    self._metrics.reject(kind_of(error))
                    await respond(found, request_id, send)
                    status = found.status
        self._metrics.count_response(route or route_of(scope), scope["method"], status, time.perf_counter() - started)

    def _refused(self, headers: Headers, need: Need) -> Answer | None:
        try:
            self._access.expect(headers, need)
        except ProblemError as error:
            self._metrics.reject(error.kind)
            return error.answer
        return None


def route_of(scope: Scope) -> str:
    """The template of the route that answered, never the path that was asked for."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


_NEW_ID, _N_IDS = (
    secrets.token_hex(6).encode(),
    count(),
)  # a random number for each request would be a call of the kernel


def request_id_of(headers: Headers) -> bytes:
    """The request's id: its client's own, if that will do, or a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%b%08x" % (_NEW_ID, next(_N_IDS))


def ids_of(headers: Headers, request_id: bytes) -> RequestIds:
    """What ties log lines to a request."""
    traceparent = headers.get(b"traceparent", b"").decode("latin-1")
    return RequestIds(request_id.decode(), logs.trace_id_of(traceparent))


def has_left(error: Exception) -> bool:
    """Whether it means that the client is gone: before its request was whole, or before its answer was written."""
    return isinstance(error, ClientDisconnect) or (isinstance(error, RuntimeError) and _CLOSED in str(error))


_CLOSED = "the handler is closed"  # as uvloop says it of a connection that was reset while its answer was made

# As onnxruntime and Python say it.
_OUT_OF_RESOURCES = ("bad_alloc", "bad allocation", "Failed to allocate memory", "can't start new thread")


def kind_of(error: Exception) -> Kind:
    """The problem that a failure is told as: whether there was memory is not a mistake of ours, and passes."""
    is_out = isinstance(error, MemoryError) or any(said in str(error) for said in _OUT_OF_RESOURCES)
    return "out-of-resources" if is_out else "internal"


def failed(error: Exception, headers: Headers, request_id: bytes, route: str) -> Answer:
    """Logs what went wrong, and makes the answer that says so and nothing more."""
    logs.request_ids.set(ids_of(headers, request_id))
    logs.event("request failed", level=logging.ERROR, error=error, route=route)
    if kind_of(error) == "out-of-resources":
        clear_frames(error.__traceback__)  # they hold what the request had
        give_memory_back()
        detail = "there was no memory or thread for this request; with fewer records, or later, it may be answered"
        return problem("out-of-resources", detail, headers={"retry-after": "1"})
    return problem("internal", f"the log says why under request id {request_id.decode()}")


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


# What every answer tells browsers and caches: it is what it says it is, nobody keeps it, and nothing in it may run.
_POLICY = b"content-security-policy"
GUARDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
]
_JSON = [*_encoded(JSON_HEADERS), *GUARDS]  # of most answers


def _completed(headers: Iterable[tuple[bytes, bytes]], request_id: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that all have; a page that runs a script has a policy of its own."""
    found = list(headers)
    has_policy = any(name == _POLICY for name, _ in found)
    return [*found, *(GUARDS[:2] if has_policy else GUARDS), (b"x-request-id", request_id)]


async def respond(answer: Answer, request_id: bytes, send: Send) -> None:
    """Sends an answer."""
    headers = [
        *(_JSON if answer.headers is JSON_HEADERS else [*_encoded(answer.headers), *GUARDS]),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", request_id),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
