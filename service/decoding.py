"""From the body of a scoring request to records: by the form that it is declared to have."""

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import msgspec
from msgspec import UNSET

from nelbo.errors import BodyError, NotJsonError, RecordError, SchemaError, TableError, TooManyRecordsError
from nelbo.records import Batch, RecordDecoder, shown
from nelbo.scoring import Scorer
from service.forms import CSV, FORMS, declared, is_at_hand
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
    if is_json(request):
        return
    form, found = declared(request.content_type), shown(request.content_type) if request.content_type else "none"
    readable = [known for known in FORMS if is_at_hand(known)]
    expected = f"expected Content-Type {', '.join(readable)}"
    if form is None:
        detail = f"{expected}, text in UTF-8, got {found}"
    elif form not in readable:
        detail = f"{expected}; {form} needs the files extra: pip install 'nelbo[files]'"
    else:
        return
    raise ProblemError("unsupported-media-type", detail, headers={"accept": ", ".join(readable)})


def decoded(scorer: Scorer, request: ScoreRequest, max_records: int, *, strict: bool) -> Batch:
    """The records of a request, and the errors of those that are wrong.

    Args:
        scorer: of the model.
        request: of a form that is known, and no stream.
        max_records: the limit on records.
        strict: one wrong record refuses the request.

    Raises:
        ProblemError: the body is not of its form, holds too many records, or with `strict` a wrong one.
    """
    form = JSON if is_json(request) else declared(request.content_type)
    try:
        batch = _read(form, request.body, scorer.decoder, max_records)
    except (TooManyRecordsError, SchemaError) as error:
        raise ProblemError(OF_ERROR[type(error)], str(error)) from error
    except TableError as error:
        raise ProblemError("not-csv" if form == CSV else "not-arrow", str(error)) from error
    except BodyError as error:
        is_placed = error.pointer or not isinstance(error, NotJsonError)
        faults = [Fault(str(error), pointer=error.pointer)] if is_placed else []
        raise ProblemError(OF_ERROR[type(error)], str(error), faults) from error
    if strict and batch.errors:
        _refuse_records(batch, _places(request.body) if form == JSON else None)
    return batch


def _read(form: str | None, body: bytes, decoder: RecordDecoder, max_records: int) -> Batch:
    if form == JSON:
        return decoder.json(body, max_records)
    from nelbo import buffers  # noqa: PLC0415  # pyarrow: not before somebody sends a table

    return (buffers.read_csv if form == CSV else buffers.read_arrow)(body, decoder, max_records)


Place = Callable[[RecordError], str]  # from an error to a JSON pointer


def _refuse_records(batch: Batch, place: Place | None) -> NoReturn:
    faults = [
        Fault(str(error), pointer=place(error) if place else UNSET, expected=error.expected, found=error.found)
        for error in batch.errors
    ]
    n, total = len(faults), batch.n_records
    raise ProblemError(OF_ERROR[RecordError], f"{n} of {total} records cannot be scored, and strict=true", faults)


def _places(body: bytes) -> Place:
    """Where in a JSON body the cause of an error stands."""
    by_column = "columns" in msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return partial(_place, by_column=by_column)


def _place(error: RecordError, *, by_column: bool) -> str:
    if error.field is None:
        return pointer("columns") if by_column else pointer("records", error.index)
    steps = ("columns", error.field, error.index) if by_column else ("records", error.index, error.field)
    return pointer(*steps)
