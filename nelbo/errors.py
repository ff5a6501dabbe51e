"""Everything that can be wrong with what nelbo is given.

NelboError
├── SchemaError        a schema, or a table's columns against one
├── TableError         a file of records that cannot be read or fitted
├── BodyError          a body of records that cannot be read at all
│   ├── NotJsonError   a body that is no JSON at all, so that nothing can be said of its shape
│   └── TooManyRecordsError  a body of more records than its reader takes
├── RecordError        one record; carries its index, field, expected and found
├── BundleError        a bundle that is damaged, or not what it says
├── TrustError         a file of pinned keys, or a key of one's own, that cannot be used
├── StoreError         the store of models cannot be read
│   ├── UnknownVersionError  a model, version or alias that is not there
│   └── StoreWriteError      the store may not be changed, or cannot be
├── SchemaChangedError  a version reads other records than the one that it would replace; carries the changes
├── IntentError        a wish about false alarms that means nothing; carries the parameter's name
└── CalibrationError   a rate that the calibration records do not carry, a score that is no number

A programming mistake is a `TypeError` or an `AssertionError`, never one of these.
"""

from collections.abc import Sequence

_SHOWN = 60  # characters of a name or a wrong value that an error repeats
_LONGEST = 1_000  # characters of a text that quotes a stranger's file; chosen, longer than any of ours


def one_line(text: str) -> str:
    """A text that quotes a stranger's file, as one line of bounded length that moves no terminal's cursor."""
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def shortened(text: str) -> str:
    """A text as an error repeats it, cut to a line.

    >>> shortened("a" * 100) == "a" * 60 + "…"
    True
    """
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class NelboError(Exception):
    """What every error below is; its text is meant for a person who can act on it."""


class SchemaError(NelboError):
    """A schema is wrong, or a table does not fit it."""


class TableError(NelboError):
    """A file of records cannot be read or fitted."""


class BodyError(NelboError):
    """A body of records cannot be read at all.

    Args:
        detail: where, what was expected, what was found.
        pointer: JSON pointer to the place, "" for the whole body.
    """

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class NotJsonError(BodyError):
    """A body is no JSON."""


class TooManyRecordsError(BodyError):
    """A body holds more records than its reader takes."""


class RecordError(NelboError):
    """One record cannot be scored; the others can.

    Args:
        index: position of the record in its body or file, from 0.
        field: name of the field, or None where the record as a whole is wrong.
        expected: what would have been right.
        found: what was there; a value of the record, so for its sender only, never for a log.
    """

    def __init__(self, index: int, field: str | None, expected: str, found: str) -> None:
        self.index, self.field, self.expected, self.found = index, field, expected, found
        where = f"record {index}" if field is None else f"record {index}, field '{shortened(field)}'"
        super().__init__(f"{where}: expected {expected}, got {found}")


class BundleError(NelboError):
    r"""A bundle is damaged, or not what its manifest says.

    Its text may quote a stranger's file, so it is printable.

    >>> str(BundleError("constant 'a\x1b[2K\nb' is of type 8"))
    "constant 'a\\x1b[2K\\nb' is of type 8"
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class TrustError(NelboError):
    """A file of pinned keys, or a key to sign with, cannot be used."""


class StoreError(NelboError):
    """The store of models cannot be read."""


class UnknownVersionError(StoreError):
    """A model, version or alias is not in the store."""


class StoreWriteError(StoreError):
    """The store may not be changed, or cannot be."""


class SchemaChangedError(NelboError):
    """A version reads other records than the one that it would replace.

    Args:
        detail: which versions, and every column that differs.
        changes: of each column, its name, what the records held before and what they would hold.
    """

    def __init__(self, detail: str, changes: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(detail)
        self.changes = tuple(changes)


class IntentError(NelboError):
    """A wish about false alarms is no such wish.

    Args:
        parameter: its name.
        expected: what would have been right.
        found: what was there.
    """

    def __init__(self, parameter: str, expected: str, found: str) -> None:
        self.parameter, self.expected, self.found = parameter, expected, found
        super().__init__(f"{parameter}: expected {expected}, got {found}")


class CalibrationError(NelboError):
    """The calibration records do not carry what is asked of them, or a score is no number."""
