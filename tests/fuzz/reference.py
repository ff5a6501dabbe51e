"""What strict decoding means, written a second time: by Python's own JSON, slowly, cell by cell."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from nelbo.schema import Column, Schema
from nelbo.structs import code_table, has_integers, seconds_since_1970

DEEP = 100  # more brackets than these are left to chance: the decoder may take them or not
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"-?\d+")


class NotAtAllError(ValueError):
    """A text that is no JSON."""


class WrongBodyError(ValueError):
    """JSON that is no body of records."""


class WrongRecordError(ValueError):
    """A record that its schema does not take."""


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    text: str


@dataclass(frozen=True)
class Object:
    """An object with its names as they were written, those that stand twice twice."""

    pairs: tuple[tuple[str, Any], ...]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.pairs]


@dataclass(frozen=True)
class Row:
    """What a right record becomes."""

    numbers: list[float]
    codes: list[int]
    id: Any


def parsed(body: bytes) -> Any:
    """A JSON text.

    Raises:
        NotAtAllError: it is none.
    """
    try:
        return json.loads(
            body.decode(),
            object_pairs_hook=lambda pairs: Object(tuple(pairs)),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse,
        )
    except ValueError as error:
        raise NotAtAllError from error


def _refuse(constant: str) -> Any:
    raise NotAtAllError(constant)


def has_half_characters(value: Any) -> bool:
    """Whether a text anywhere in a value holds a surrogate without its other half."""
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, Object):
        return any(has_half_characters(part) for pair in value.pairs for part in pair)
    return isinstance(value, list) and any(map(has_half_characters, value))


def rows(schema: Schema, body: bytes) -> list[Row | None]:
    """The records of a body; None for each that is wrong.

    Raises:
        NotAtAllError: the body is none.
        WrongBodyError: it is something else.
    """
    found = parsed(body)
    if has_half_characters(found):
        raise NotAtAllError
    if not isinstance(found, Object) or len(found.pairs) != 1:
        raise WrongBodyError
    ((name, value),) = found.pairs
    if name == "records" and isinstance(value, list):
        records = value
    elif name == "columns" and isinstance(value, Object):
        records = _of_columns(schema, value)
    else:
        raise WrongBodyError
    return [row(schema, record) for record in records]


def _of_columns(schema: Schema, columns: Object) -> list[Object]:
    names = columns.names
    if not names or len(set(names)) < len(names) or not all(isinstance(values, list) for _, values in columns.pairs):
        raise WrongBodyError
    known = {column.name for column in schema.columns}
    if schema.extra == "refuse" and not set(names) <= known:
        raise WrongBodyError
    if any(field.name not in names and not field.nullable for field in schema.fields):
        raise WrongBodyError
    lists = [values for _, values in columns.pairs]
    if len({len(values) for values in lists}) > 1:
        raise WrongBodyError
    return [Object(tuple(zip(names, cells, strict=True))) for cells in zip(*lists, strict=True)]


def row(schema: Schema, record: Any) -> Row | None:
    """What one record becomes; None where it is wrong."""
    try:
        return _row(schema, record)
    except WrongRecordError:
        return None


def _row(schema: Schema, record: Any) -> Row:
    if not isinstance(record, Object) or len(set(record.names)) < len(record.names):
        raise WrongRecordError
    cells = dict(record.pairs)
    known = {column.name for column in schema.columns}
    if schema.extra == "refuse" and not set(cells) <= known:
        raise WrongRecordError
    for column in schema.columns:
        if column.role == "field" and not column.nullable and column.name not in cells:
            raise WrongRecordError
    values = {column.name: _value(column, cells[column.name]) for column in schema.columns if column.name in cells}
    numbers = [_float(values.get(field.name)) for field in schema.numbers]
    codes = [_code(field, values.get(field.name)) for field in schema.codes]
    ids = [column.name for column in schema.with_role("id")]
    return Row(numbers, codes, values.get(ids[0]) if ids else None)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _code(field: Column, value: Any) -> int:
    return code_table(field).get(value, field.unseen_code)


def _value(column: Column, cell: Any) -> Any:
    if column.role not in ("field", "id") or cell is None:
        return None
    if column.role == "id":
        return _number(cell) if isinstance(cell, Number) else _of_type(cell, (str, bool))
    if column.kind == "numeric":
        return float(_number(_of_type(cell, Number)))
    if column.kind == "boolean":
        return _of_type(cell, bool)
    if column.kind == "timestamp":
        return _moment(cell)
    return _whole(_of_type(cell, Number)) if has_integers(column) else _of_type(cell, str)


def _of_type(cell: Any, kind: Any) -> Any:
    if not isinstance(cell, kind):
        raise WrongRecordError
    return cell


def _number(cell: Number) -> float | int:
    if not math.isfinite(float(cell.text)):
        raise WrongRecordError
    return int(cell.text) if _INTEGER.fullmatch(cell.text) else float(cell.text)


def _whole(cell: Number) -> int:
    if not _INTEGER.fullmatch(cell.text) or not math.isfinite(float(cell.text)):
        raise WrongRecordError
    return int(cell.text)


def _moment(cell: Any) -> float:
    if isinstance(cell, Number):
        return float(_number(cell))
    try:
        return seconds_since_1970(_of_type(cell, str))
    except ValueError as error:
        raise WrongRecordError from error
