"""A request's body, read no further than the limit."""

from starlette.requests import Request

from service.problems import ProblemError


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body.

    Args:
        request: its stream not touched yet.
        max_bytes: what the declared length and the bytes that come are held to, chunked bodies included.

    Raises:
        ProblemError: the body is longer; the connection closes, since the rest of it stays unread.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes, f"{declared}")
    chunks, n_bytes = [], 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes, "more")
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int, found: str) -> ProblemError:
    detail = f"expected a body of at most {max_bytes} bytes, got {found}"
    return ProblemError("body-too-large", detail, headers={"connection": "close"})
