"""A request's body, read no further than the limit."""

from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from service.forms import NDJSON, declared
from service.problems import ProblemError
from service.request import ScoreRequest

Headers = Mapping[bytes, bytes]


async def read_request(name: str, headers: Headers, query: bytes, receive: Receive, max_bytes: int) -> ScoreRequest:
    """A scoring request, whole.

    Args:
        name: of the model, as it stands in the path.
        headers: by name.
        query: as it was sent.
        receive: its body not touched yet.
        max_bytes: what the declared length and the bytes that come are held to, chunked bodies included.

    Raises:
        ProblemError: the body is longer; the connection closes, since the rest of it stays unread.
        ClientDisconnect: the client went away before its body was whole.
    """
    return request_of(name, headers, query, await read_body(headers, receive, max_bytes))


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


async def read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """The whole body; arguments and errors as for `read_request`."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes, declared.decode())
    chunks: list[bytes] = []
    n_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        n_bytes += len(body)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes, "more")
        if not (more or chunks):
            return body  # most bodies come in one piece
        chunks.append(body)
    return b"".join(chunks)


def _too_large(max_bytes: int, found: str) -> ProblemError:
    detail = f"expected a body of at most {max_bytes} bytes, got {found}"
    return ProblemError("body-too-large", detail, headers={"connection": "close"})
