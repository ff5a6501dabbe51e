"""The bodies of requests, read no further than the limits."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from service.forms import NDJSON, declared
from service.problems import ProblemError
from service.request import ScoreRequest

Headers = Mapping[bytes, bytes]


async def read_request(name: str, headers: Headers, query: bytes, receive: Receive, bodies: "Bodies") -> ScoreRequest:
    """A scoring request, whole.

    Args:
        name: of the model, as it stands in the path.
        headers: by name.
        query: as it was sent.
        receive: its body not touched yet.
        bodies: reads it, and says what is raised.
    """
    return request_of(name, headers, query, await bodies.read(headers, receive))


def request_of(name: str, headers: Headers, query: bytes, body: bytes = b"") -> ScoreRequest:
    """A scoring request; its body is empty where it is answered while it comes."""
    return ScoreRequest(
        name,
        body,
        headers.get(b"content-type", b"").decode("latin-1"),
        headers.get(b"content-encoding", b"").decode("latin-1"),
        query.decode("latin-1"),
        headers.get(b"accept", b"").decode("latin-1"),
    )


def is_stream(headers: Headers) -> bool:
    """Whether a body is declared as JSON lines, which are answered while they come."""
    return declared(headers.get(b"content-type", b"").decode("latin-1")) == NDJSON


def headers_of(scope: Scope) -> Headers:
    """The request's headers by name, in lower case; one that was sent several times is a list, as RFC 9110 has it.

    So two readers of a request cannot each take another value for the only one.
    """
    sent = scope["headers"]
    found = dict(sent)
    if len(found) < len(sent):
        found = {name: b", ".join(value for key, value in sent if key == name) for name in found}
    return found


def declared_length(headers: Headers) -> int | None:
    """Bytes that a body is declared to have, of gigantic ones only about; None where no number says it."""
    text = headers.get(b"content-length", b"")
    # Zeros may stand before it, any number of them; `int` refuses more than some thousand digits.
    return int(text.lstrip(b"0")[:20] or b"0") if text.isdigit() else None


class Bodies:
    """Reads request bodies: each may be only so long, and all that are still coming only so long together.

    Where they are longer together, the one that has been coming for longest is refused, so that whoever sends slowly
    holds up nobody who sends fast.

    Args:
        max_bytes: of each; the declared length is held to it and the bytes that come, chunked bodies included.
        max_bytes_together: of all.
    """

    def __init__(self, max_bytes: int, max_bytes_together: int) -> None:
        self._max_bytes, self._max_together = max_bytes, max_bytes_together
        self._coming: dict[asyncio.Task[Any], bytearray] = {}  # the oldest first
        self._n_bytes = 0

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body.

        Args:
            headers: by name.
            receive: the body not touched yet.

        Raises:
            ProblemError: it is longer, or has to give way; the connection closes, since the rest of it stays unread.
            ClientDisconnect: the client went away before its body was whole.
        """
        declared = declared_length(headers)
        if declared is not None and declared > self._max_bytes:
            raise _too_large(self._max_bytes, str(declared))
        body, more = await _next(receive)
        if len(body) > self._max_bytes:
            raise _too_large(self._max_bytes, "more")
        return await self._read_on(body, receive) if more else body  # most bodies come in one piece

    async def _read_on(self, first: bytes, receive: Receive) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        body = self._coming[task] = bytearray()
        chunk, more = first, True
        try:
            while True:
                body += chunk
                self._n_bytes += len(chunk)
                if len(body) > self._max_bytes:
                    raise _too_large(self._max_bytes, "more")
                self._make_room(task)
                if not more:
                    return bytes(body)
                chunk, more = await _next(receive)
        except asyncio.CancelledError:
            if task in self._coming:
                raise
            task.uncancel()  # it gave way
            raise _too_many() from None
        finally:
            self._forget(task)

    def _make_room(self, current: "asyncio.Task[Any]") -> None:
        while self._n_bytes > self._max_together:
            oldest = next(iter(self._coming))
            self._forget(oldest)
            if oldest is current:
                raise _too_many()
            oldest.cancel()

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._n_bytes -= len(self._coming.pop(task, b""))


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes, and whether there are more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _too_many() -> ProblemError:
    detail = "more bytes of bodies are coming than fit the memory, and this one has been coming for longest; try again"
    return ProblemError("too-many-bytes", detail, headers={"retry-after": "1", "connection": "close"})


def _too_large(max_bytes: int, found: str) -> ProblemError:
    detail = f"expected a body of at most {max_bytes} bytes, got {found}"
    return ProblemError("body-too-large", detail, headers={"connection": "close"})
