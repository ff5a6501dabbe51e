"""What two schemas ask of a record, where they differ."""

from dataclasses import dataclass

from nelbo.errors import SchemaChangedError
from nelbo.schema import Column, Schema
from nelbo.structs import has_integers

_NOTHING = "nothing"


@dataclass(frozen=True)
class Change:
    """One column of which records look otherwise.

    Attributes:
        column: its name.
        before: what a record held there.
        after: what it is to hold.
    """

    column: str
    before: str
    after: str


def changes(before: Schema, after: Schema) -> tuple[Change, ...]:
    """The columns for which whoever sends records would have to change them.

    What a fit learns anew each time is none: categories, rare ones, steps and spikes, nor the order of columns.

    >>> old = Schema(columns=(Column(name="rpm", role="field", kind="numeric", unit="1/min"),))
    >>> new = Schema(columns=(Column(name="rpm", role="field", kind="numeric", unit="1/s", nullable=True),))
    >>> changes(old, new)
    (Change(column='rpm', before='a number in 1/min', after='a number in 1/s, or none'),)
    """
    old, new = _asked(before), _asked(after)
    return tuple(
        Change(name, old.get(name, _NOTHING), new.get(name, _NOTHING))
        for name in old | new
        if old.get(name) != new.get(name)
    )


def refuse_changes(label: str, found: tuple[Change, ...], served: str) -> None:
    """Refuses a version that reads other records.

    Args:
        label: of the version.
        found: the changes, none where all is well.
        served: label of the version that it would replace.

    Raises:
        SchemaChangedError: naming both versions and every column.
    """
    if found:
        named = "; ".join(f"'{change.column}': {change.before} → {change.after}" for change in found)
        detail = f"'{label}' reads other records than '{served}', which is live: {named}; it can be forced"
        raise SchemaChangedError(detail, [(change.column, change.before, change.after) for change in found])


def _asked(schema: Schema) -> dict[str, str]:
    others = {"(any other name)": "an error" if schema.extra == "refuse" else "ignored"}
    return {column.name: _in_words(column) for column in schema.columns} | others


def _in_words(column: Column) -> str:
    if column.role != "field":
        return "an id" if column.role == "id" else "anything, not scored"
    unit = f" in {column.unit}" if column.unit else ""
    return _value(column) + unit + (", or none" if column.nullable else "")


def _value(column: Column) -> str:
    match column.kind:
        case "numeric":
            return "a number"
        case "boolean":
            return "true or false"
        case "timestamp":
            return "a time"
        case _:
            return "a category, whole number" if has_integers(column) else "a category, text"
