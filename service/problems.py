"""What a refused request is told: RFC 9457 problems, and the one table from core errors to statuses."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from nelbo.errors import (
    BodyError,
    BundleError,
    CalibrationError,
    NelboError,
    NotJsonError,
    RecordError,
    SchemaChangedError,
    SchemaError,
    StoreError,
    StoreWriteError,
    TooManyRecordsError,
    UnknownVersionError,
)

JSON = "application/json"
JSON_HEADERS = {"content-type": JSON}
MEDIA_TYPE = "application/problem+json"

Kind = Literal[
    "body-too-large",
    "client-too-slow",
    "deadline-exceeded",
    "head-too-large",
    "internal",
    "load-failed",
    "load-not-finished",
    "method-not-allowed",
    "model-not-ready",
    "no-key",
    "not-arrow",
    "not-csv",
    "not-found",
    "not-http",
    "not-json",
    "out-of-resources",
    "queue-full",
    "rate-not-carried",
    "schema-changed",
    "stopping",
    "store-not-readable",
    "store-not-writable",
    "too-many-bytes",
    "too-many-connections",
    "too-many-records",
    "too-many-streams",
    "unknown-model",
    "unknown-version",
    "unsupported-media-type",
    "wrong-body",
    "wrong-key",
    "wrong-query",
    "wrong-records",
    "wrong-host",
    "wrong-scope",
]

# Status and title of each kind of problem. The kinds are the closed set of `nelbo_requests_rejected_total`.
KINDS: dict[Kind, tuple[int, str]] = {
    "body-too-large": (413, "The body is too large"),
    "client-too-slow": (408, "The client was too slow"),
    "deadline-exceeded": (503, "The answer took too long"),
    "head-too-large": (431, "The head of the request is too large"),
    "internal": (500, "The service failed"),
    "load-failed": (409, "The version cannot serve"),
    "load-not-finished": (503, "The load has not finished"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "model-not-ready": (503, "The model is not ready"),
    "no-key": (401, "A key is needed"),
    "not-arrow": (400, "The body is no Arrow IPC stream"),
    "not-csv": (400, "The body is not CSV"),
    "not-found": (404, "There is nothing at this path"),
    "not-http": (400, "The bytes are not HTTP"),
    "not-json": (400, "The body is not JSON"),
    "out-of-resources": (503, "Memory or threads do not suffice"),
    "queue-full": (503, "Too many records wait"),
    "rate-not-carried": (422, "The calibration records do not carry this rate"),
    "schema-changed": (409, "The version reads other records than the one that serves"),
    "stopping": (503, "The service is stopping"),
    "store-not-readable": (503, "The store of models cannot be read"),
    "store-not-writable": (409, "The store of models cannot be changed"),
    "too-many-bytes": (503, "Too many bytes of bodies are coming"),
    "too-many-connections": (503, "Too many connections"),
    "too-many-records": (413, "Too many records"),
    "too-many-streams": (503, "Too many streams"),
    "unknown-model": (404, "There is no such model"),
    "unknown-version": (404, "The store has no such model or version"),
    "unsupported-media-type": (415, "The body has a form that is not read here"),
    "wrong-body": (422, "The body has the wrong shape"),
    "wrong-key": (401, "The key is not valid"),
    "wrong-query": (422, "The query is wrong"),
    "wrong-records": (422, "Some records are wrong"),
    "wrong-host": (421, "This is not the host that was asked for"),
    "wrong-scope": (403, "The key may not do this"),
}

# The core raises meaning and knows no status.
OF_ERROR: dict[type[NelboError], Kind] = {
    BodyError: "wrong-body",
    BundleError: "load-failed",
    CalibrationError: "rate-not-carried",
    NotJsonError: "not-json",
    RecordError: "wrong-records",
    SchemaError: "wrong-body",
    SchemaChangedError: "schema-changed",
    StoreError: "store-not-readable",
    StoreWriteError: "store-not-writable",
    TooManyRecordsError: "too-many-records",
    UnknownVersionError: "unknown-version",
}


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong: where (a JSON pointer into the body, or a query parameter) and what."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    found: str | UnsetType = UNSET


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that refuses, media type `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    errors: Sequence[Fault] | UnsetType = UNSET


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: what any transport needs to send it."""

    status: int
    headers: dict[str, str]
    body: bytes


def problem(kind: Kind, detail: str, errors: Sequence[Fault] = (), headers: dict[str, str] | None = None) -> Answer:
    """The answer that states a problem."""
    status, title = KINDS[kind]
    body = msgspec.json.encode(Problem(f"urn:nelbo:problem:{kind}", title, status, detail, errors or UNSET))
    return Answer(status, {"content-type": MEDIA_TYPE, **(headers or {})}, body)


class ProblemError(Exception):
    """Ends the making of an answer with a problem."""

    def __init__(
        self, kind: Kind, detail: str, errors: Sequence[Fault] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.kind: Kind = kind
        self.answer = problem(kind, detail, errors, headers)


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901).

    >>> pointer("records", 3, "in/out")
    '/records/3/in~1out'
    """
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)
