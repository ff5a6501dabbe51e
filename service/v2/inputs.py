"""Inputs against a schema: which tensors a model takes, and the records that they hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.errors import BodyError, TooManyRecordsError
from nelbo.records import Batch, RecordDecoder, expectation, shown
from nelbo.schema import Column, Schema
from nelbo.structs import has_integers, seconds_since_1970
from service.v2.tensors import INTEGERS, Tensor, Values, values_of, wrong


def datatypes(column: Column) -> tuple[str, ...]:
    """The datatypes that a field's tensor may have; the first one is declared."""
    match column.kind:
        case "numeric":
            return ("FP64", "FP32", *INTEGERS)
        case "boolean":
            return ("BOOL",)
        case "timestamp":
            return ("FP64", "INT64", "BYTES")  # FP32 resolves two minutes of the seconds since 1970
        case _:
            return ("INT64", *INTEGERS) if has_integers(column) else ("BYTES",)


def example_inputs(schema: Schema, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs of a request for one record."""
    values = ((field, record[field.name]) for field in schema.fields if field.name in record)
    return [
        {"name": field.name, "shape": [1], "datatype": _declared(field, value), "data": [value]}
        for field, value in values
    ]


def _declared(field: Column, value: object) -> str:
    return "BYTES" if isinstance(value, str) else datatypes(field)[0]


def batch_of(decoder: RecordDecoder, tensors: Sequence[Tensor], max_records: int) -> Batch:
    """The records that the tensors hold: one tensor a field, or all numbers in one of shape [n, n_fields].

    Args:
        decoder: of the model.
        tensors: as they were sent.
        max_records: of one request.

    Raises:
        TooManyRecordsError: there are more.
        BodyError: naming the input, what was expected and what was found.
    """
    if not tensors:
        raise BodyError("inputs: expected at least one, got none")
    for tensor in tensors:
        if tensor.shape and tensor.shape[0] > max_records:
            raise TooManyRecordsError(f"expected at most {max_records} records, got {tensor.shape[0]}")
    if _is_table(decoder.schema, tensors):
        return _from_table(decoder, tensors[0])
    columns: dict[str, Any] = {}
    for tensor in tensors:
        column = _column(decoder, tensor)
        if tensor.name in columns:
            raise BodyError(f"input '{tensor.name}': expected it once, got it several times")
        _refuse_other_form(tensor, column, tensors[0])
        columns[tensor.name] = _cells(tensor, column)
    for field in decoder.schema.fields:
        if field.name not in columns and not field.nullable:
            raise BodyError(f"input '{field.name}': expected it, for this field cannot be left out; got none")
    return decoder.columns(columns, np.arange(tensors[0].shape[0]))


def _is_table(schema: Schema, tensors: Sequence[Tensor]) -> bool:
    """Whether the only tensor is meant to hold all fields."""
    first, fields = tensors[0], schema.fields
    is_field = first.name in schema.positions and first.shape[1:] in ((), (1,))
    return len(tensors) == 1 and not is_field and all(field.kind == "numeric" for field in fields)


def _from_table(decoder: RecordDecoder, tensor: Tensor) -> Batch:
    names = list(decoder.schema.positions)
    if tensor.shape[1:] != (len(names),):
        expected = f"shape [n, {len(names)}] for all fields of {decoder.name} or the name of a field"
        raise wrong(tensor, expected, f"shape {list(tensor.shape)}")
    _refuse_other_datatype(tensor, decoder.schema.fields[0])
    numbers = _as_floats(values_of(tensor)).reshape(tensor.shape)
    n = len(numbers)
    return Batch(
        numbers, np.empty((n, 0), np.int64), np.arange(n), [None] * n, dict(zip(names, numbers.T, strict=True))
    )


def _column(decoder: RecordDecoder, tensor: Tensor) -> Column:
    position = decoder.schema.positions.get(tensor.name)
    if position is None:
        n = len(decoder.schema.fields)
        raise wrong(tensor, f"the name of one of the {n} fields of {decoder.name}", "another name")
    return decoder.schema.fields[position]


def _refuse_other_form(tensor: Tensor, column: Column, first: Tensor) -> None:
    _refuse_other_datatype(tensor, column)
    if not tensor.shape or tensor.shape[1:] not in ((), (1,)):
        raise wrong(tensor, "shape [n] or [n, 1]", f"shape {list(tensor.shape)}")
    if tensor.shape[0] != first.shape[0]:
        expected = f"{first.shape[0]} records, as in input '{first.name}'"
        raise wrong(tensor, expected, str(tensor.shape[0]))


def _refuse_other_datatype(tensor: Tensor, column: Column) -> None:
    if tensor.datatype not in datatypes(column):
        raise wrong(tensor, f"datatype {', '.join(datatypes(column))}", shown(tensor.datatype))


def _cells(tensor: Tensor, column: Column) -> Values:
    """What the decoder of typed columns takes."""
    values = values_of(tensor)
    if not column.is_coded and tensor.datatype != "BYTES":
        return _as_floats(values)
    cells = values.tolist() if isinstance(values, np.ndarray) else values
    if column.kind == "timestamp":
        return [_moment(tensor, column, i, cell) for i, cell in enumerate(cells)]
    return cells


def _moment(tensor: Tensor, column: Column, i: int, text: str | None) -> float | None:
    try:
        return None if text is None else seconds_since_1970(text)
    except ValueError as error:
        raise wrong(tensor, expectation(column), shown(text), i) from error


def _as_floats(values: Values) -> NDArray[np.float64]:
    """As the graph takes them, null as NaN."""
    return np.asarray(values, dtype=np.float64)
