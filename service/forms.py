"""The forms that a body may have, and the one that an answer gets."""

from functools import lru_cache
from importlib.util import find_spec

from service.problems import JSON
from service.request import ScoreRequest

CSV = "text/csv"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

# What may stand behind each media type without changing what the body is.
_PARAMETERS = {
    JSON: ("charset=utf-8", 'charset="utf-8"'),
    NDJSON: ("charset=utf-8", 'charset="utf-8"'),
    CSV: ("charset=utf-8", 'charset="utf-8"', "header=present"),
    ARROW: (),
}
FORMS = tuple(_PARAMETERS)


@lru_cache(maxsize=256)  # a client declares the same again and again
def declared(content_type: str) -> str | None:
    """The form that a body is declared to have; None for one that is not read.

    >>> declared("text/csv; charset=UTF-8"), declared("text/csv; header=absent")
    ('text/csv', None)
    """
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type not in _PARAMETERS or not {*parameters} <= {*_PARAMETERS[media_type], ""}:
        return None
    return media_type


@lru_cache(maxsize=256)
def accepted(accept: str) -> str:
    """The form of an answer: what an `Accept` header likes best of what can be given, and JSON where that is nothing.

    >>> accepted("text/html, text/csv;q=0.5, */*;q=0.1"), accepted("image/png")
    ('text/csv', 'application/json')
    """
    best, found = 0.0, JSON
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        form = JSON if media_type in ("*/*", "application/*") else media_type
        weight = _weight(parameters)
        if form in FORMS and weight > best and is_at_hand(form):
            best, found = weight, form
    return found


def wants_json(request: ScoreRequest) -> bool:
    """Whether an answer is to be JSON, as most are."""
    return request.accept in ("", "*/*") or accepted(request.accept) == JSON


def is_at_hand(form: str) -> bool:
    """Whether a form can be read and written here: tables need a library that a service need not have."""
    return form not in (CSV, ARROW) or _has_pyarrow()


@lru_cache(maxsize=1)
def _has_pyarrow() -> bool:
    return find_spec("pyarrow") is not None


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
