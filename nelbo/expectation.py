"""What is expected of a field, as a person reads it: the value, and between which ends nine normal ones of ten lie."""

from dataclasses import dataclass

from nelbo.intervals import Interval
from nelbo.schema import Category, Column

RARE = "a rare value"  # what several categories share has no name of its own


@dataclass(frozen=True)
class Expected:
    """What the other fields of a record make likely.

    Attributes:
        value: in the field's own unit and step, a category, or RARE; None of a timestamp, of which nothing is expected.
        low, high: of a numeric field that has an interval.
    """

    value: float | Category | None
    low: float | None = None
    high: float | None = None


def expected_number(field: Column, number: float, interval: Interval | None) -> Expected:
    """Of a numeric field or a timestamp.

    >>> expected_number(Column(name="rpm", role="field", kind="numeric", step=0.5), 1499.8, None)
    Expected(value=1500.0, low=None, high=None)
    """
    if field.kind == "timestamp":  # its hour and weekday, which the graph knows it by, name no moment
        return Expected(None)
    if interval is not None:
        return Expected(*interval.shown(number, field.step))
    if field.step:
        number = round(number / field.step) * field.step
    return Expected(float(f"{number:.6g}"))


def expected_category(field: Column, code: int) -> Expected:
    """Of a categorical or boolean field.

    >>> expected_category(Column(name="line", role="field", kind="categorical", categories=("A", "B")), 1).value
    'B'
    """
    return Expected(field.known[code] if code < len(field.known) else RARE)


def instead(field: Column, expected: Expected) -> float | Category | None:
    """What a record can hold in place of an odd value: one of the rare values by its name; None to leave it out.

    >>> field = Column(name="line", role="field", kind="categorical", categories=("A",), rare=("C", "D"))
    >>> instead(field, expected_category(field, field.rare_code))
    'C'
    """
    if field.is_coded and expected.value == RARE and RARE not in field.known:
        return field.rare[0] if field.rare else None
    return expected.value
