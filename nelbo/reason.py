"""The reason of an alarm: one sentence in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nelbo.expectation import RARE, Expected
from nelbo.schema import Column

_MOST_ALSO = 5  # missing and unseen values that are named beside the causes; the others are counted. Chosen
_MOST_CHARACTERS = 60  # of a name or a value; chosen


@dataclass(frozen=True)
class Cause:
    """A field that makes a record odd.

    Attributes:
        field: of the schema.
        value: the record's own.
        expected: instead.
        is_unseen: a category that training did not see.
    """

    field: Column
    value: Any
    expected: Expected
    is_unseen: bool = False


def sentence(
    causes: Sequence[Cause],
    missing: Sequence[Column] = (),
    unseen: Sequence[tuple[Column, Any]] = (),
    *,
    are_enough: bool = True,
) -> str:
    """Why a record is odd.

    Args:
        causes: the field that makes it oddest first.
        missing: fields without a value.
        unseen: other fields of categories that training did not see, and these.
        are_enough: without the causes the record looks usual.

    >>> torque = Column(name="torque", role="field", kind="numeric", unit="Nm")
    >>> line = Column(name="line", role="field", kind="categorical")
    >>> sentence([Cause(torque, 97, Expected(42.0, 38.0, 47.0)), Cause(line, "Z", Expected("A"), is_unseen=True)])
    "torque 97 Nm, expected 42 (38–47); line 'Z', never seen in training, expected 'A'"
    >>> sentence([], [torque], are_enough=False)
    'no few fields explain it; also: torque is missing'
    """
    parts = [_of_cause(cause) for cause in causes]
    if not are_enough:
        parts.append("these explain only a part of it" if causes else "no few fields explain it")
    also = [f"{_name(field)} {_shown(value)}, never seen in training" for field, value in unseen]
    also += [f"{_name(field)} is missing" for field in missing]
    if also:
        more = [f"and {len(also) - _MOST_ALSO} more"] if len(also) > _MOST_ALSO else []
        parts.append("also: " + "; ".join([*also[:_MOST_ALSO], *more]))
    return "; ".join(parts)


def _of_cause(cause: Cause) -> str:
    field, expected = cause.field, cause.expected
    text = f"{_name(field)} {_shown(cause.value)}{'' if field.unit is None else ' ' + _one_line(field.unit)}"
    if cause.is_unseen:
        text += ", never seen in training"
    if expected.value is None or expected.value == cause.value:
        return f"{text}, unusual beside the others"
    usual = RARE if expected.value == RARE and RARE not in field.known else _shown(expected.value)
    between = "" if expected.low is None else f" ({_shown(expected.low)}–{_shown(expected.high)})"
    return f"{text}, expected {usual}{between}"


def _name(field: Column) -> str:
    """A field's name, without the unit in brackets that stands behind the value as well."""
    return _one_line(field.name.removesuffix(f"[{field.unit}]").rstrip() or field.name)


def _shown(value: Any) -> str:
    """A value as a person writes it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):  # a count of millions is read digit by digit
        return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"
    if value is None:  # JSON has no other word for it, and a missing value is no cause
        return "infinite"
    return _cut(repr(value))


def _one_line(name: str) -> str:
    return _cut(name if name.isprintable() else repr(name))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"
