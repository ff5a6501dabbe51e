"""A malformed request as it goes over the wire, and what must come back."""

import json
from dataclasses import dataclass
from typing import Any

from tests.bundles import VERSION

SCORE = "/v1/models/pumps/score"
INFER = "/v2/models/pumps/infer"
MODEL = f"pumps@{VERSION}"
JSON, LINES, CSV, ARROW = (
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "application/vnd.apache.arrow.stream",
)
GOOD: dict[str, Any] = {"pressure": 5.0, "valve": "open", "in/out [l/s]": 20.0, "rpm": 1500.0, "heated": True}


@dataclass(frozen=True)
class Case:
    """One malformed request.

    Attributes:
        name: what is wrong with it.
        request: its bytes, head and body.
        status: of the answer.
        kind: of the problem; "error" under /v2; None where HTTP itself is wrong, or the answer is no refusal.
        detail: what the problem's text begins with; of a refusal of records, the first record's; of an answer that is
            no refusal, the first error's among its results, "" where there is none.
    """

    name: str
    request: bytes
    status: int
    kind: str | None = None
    detail: str = ""


def post(
    body: bytes, path: str = SCORE, content_type: str | None = JSON, headers: bytes = b"", length: int | None = None
) -> bytes:
    """The bytes of a request with a body.

    Args:
        body: as it is.
        path: with its query.
        content_type: None for none.
        headers: more of them, each ended by a line break.
        length: what it says of its body's length; that of the body if None.
    """
    declared = b"" if content_type is None else b"content-type: %b\r\n" % content_type.encode("latin-1")
    length = len(body) if length is None else length
    head = b"POST %b HTTP/1.1\r\nhost: pumps\r\nconnection: close\r\n" % path.encode("latin-1")
    return head + declared + headers + b"content-length: %d\r\n\r\n" % length + body


def bare(line: bytes, headers: bytes = b"host: pumps\r\nconnection: close\r\n", body: bytes = b"") -> bytes:
    """The bytes of a request whose first line and headers are given."""
    return line + b"\r\n" + headers + b"\r\n" + body


def records(*found: object) -> bytes:
    """A body of records; bytes among them are put in as they are."""
    texts = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in found]
    return b'{"records":[' + b",".join(texts) + b"]}"


def with_value(field: str, raw: bytes) -> bytes:
    """A good record but for one field's value, which is these bytes."""
    cells = [json.dumps(name).encode() + b":" + json.dumps(value).encode() for name, value in GOOD.items()]
    own = json.dumps(field).encode() + b":"
    kept = [cell for cell in cells if not cell.startswith(own)]
    return b"{" + b",".join([*kept, own + raw]) + b"}"


def wrong_record(name: str, record: bytes, detail: str) -> Case:
    """A request of three records, the middle one wrong, that wants all of them right."""
    body = records(GOOD, record, GOOD)
    return Case(name, post(body, f"{SCORE}?strict=true"), 422, "wrong-records", f"record 1{detail}")


def wrong_value(name: str, field: str, raw: bytes, expected: str, found: str) -> Case:
    """The same, whose one value is wrong."""
    return wrong_record(name, with_value(field, raw), f", field '{field}': expected {expected}, got {found}")


def refused(name: str, body: bytes, status: int, kind: str, detail: str) -> Case:
    """A request whose JSON body as a whole is wrong."""
    return Case(name, post(body), status, kind, detail)


def scored(name: str, body: bytes) -> Case:
    """A request that looks wrong and is not: all of its records are scored."""
    return Case(name, post(body), 200)
