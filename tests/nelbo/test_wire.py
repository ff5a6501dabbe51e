import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.admission import admit
from nelbo.errors import BundleError
from nelbo.wire import Budget, Entry, Found, Message, read
from tests.bundles import pump_graph

INNER = Message("Inner", {1: Entry("n", "int")})
OUTER = Message(
    "Outer",
    {
        1: Entry("n", "int"),
        2: Entry("text", "text"),
        3: Entry("inner", INNER),
        4: Entry("many", "int", many=True),
        5: Entry("x", "float"),
    },
    {9: "code"},
)


def found(data: bytes) -> Found:
    return read(memoryview(data), OUTER)


def refusal(data: bytes) -> str:
    with pytest.raises(BundleError) as info:
        found(data)
    return str(info.value)


def test_fields_are_read_by_name() -> None:
    data = b"\x08\xac\x02\x12\x02hi\x1a\x02\x08\x07\x20\x01\x20\x02\x2d\x00\x00\x80\x3f"
    assert found(data) == {"n": 300, "text": "hi", "inner": {"n": 7}, "many": [1, 2], "x": 1.0}


def test_negative_number_has_ten_groups() -> None:
    assert found(b"\x08" + b"\xff" * 9 + b"\x01")["n"] == -1


def test_fields_that_are_absent_are_none_or_empty() -> None:
    assert found(b"") == {"n": None, "text": None, "inner": None, "many": [], "x": None}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x38\x01", "Outer has an unknown field 7, which is not allowed"),
        (b"\x48\x01", "Outer has 'code', which is not allowed"),
        (b"\x0a\x01\x01", "Outer.n is of another type than declared"),
        (b"\x22\x01\x01", "Outer.many is of another type than declared"),
        (b"\x0b", "Outer.n is of another type than declared"),
        (b"\x08\x01\x08\x02", "Outer.n is there twice"),
        (b"\x1a\x00\x1a\x00", "Outer.inner is there twice"),
        (b"\x12\x05hi", "a field ends beyond the message that it is in"),
        (b"\x2d\x00", "a field ends beyond the message that it is in"),
        (b"\x1a\x03\x08\x01", "a field ends beyond the message that it is in"),
        (b"\x08", "a number is not written as numbers are"),
        (b"\x08\x80", "a number is not written as numbers are"),
        (b"\x08\x80\x00", "a number is not written as numbers are"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "a number is not written as numbers are"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "a number is not written as numbers are"),
        (b"\x12\x01\xff", "a text is not UTF-8"),
        (b"\x12\x91\x4e" + b"a" * 10_001, "a text has 10001 bytes, more than any name"),
    ],
)
def test_what_two_readers_could_take_differently_is_refused(data: bytes, text: str) -> None:
    assert refusal(data) == text


def test_number_of_fields_is_bounded() -> None:
    with pytest.raises(BundleError, match="it has more parts than any model"):
        read(memoryview(b"\x20\x01" * 11), OUTER, Budget(10))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        admit(data)
    except BundleError:
        return
    raise AssertionError("accepted")


@given(st.data())
def test_any_change_of_a_graph_is_read_or_refused(data: st.DataObject) -> None:
    graph = bytearray(pump_graph())
    for _ in range(data.draw(st.integers(1, 4))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        admit(bytes(graph))
