"""The way of scoring requests past FastAPI's router, whose own work takes longer than theirs."""

import time

from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.app import Service
from service.body import Headers, headers_of, read_request
from service.edge import CLIENT_LEFT, failed, request_id_of, respond
from service.openapi import SCORE_PATH
from service.problems import Answer, ProblemError

_BEFORE, _AFTER = SCORE_PATH.split("{name}")


class Lane:
    """Answers scoring requests itself, and hands all others to the app. Both answer alike: one suite holds them to it.

    Args:
        app: of `create_app`.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        service = app.state.service
        assert isinstance(service, Service)  # noqa: S101
        self._service, self._metrics = service, service.metrics
        self._max_body_bytes = service.settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the events of the process."""
        name = _model_to_score(scope)
        if name is None:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = headers_of(scope)
        request_id = request_id_of(headers)
        try:
            answer = await self._answer(name, headers, scope, receive)
            status = answer.status
            await respond(answer, request_id, send)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception as error:  # the edge of the process: nothing that a request does may end it
            answer = failed(error, headers, request_id, SCORE_PATH)
            self._metrics.reject("internal")
            status = answer.status
            await respond(answer, request_id, send)
        self._metrics.count_response(SCORE_PATH, "POST", status, time.perf_counter() - started)

    async def _answer(self, name: str, headers: Headers, scope: Scope, receive: Receive) -> Answer:
        try:
            request = await read_request(name, headers, scope["query_string"], receive, self._max_body_bytes)
            return await self._service.batching.score(request)
        except ProblemError as error:
            self._metrics.reject(error.kind)
            return error.answer


def _model_to_score(scope: Scope) -> str | None:
    """The model whose records are to be scored; None where that is not what is asked for."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if not (path.startswith(_BEFORE) and path.endswith(_AFTER)):
        return None
    name = path[len(_BEFORE) : -len(_AFTER)]
    return name if name and "/" not in name else None
