"""What a transport knows of a scoring request."""

import msgspec

from service.problems import JSON


class ScoreRequest(msgspec.Struct, frozen=True):
    """A scoring request, whole.

    Attributes:
        name: of the model, as it stands in the path, decoded.
        body: whole, within the limit.
        content_type: the header, "" where there is none.
        content_encoding: the header, "" where there is none.
        query: without its question mark, not decoded.
        accept: the header, "" where there is none.
    """

    name: str
    body: bytes
    content_type: str = JSON
    content_encoding: str = ""
    query: str = ""
    accept: str = ""
