import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from nelbo.errors import BodyError
from service.v2.tensors import FLOATS, INTEGERS, Tensor, numbers_of, values_of

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


def json(data: str, datatype: str = "FP64", shape: tuple[int, ...] = (2,)) -> Any:
    return listed(Tensor("x", datatype, shape, Raw(data.encode())))


def binary(data: bytes, datatype: str, shape: tuple[int, ...] = (2,)) -> Any:
    return listed(Tensor("x", datatype, shape, memoryview(data)))


def listed(tensor: Tensor) -> Any:
    values = values_of(tensor)
    return values.tolist() if isinstance(values, np.ndarray) else values


# --- JSON -------------------------------------------------------------------------------------------


@given(st.lists(FINITE))
def test_simdjson_reads_the_numbers_that_msgspec_reads(numbers: list[float]) -> None:
    text = msgspec.json.encode(numbers)
    found = numbers_of(text, (len(numbers),))
    # It leaves integers beyond 64 bits to msgspec.
    if all(isinstance(number, float) or -(2**63) <= number < 2**64 for number in numbers):
        assert found is not None
        assert found.tolist() == [float(number) for number in numbers]
    else:
        assert found is None


@pytest.mark.parametrize(
    "text",
    [
        "[1,true]",
        "[1,null]",
        '[1,"2"]',
        "[1e400]",
        "[NaN]",
        "[1,]",
        "[01]",
        "[1]x",
        "[[1,2],[3]]",
        "[[1],2]",
        "[{}]",
        "{}",
        "1",
    ],
)
def test_what_is_no_list_of_numbers_is_left_to_who_can_say_why(text: str) -> None:
    assert numbers_of(text.encode(), (1,)) is None


@pytest.mark.parametrize(
    "text", ["[[1,2,3],[4]]", "[[1,2],[[3,4]]]", "[[[1,2],[3,4]]]", "[[1,2],[3,4],5]", "[1,2,[3,4]]"]
)
def test_rows_of_unequal_lengths_or_depths_are_no_rows(text: str) -> None:
    assert numbers_of(text.encode(), (2, 2)) is None


@pytest.mark.parametrize("padding", [0, 1000])  # a long text is read by another library
@pytest.mark.parametrize(
    ("data", "shape", "values"),
    [
        ("[1, 2.5]", (2,), [1.0, 2.5]),
        ("[1, 2]", (2, 1), [1.0, 2.0]),
        ("[[1], [2]]", (2, 1), [1.0, 2.0]),
        ("[1, 2, 3, 4]", (2, 2), [1.0, 2.0, 3.0, 4.0]),
        ("[[1, 2], [3, 4]]", (2, 2), [1.0, 2.0, 3.0, 4.0]),
        ("[1, null]", (2,), [1.0, None]),
        ("[[1, null]]", (1, 2), [1.0, None]),
        ("[1180591620717411303424]", (1,), [2.0**70]),
        ("[]", (0,), []),
        ("[]", (0, 3), []),
    ],
)
def test_json_may_be_flat_or_in_rows(data: str, shape: tuple[int, ...], values: list[Any], padding: int) -> None:
    assert json(data + " " * padding, shape=shape) == values


@pytest.mark.parametrize("padding", [0, 1000])
@pytest.mark.parametrize(
    ("data", "datatype", "shape", "detail"),
    [
        ("[1, true]", "FP32", (2,), "input 'x', value 1: expected a number, got true"),
        ('[1, "2"]', "FP64", (2,), "input 'x', value 1: expected a number, got '2'"),
        ("[1, 1e400]", "FP64", (2,), "input 'x', value 1: expected a number, got 1e400"),
        ("[[1], [true]]", "FP64", (2, 1), "input 'x', value 1: expected a number, got true"),
        ("[[1, 2], [3]]", "FP64", (2, 2), "input 'x', row 1: expected a list of 2 values, got 1 values"),
        ("[[1, 2, 3], [4]]", "FP64", (2, 2), "input 'x', row 0: expected a list of 2 values, got 3 values"),
        ("[[1], 2]", "FP64", (2, 1), "input 'x', row 1: expected a list of 1 values, got 2"),
        ("[[1], [2]]", "FP64", (2,), "input 'x', value 0: expected a number, got [1]"),
        ("[1]", "FP64", (2,), "input 'x': expected 2 values for its shape [2], got 1"),
        ("[1, 2, 3]", "FP64", (2, 1), "input 'x': expected 2 values for its shape [2, 1], got 3"),
        ("7", "FP64", (1,), "input 'x': expected data that is a list, got 7"),
        ("[1, 1.5]", "INT32", (2,), "input 'x', value 1: expected an integer, got 1.5"),
        ("[1, true]", "INT32", (2,), "input 'x', value 1: expected an integer, got true"),
        ("[1, 128]", "INT8", (2,), "input 'x', value 1: expected an integer from -128 to 127, got 128"),
        ("[1, -1]", "UINT64", (2,), "input 'x', value 1: expected an integer from 0 to 18446744073709551615, got -1"),
        ("[true, 1]", "BOOL", (2,), "input 'x', value 1: expected true or false, got 1"),
        ('["a", 1]', "BYTES", (2,), "input 'x', value 1: expected a string, got 1"),
    ],
)
def test_json_of_another_type_is_never_coerced(
    data: str, datatype: str, shape: tuple[int, ...], detail: str, padding: int
) -> None:
    with pytest.raises(BodyError) as caught:
        json(data + " " * padding, datatype, shape)
    assert str(caught.value) == detail


# --- bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("datatype", "dtype"), [*FLOATS.items(), *INTEGERS.items()])
def test_binary_numbers_are_little_endian(datatype: str, dtype: str) -> None:
    assert dtype.startswith("<")
    assert binary(np.array([3, 100], dtype=dtype).tobytes(), datatype) == [3, 100]


def test_binary_numbers_may_start_anywhere_in_a_body() -> None:
    body = b"\x00" + np.array([1.5, 2.5]).tobytes()
    values = values_of(Tensor("x", "FP64", (2,), memoryview(body)[1:]))
    assert isinstance(values, np.ndarray)
    assert (values.tolist(), values.flags.aligned) == ([1.5, 2.5], True)


def test_binary_truth_values_and_texts_are_read() -> None:
    assert binary(b"\x00\x01", "BOOL") == [False, True]
    texts = b"".join(struct.pack("<I", len(text)) + text for text in ("é".encode(), b""))
    assert binary(texts, "BYTES") == ["é", ""]


@pytest.mark.parametrize(
    ("data", "datatype", "detail"),
    [
        (b"\0" * 7, "FP32", "input 'x': expected 8 bytes for 2 values of FP32, got 7"),
        (b"\0" * 9, "FP32", "input 'x': expected 8 bytes for 2 values of FP32, got 9"),
        (b"\0\2", "BOOL", "input 'x', value 1: expected 0 or 1, got 2"),
        (
            np.array([1, -np.inf]).tobytes(),
            "FP64",
            "input 'x', value 1: expected a finite number, or NaN for a missing one, got -inf",
        ),
        (b"\1\0\0\0\xff", "BYTES", "input 'x', value 0: expected UTF-8, got bytes that are not"),
        (
            b"\1\0\0\0a\2\0\0\0b",
            "BYTES",
            "input 'x', value 1: expected a length of four bytes and a text of that length, got 5 bytes",
        ),
        (
            b"\1\0",
            "BYTES",
            "input 'x', value 0: expected a length of four bytes and a text of that length, got 2 bytes",
        ),
        (b"\1\0\0\0a", "BYTES", "input 'x': expected 2 values for its shape [2], got 1"),
    ],
)
def test_binary_data_of_another_length_or_value_is_refused(data: bytes, datatype: str, detail: str) -> None:
    with pytest.raises(BodyError) as caught:
        binary(data, datatype)
    assert str(caught.value) == detail


def test_nan_in_binary_data_is_a_missing_value() -> None:
    assert np.isnan(binary(np.array([np.nan, 1], dtype="<f4").tobytes(), "FP32")).tolist() == [True, False]
