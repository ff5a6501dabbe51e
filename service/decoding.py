"""From the body of a scoring request to records: by the form that it is declared to have."""

from typing import NoReturn

import msgspec

from nelbo.errors import BodyError, RecordError, TooManyRecordsError
from nelbo.records import Batch, shown
from nelbo.scoring import Scorer
from service.problems import JSON, OF_ERROR, Fault, ProblemError, pointer
from service.request import ScoreRequest


def is_json(request: ScoreRequest) -> bool:
    """Whether the body is declared as JSON in UTF-8, not compressed."""
    if request.content_type == JSON and not request.content_encoding:
        return True  # most are
    media_type, *parameters = (part.strip().lower() for part in request.content_type.split(";"))
    is_utf8 = all(part in ("charset=utf-8", 'charset="utf-8"', "") for part in parameters)
    return media_type == JSON and is_utf8 and request.content_encoding in ("", "identity")


def expect_known_form(request: ScoreRequest) -> None:
    """Refuses a body that is declared to have a form that is not read here.

    Raises:
        ProblemError: naming the header.
    """
    if request.content_encoding not in ("", "identity"):
        detail = f"expected a body that is not compressed, got Content-Encoding {shown(request.content_encoding)}"
        raise ProblemError("unsupported-media-type", detail, headers={"accept-encoding": "identity"})
    if not is_json(request):
        found = shown(request.content_type) if request.content_type else "none"
        detail = f"expected Content-Type {JSON}, in UTF-8, got {found}"
        raise ProblemError("unsupported-media-type", detail, headers={"accept": JSON})


def decoded(scorer: Scorer, request: ScoreRequest, max_records: int, *, strict: bool) -> Batch:
    """The records of a request, and the errors of those that are wrong.

    Args:
        scorer: of the model.
        request: of a form that is known.
        max_records: the limit on records.
        strict: one wrong record refuses the request.

    Raises:
        ProblemError: the body is not of its form, holds too many records, or with `strict` a wrong one.
    """
    body = request.body
    try:
        batch = scorer.decoder.json(body, max_records)
    except TooManyRecordsError as error:
        raise ProblemError(OF_ERROR[type(error)], str(error)) from error
    except BodyError as error:
        kind = OF_ERROR[type(error)] if _is_json(body) else "not-json"
        faults = [Fault(str(error), pointer=error.pointer)] if error.pointer or kind != "not-json" else []
        raise ProblemError(kind, str(error), faults) from error
    if strict and batch.errors:
        _refuse_records(body, batch)
    return batch


def _is_json(body: bytes) -> bool:
    """Whether a refused body is JSON at all; only then its shape can be what is wrong."""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return True  # a number beyond any float: still JSON
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _refuse_records(body: bytes, batch: Batch) -> NoReturn:
    by_column = "columns" in msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    faults = [
        Fault(str(error), pointer=_place(error, by_column=by_column), expected=error.expected, found=error.found)
        for error in batch.errors
    ]
    n, total = len(faults), batch.n_records
    raise ProblemError(OF_ERROR[RecordError], f"{n} of {total} records cannot be scored, and strict=true", faults)


def _place(error: RecordError, *, by_column: bool) -> str:
    if error.field is None:
        return pointer("columns") if by_column else pointer("records", error.index)
    steps = ("columns", error.field, error.index) if by_column else ("records", error.index, error.field)
    return pointer(*steps)
