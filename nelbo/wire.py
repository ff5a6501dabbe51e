"""Messages of Protocol Buffers, read strictly.

What is not declared is refused, so that no reader after this one can find in the same bytes what was not looked at
here.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nelbo.errors import BundleError

# Wire types of the encoding: https://protobuf.dev/programming-guides/encoding/
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_WIRE_TYPE = {"int": _VARINT, "float": _FIXED32, "text": _BYTES, "bytes": _BYTES}

Found = dict[str, Any]

# Each field becomes an object or two, of which a file of 256 MB could ask for a hundred million. An export has 4,000.
_MOST_FIELDS = 200_000
_LONGEST_TEXT = 10_000  # bytes; an export has 40


@dataclass(frozen=True)
class Entry:
    """A field of a message.

    Attributes:
        name: as its specification calls it.
        kind: a message's own fields are declared with it.
        many: it may be there any number of times; the others once at most.
    """

    name: str
    kind: "Literal['int', 'float', 'text', 'bytes'] | Message"
    many: bool = False


@dataclass(frozen=True)
class Message:
    """The fields that a message may have, by number.

    Attributes:
        name: as its specification calls it.
        entries: what is read.
        refused: names of further fields of the specification, for the error.
    """

    name: str
    entries: Mapping[int, Entry]
    refused: Mapping[int, str] = field(default_factory=dict)


class Budget:
    """How many more fields are read.

    Args:
        left: of them.
    """

    def __init__(self, left: int = _MOST_FIELDS) -> None:
        self.left = left

    def spend(self) -> None:
        """One of them."""
        self.left -= 1
        if self.left < 0:
            raise BundleError("it has more parts than any model")


def read(data: memoryview, message: Message, budget: Budget | None = None) -> Found:
    r"""The fields of a message by name; lists of those that may repeat, None for one that is not there.

    As deep as the declaration and no deeper: nothing in the bytes makes it call itself.

    Raises:
        BundleError: a field that is not declared, is of another type, is there twice or ends beyond the message; or
            there are too many of them.

    >>> read(memoryview(b"\x08\x96\x01"), Message("Example", {1: Entry("n", "int")}))
    {'n': 150}
    """
    budget = budget or Budget()
    found: Found = {entry.name: [] if entry.many else None for entry in message.entries.values()}
    at = 0
    while at < len(data):
        budget.spend()
        tag, at = _varint(data, at)
        entry = _entry(message, tag >> 3)
        if tag & 7 != (_WIRE_TYPE[entry.kind] if isinstance(entry.kind, str) else _BYTES):
            raise BundleError(f"{message.name}.{entry.name} is of another type than declared")
        value, at = _value(data, at, tag & 7)
        _put(found, message, entry, value, budget)
    return found


def _entry(message: Message, number: int) -> Entry:
    if number in message.entries:
        return message.entries[number]
    name = f"'{message.refused[number]}'" if number in message.refused else f"an unknown field {number}"
    raise BundleError(f"{message.name} has {name}, which is not allowed")


def _value(data: memoryview, at: int, wire_type: int) -> tuple[Any, int]:
    if wire_type == _VARINT:
        return _varint(data, at)
    length, at = (4, at) if wire_type == _FIXED32 else _varint(data, at)
    if length > len(data) - at:
        raise BundleError("a field ends beyond the message that it is in")
    return data[at : at + length], at + length


def _put(found: Found, message: Message, entry: Entry, value: Any, budget: Budget) -> None:
    read_value = read(value, entry.kind, budget) if isinstance(entry.kind, Message) else _plain(value, entry.kind)
    if entry.many:
        found[entry.name].append(read_value)
    elif found[entry.name] is None:
        found[entry.name] = read_value
    else:
        # Some readers take the last one, some put both together.
        raise BundleError(f"{message.name}.{entry.name} is there twice")


def _plain(value: Any, kind: str) -> Any:
    if kind == "int":
        return value - (1 << 64) if value >> 63 else value
    if kind == "float":
        return struct.unpack("<f", value)[0]
    if kind == "text":
        if len(value) > _LONGEST_TEXT:
            raise BundleError(f"a text has {len(value)} bytes, more than any name")
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise BundleError("a text is not UTF-8") from error
    return value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, least significant group first; and where it ends."""
    found = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            if found >> 64 or (byte == 0 and shift):
                break  # more bits than there are, or a number written longer than it is
            return found, at
        shift += 7
    raise BundleError("a number is not written as numbers are")
