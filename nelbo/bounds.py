"""What a stranger's JSON file may cost: how much of it is parsed, and that its first fault ends the reading.

A file of a few MB that is wrong a million times would otherwise take seconds and GB to refuse: pydantic goes on after
an error, and lists every one with what was there.
"""

from typing import Annotated, TypeVar

from pydantic import FailFast, ValidationError

from nelbo.characters import count_outside_strings

_T = TypeVar("_T")

# A list of which the first wrong member ends the reading.
Many = Annotated[tuple[_T, ...], FailFast()]

# What a file holds at most, by the colons and commas outside its strings: a schema of 2,500 columns has some 20,000
# keys, 16 golden records of them 40,000; a calibration of 600,000 records 1,800,000 values. To refuse a reference of
# 50,000 wrong keys takes 110 MB, to parse 2,000,000 numbers 340 MB (measured 2026-11-25).
_MOST_KEYS, _MOST_VALUES = 50_000, 2_000_000


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The place of the first fault in the file, and what is wrong there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(map(str, first["loc"])) or "the file", first["msg"].removeprefix("Value error, ")


def too_much(text: bytes) -> str | None:
    """Why a JSON file is not even parsed; None if it is of a bearable size.

    >>> too_much(b'{"a": [1, 2]}')
    """
    n_keys, n_values = (count_outside_strings(text, mark) for mark in (b":", b","))
    if n_keys > _MOST_KEYS:
        return f"expected at most {_MOST_KEYS} keys, got {n_keys}"
    if n_values > _MOST_VALUES:
        return f"expected at most {_MOST_VALUES} values, got {n_values}"
    return None
