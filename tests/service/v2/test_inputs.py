from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import Raw

from nelbo.errors import BodyError, TooManyRecordsError
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Column, Kind, Schema
from nelbo.structs import MISSING
from service.v2.inputs import batch_of
from service.v2.tensors import Tensor


def field(name: str, kind: Kind = "numeric", **rest: Any) -> Column:
    return Column(name=name, role="field", kind=kind, **rest)


A, B, KIND = field("a"), field("b", nullable=True), field("kind", "categorical", categories=("L", "M"), rare=("H",))
GRADE, HEATED, MOMENT = (
    field("grade", "categorical", categories=(1, 2)),
    field("heated", "boolean"),
    field("at", "timestamp"),
)


def tensor(name: str, data: object, datatype: str = "FP64", shape: list[int] | None = None) -> Tensor:
    encoded = msgspec.json.encode(data)
    return Tensor(name, datatype, tuple(shape or [len(data) if isinstance(data, list) else 1]), Raw(encoded))


def batch(columns: list[Column], *tensors: Tensor) -> Batch:
    return batch_of(RecordDecoder(Schema(columns=tuple(columns)), "m@1"), tensors, max_records=3)


def refused(columns: list[Column], *tensors: Tensor) -> str:
    with pytest.raises(BodyError) as caught:
        batch(columns, *tensors)
    return str(caught.value)


def test_each_tensor_is_the_field_of_its_name() -> None:
    found = batch([A, B, KIND], tensor("kind", ["M", "?"], "BYTES"), tensor("b", [3, 4]), tensor("a", [1, 2], "INT8"))
    assert (found.numbers.tolist(), found.codes.tolist()) == ([[1, 3], [2, 4]], [[1], [KIND.unseen_code]])


def test_tensors_and_records_make_the_same_batch() -> None:
    columns = [A, B, KIND, GRADE, HEATED, MOMENT]
    records: list[dict[str, Any]] = [
        {"a": 1, "b": None, "kind": "H", "grade": 2, "heated": True, "at": "2024-02-03T04:05:06+01:00"},
        {"a": 2.5, "b": 7, "kind": None, "grade": 9, "heated": None, "at": None},
    ]
    kinds = {"kind": "BYTES", "grade": "INT64", "heated": "BOOL", "at": "BYTES"}
    tensors = [tensor(n, [record[n] for record in records], kinds.get(n, "FP64")) for n in records[0]]
    expected = RecordDecoder(Schema(columns=tuple(columns))).objects(records)
    found = batch(columns, *tensors)
    assert np.array_equal(found.numbers, expected.numbers, equal_nan=True)
    assert np.array_equal(found.codes, expected.codes)
    assert (found.index.tolist(), found.ids, found.errors) == ([0, 1], [None, None], ())


def test_a_nullable_field_may_be_left_out_and_another_may_not() -> None:
    assert np.isnan(batch([A, B], tensor("a", [1])).numbers).tolist() == [[False, True]]
    assert refused([A, B], tensor("b", [1])) == "input 'a': expected it, for this field cannot be left out; got none"


def test_null_is_a_missing_value_of_every_kind() -> None:
    found = batch([A, KIND], tensor("a", [None]), tensor("kind", [None], "BYTES"))
    assert (np.isnan(found.numbers).tolist(), found.codes.tolist()) == ([[True]], [[MISSING]])


def test_seconds_since_1970_are_a_time_in_double_precision_alone() -> None:
    assert batch([MOMENT], tensor("at", [86400], "INT64")).numbers.tolist() == [[86400.0]]
    assert (
        refused([MOMENT], tensor("at", [86400], "FP32"))
        == "input 'at': expected datatype FP64, INT64, BYTES, got 'FP32'"
    )


def test_a_text_that_is_no_time_is_refused() -> None:
    expected = "an ISO 8601 date and time, or seconds since 1970"
    found = refused([MOMENT], tensor("at", ["2024-02-03", "soon"], "BYTES"))
    assert found == f"input 'at', value 1: expected {expected}, got 'soon'"


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_numbers_alone_may_come_in_one_tensor_of_any_name(data: object) -> None:
    table = batch([A, B], tensor("x", data, "FP32", [2, 2]))
    by_field = batch([A, B], tensor("a", [1, 3]), tensor("b", [2, 4]))
    assert table.numbers.tolist() == by_field.numbers.tolist() == [[1, 2], [3, 4]]
    assert {name: list(values) for name, values in table.values.items()} == {"a": [1, 3], "b": [2, 4]}
    assert (table.codes.shape, table.index.tolist(), table.ids) == ((2, 0), [0, 1], [None, None])


def test_binary_numbers_of_32_bits_become_a_contiguous_table_of_64() -> None:
    values = np.array([[0.5, np.nan]], dtype="<f4")
    numbers = batch([A, B], Tensor("x", "FP32", (1, 2), memoryview(values.tobytes()))).numbers
    assert (numbers.dtype.name, numbers.flags.c_contiguous) == ("float64", True)
    assert np.array_equal(numbers, [[0.5, np.nan]], equal_nan=True)


def test_a_table_of_one_field_may_have_its_name_or_another() -> None:
    assert batch([A], tensor("a", [1, 2], shape=[2, 1])).numbers.tolist() == [[1], [2]]
    assert batch([A], tensor("x", [1, 2], shape=[2, 1])).numbers.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("columns", "tensors", "detail"),
    [
        ([A], [], "inputs: expected at least one, got none"),
        (
            [A, B],
            [tensor("x", [1, 2, 3], shape=[1, 3])],
            "input 'x': expected shape [n, 2] for all fields of m@1 or the name of a field, got shape [1, 3]",
        ),
        (
            [A, KIND],
            [tensor("x", [1, 2], shape=[1, 2])],
            "input 'x': expected the name of one of the 2 fields of m@1, got another name",
        ),
        (
            [A, B],
            [tensor("a", [1]), tensor("x", [1])],
            "input 'x': expected the name of one of the 2 fields of m@1, got another name",
        ),
        ([A, B], [tensor("a", [1]), tensor("a", [1])], "input 'a': expected it once, got it several times"),
        ([A, B], [tensor("a", [1]), tensor("b", [1, 2])], "input 'b': expected 1 records, as in input 'a', got 2"),
        ([A, KIND], [tensor("a", [1, 2], shape=[1, 2])], "input 'a': expected shape [n] or [n, 1], got shape [1, 2]"),
        ([KIND], [tensor("kind", [1], "INT64")], "input 'kind': expected datatype BYTES, got 'INT64'"),
        ([HEATED], [tensor("heated", [1], "UINT8")], "input 'heated': expected datatype BOOL, got 'UINT8'"),
        ([A, B], [tensor("x", [True] * 2, "BOOL", [1, 2])], None),
        ([GRADE], [tensor("grade", ["1"], "BYTES")], None),
        ([A], [tensor("a", [1], "FP128")], None),
        ([A], [tensor("a", [1], shape=[1, 1, 1])], None),
        ([A], [Tensor("a", "FP64", (), Raw(b"[1]"))], None),
    ],
)
def test_tensors_that_do_not_fit_the_schema_are_refused(
    columns: list[Column], tensors: list[Tensor], detail: str | None
) -> None:
    found = refused(columns, *tensors)
    assert found == detail or (detail is None and found.startswith("input '"))


def test_more_records_than_the_limit_are_refused_before_their_data_is_read() -> None:
    with pytest.raises(TooManyRecordsError, match=r"^expected at most 3 records, got 4$"):
        batch([A], tensor("a", "no list", shape=[4]))


def test_no_records_are_a_batch() -> None:
    assert len(batch([A, B], Tensor("x", "FP64", (0, 2), Raw(b"[]")))) == 0
