"""What the query of a scoring request asks for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn, get_args
from urllib.parse import parse_qsl

from nelbo.errors import IntentError
from nelbo.intent import Intent, intent_of
from nelbo.records import shown
from nelbo.results import Explain
from service.problems import Fault, ProblemError

_WINDOW = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?", re.ASCII)
_EXPLAIN: tuple[Explain, ...] = get_args(Explain)
_NUMBERS = ("rate", "confidence", "max_false_alarms", "records_per_s", "fdr")
PARAMETERS = (*_NUMBERS, "per", "window", "explain", "strict")


@dataclass(frozen=True)
class Query:
    """The wish of one request.

    Attributes:
        intent: what is wished of false alarms; empty for the bundle's own rate.
        window: records of a stream that a false discovery rate holds for; None where none are named.
        explain: which records get contributions.
        strict: one wrong record refuses the request.
    """

    intent: Intent = field(default_factory=Intent)
    explain: Explain = "flagged"
    strict: bool = False
    window: int | None = None


@lru_cache(maxsize=256)  # a client asks the same again and again
def parse_query(text: str) -> Query:
    """The wish in a query string.

    Raises:
        ProblemError: naming the first parameter that is unknown, repeated or ill-formed.
    """
    found = parameters(text, PARAMETERS)
    return Query(
        _intent(found), _explain(found.get("explain")), _strict(found.get("strict")), _window(found.get("window"))
    )


def parameters(text: str, known: Sequence[str]) -> dict[str, str]:
    """The parameters in a query string, by name.

    Args:
        text: the query, not decoded.
        known: the names that may occur, each once.

    Raises:
        ProblemError: naming the first that is another, or repeated.
    """
    found: dict[str, str] = {}
    for name, value in _pairs(text):
        if name not in known:
            refuse(name, f"one of {', '.join(known)}", f"the name {shown(name)}")
        if name in found:
            refuse(name, "it once", "it several times")
        found[name] = value
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise ProblemError("wrong-query", "the query is not percent-encoded UTF-8") from error


def _intent(found: dict[str, str]) -> Intent:
    numbers = {name: _number(name, found[name]) for name in _NUMBERS if name in found}
    try:
        return intent_of(**numbers, per=found.get("per"))
    except IntentError as error:
        refuse(error.parameter, error.expected, error.found)


def _number(name: str, text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else refuse(name, "a number", shown(text))


def _explain(text: str | None) -> Explain:
    for choice in _EXPLAIN:
        if text == choice:
            return choice
    return "flagged" if text is None else refuse("explain", f"one of {', '.join(_EXPLAIN)}", shown(text))


def _strict(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        refuse("strict", "true or false", shown(text))
    return text == "true"


def _window(text: str | None) -> int | None:
    if text is None:
        return None
    return int(text) if _WINDOW.fullmatch(text) else refuse("window", "a whole number from 1 to 999999999", shown(text))


def expect_of_whole(query: Query) -> None:
    """Refuses what only a stream can be asked for.

    Raises:
        ProblemError: naming the parameter.
    """
    if query.window is not None:
        refuse("window", "it with JSON lines alone: any other body is one window", str(query.window))


def expect_of_stream(query: Query, fdr: float | None, max_window: int) -> None:
    """Refuses what a stream cannot be asked for: its answer begins before its records are known.

    Args:
        query: as it came.
        fdr: the false discovery rate that holds, if one does.
        max_window: the most records in a window.

    Raises:
        ProblemError: naming the parameter.
    """
    if query.strict:
        refuse("strict", "false with JSON lines, whose answer begins before the last record came", "true")
    if fdr is not None and query.window is None:
        refuse("window", f"it with JSON lines: a false discovery rate of {fdr:g} holds in each so many records", "none")
    if query.window is not None and fdr is None:
        refuse("window", "it beside a false discovery rate", "none")
    if query.window is not None and query.window > max_window:
        refuse("window", f"at most {max_window} records", str(query.window))


def refuse(name: str, expected: str, found: str) -> NoReturn:
    """Refuses a request for one of its parameters.

    Raises:
        ProblemError: naming it, what would have been right, and what was there.
    """
    detail = f"query parameter {shown(name)}: expected {expected}, got {found}"
    raise ProblemError("wrong-query", detail, [Fault(detail, parameter=name, expected=expected, found=found)])
