"""The way of scoring requests past FastAPI's router, whose own work takes longer than theirs."""

import time

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from service.app import Service
from service.body import Headers, headers_of, is_stream, read_request
from service.edge import CLIENT_LEFT, failed, has_left, kind_of, request_id_of, respond
from service.openapi import SCORE_PATH
from service.problems import Answer, ProblemError
from service.v2.queue import queued
from service.v2.refusal import in_form_of
from service.v2.request import read_infer_request
from service.v2.routes import INFER_PATH, INFER_VERSION_PATH

_SCORE_START, _SCORE_END = SCORE_PATH.split("{name}")
_INFER_START, _INFER_END = INFER_PATH.split("{name}")


class Lane:
    """Answers scoring requests itself, and hands all others to the app. Both answer alike: one suite holds them to it.

    Args:
        app: of `create_app`.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        service = app.state.service
        assert isinstance(service, Service)  # noqa: S101
        self._service, self._metrics, self._access = service, service.metrics, service.access
        self._bodies = service.bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the events of the process."""
        matched = _matched(scope)
        headers = {} if matched is None else headers_of(scope)
        if matched is None or (matched[0] == SCORE_PATH and is_stream(headers)):  # of a stream, routing is a small part
            await self._app(scope, receive, send)
            return
        route, names = matched
        started, status = time.perf_counter(), 0
        request_id = request_id_of(headers)
        try:
            answer = await self._answer(route, names, headers, scope, receive)
            status = answer.status
            await respond(answer, request_id, send)
        except Exception as error:  # the edge of the process: nothing that a request does may end it
            if has_left(error):
                status = status or CLIENT_LEFT
            else:
                answer = in_form_of(scope["path"], failed(error, headers, request_id, route))
                self._metrics.reject(kind_of(error))
                status = answer.status
                await respond(answer, request_id, send)
        self._metrics.count_response(route, "POST", status, time.perf_counter() - started)

    async def _answer(
        self, route: str, names: tuple[str, ...], headers: Headers, scope: Scope, receive: Receive
    ) -> Answer:
        query, service = scope["query_string"], self._service
        try:
            self._access.expect(headers, "score")
            if route == SCORE_PATH:
                request = await read_request(names[0], headers, query, receive, self._bodies)
                return await service.batching.score(request, receive)
            version = names[1] if len(names) > 1 else None
            asked = await read_infer_request(names[0], version, headers, query, receive, self._bodies)
            return await queued(service.live, service.batching, asked, service.settings.max_records, receive)
        except ProblemError as error:
            self._metrics.reject(error.kind)
            return in_form_of(scope["path"], error.answer)


def _matched(scope: Scope) -> tuple[str, tuple[str, ...]] | None:
    """The template and the names in a path by which records are scored; None where it is another one."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if path.startswith(_SCORE_START) and path.endswith(_SCORE_END):
        name = path[len(_SCORE_START) : -len(_SCORE_END)]
        return (SCORE_PATH, (name,)) if name and "/" not in name else None
    if path.startswith(_INFER_START) and path.endswith(_INFER_END):
        return _inferred(path[len(_INFER_START) : -len(_INFER_END)].split("/"))
    return None


def _inferred(steps: list[str]) -> tuple[str, tuple[str, ...]] | None:
    match steps:
        case [name] if name:
            return INFER_PATH, (name,)
        case [name, "versions", version] if name and version:
            return INFER_VERSION_PATH, (name, version)
    return None
