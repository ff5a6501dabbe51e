"""An inference request, as a transport knows it."""

import msgspec
from starlette.types import Receive

from service.body import Bodies, Headers
from service.v2.envelope import HEADER_LENGTH


class InferRequest(msgspec.Struct, frozen=True):
    """What a transport knows of an inference request.

    Attributes:
        name: of the model, as it stands in the path, decoded.
        body: whole, within the limit. Its Content-Type is not looked at: clients of this protocol send any, or none.
        version: likewise; None where the path names none.
        header_length: the header Inference-Header-Content-Length, None where there is none.
        content_encoding: the header, "" where there is none.
        query: without its question mark, not decoded.
    """

    name: str
    body: bytes
    version: str | None = None
    header_length: str | None = None
    content_encoding: str = ""
    query: str = ""


async def read_infer_request(
    name: str, version: str | None, headers: Headers, query: bytes, receive: Receive, bodies: Bodies
) -> InferRequest:
    """An inference request, whole.

    Args:
        name: of the model, as it stands in the path.
        version: likewise.
        headers: of the request.
        query: without its question mark.
        receive: its body not touched yet.
        bodies: reads it, and says what is raised.
    """
    length = headers.get(HEADER_LENGTH.encode())
    return InferRequest(
        name,
        await bodies.read(headers, receive),
        version,
        None if length is None else length.decode("latin-1"),
        headers.get(b"content-encoding", b"").decode("latin-1"),
        query.decode("latin-1"),
    )
