"""The outermost layer of the app: request ids, HTTP metrics, and the one place that catches everything."""

import logging
import re
import secrets
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.logs import RequestIds
from service.metrics import Metrics
from service.problems import Answer, problem

UNMATCHED = "unmatched"
_CLIENT_LEFT = 499  # what nginx logs for a client that went away before its answer
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")  # anything else could forge a log line's neighbours


class Edge:
    """Plain ASGI middleware: Starlette's BaseHTTPMiddleware would triple the cost of a bare route.

    Args:
        app: what answers.
        metrics: of the app.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, and sees that it is counted and answered whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        ids = _ids(scope)
        logs.request_ids.set(ids)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", ids.request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = status or _CLIENT_LEFT
        except Exception as error:  # the edge of the process: nothing that a request does may end it
            logs.event("request failed", level=logging.ERROR, error=error, route=route_of(scope))
            if status == 0:
                self._metrics.reject("internal")
                await _send(problem("internal", f"the log says why under request id {ids.request_id}"), send_with_id)
        self._metrics.count_response(route_of(scope), scope["method"], status, time.perf_counter() - started)


def route_of(scope: Scope) -> str:
    """The template of the route that answered, never the path that was asked for."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


def _ids(scope: Scope) -> RequestIds:
    sent = dict(scope["headers"])
    given = sent.get(b"x-request-id", b"")
    request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    return RequestIds(request_id, logs.trace_id_of(sent.get(b"traceparent", b"").decode("latin-1")))


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
