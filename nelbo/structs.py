"""The structs of a schema: what JSON records are decoded to, and from there, all at once, to arrays."""

import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import astuple
from numpy.typing import NDArray

from nelbo.schema import Column, Schema

MISSING = -1  # the code of a missing category
Scalar = str | int | float | bool | None
Values = Sequence[Any]

# A number that was left out: a NaN that no arithmetic makes and no JSON holds, told from others by its bits.
_ABSENT_BITS = 0x7FF8_0000_0ABC_0DEF
(_ABSENT,) = struct.unpack("<d", _ABSENT_BITS.to_bytes(8, "little"))
_ABSENT_CODE = -2  # a category that was left out, until it is counted

# For each struct msgspec asks where its base class is from, and the answer is interned anew while nobody keeps it. That
# leaves gaps in the interpreter's table of such strings, which 750 loads made double, by 1 MB (2026-11-25).
_KEPT = sys.intern("msgspec._core")


def value_type(column: Column) -> Any:
    """The JSON type of a present value of a column, as msgspec decodes it: never coerced."""
    if column.role == "id":
        return Scalar
    if column.role != "field":
        return Raw
    match column.kind:
        case "numeric":
            return float | None
        case "boolean":
            return bool | None
        case "timestamp":
            return str | float | None
        case _:
            return (int | None) if has_integers(column) else (str | None)


def has_integers(column: Column) -> bool:
    """Whether the categories of a field are integers; else they are strings."""
    return any(isinstance(value, int) for value in column.known + column.rare)


def code_table(column: Column) -> dict[Any, int]:
    """The code of each value of a coded field; what is not in it is unseen."""
    table: dict[Any, int] = {value: code for code, value in enumerate(column.known)}
    table |= dict.fromkeys(column.rare, column.rare_code)
    return table | {None: MISSING, UNSET: MISSING}


def seconds_since_1970(value: str | float) -> float:
    """A timestamp as a number; a time without a zone is UTC.

    >>> seconds_since_1970("1970-01-02T00:00:00Z")
    86400.0
    """
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return value


@dataclass(frozen=True)
class Arrays:
    """n records as arrays.

    Attributes:
        numbers: shape (n, n_numbers), float64, in the order of `Schema.numbers`; NaN = missing.
        codes: shape (n, n_codes), int64, in the order of `Schema.codes`; -1 = missing.
        ids: each record's id: the value of the id column, an object if there are several, else None.
        values: for each field by name, the records' own values; None or NaN = missing.
        n_colons: in the JSON of each record, or one number for all: what is more belongs to a repeated key.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.int64]
    ids: Sequence[Any]
    values: Mapping[str, Values]
    n_colons: NDArray[np.int64] | int


class Structs:
    """Structs made from a schema once, and the way from many of them to arrays.

    Numbers come first in a struct, then categories, ids, and what nobody scores: a row's numbers are packed in one
    call. Measured 2026-11-25 on 1,000 records of 30 numbers: 0.20 ms, against 0.49 ms by one flat list and
    0.70 ms by columns; decoding them takes 0.89 ms.

    Args:
        schema: of the records.
        names: of its columns in JSON, where a struct cannot have the column's own.

    Attributes:
        record: the type of a record.
        columns: the type of many records' columns: a list of values each.
        moments: names in `record` of the fields that are timestamps.
    """

    def __init__(self, schema: Schema, names: Mapping[str, str]) -> None:
        self._schema = schema
        others = [column for column in schema.columns if column.role not in ("field", "id")]
        self._order = (*schema.numbers, *schema.codes, *schema.with_role("id"), *others)
        self._slots = {f"c{i}": column for i, column in enumerate(self._order)}
        self._rename = {slot: names.get(column.name, column.name) for slot, column in self._slots.items()}
        self.record, self.columns = self._struct(nested=False), self._struct(nested=True)
        self._n_numbers, self._n_coded = len(schema.numbers), len(schema.numbers) + len(schema.codes)
        self._pack = struct.Struct(f"{self._n_numbers}d").pack
        self._are_numbers_alone = self._n_numbers == len(self._order)
        self.moments = [slot for slot, column in self._slots.items() if column.kind == "timestamp"]
        self._weights = np.array([1 + column.name.count(":") for column in self._order], dtype=np.int64)
        self._are_optional = any(field.nullable for field in schema.fields)
        self._coders = [_Coder(column) for column in schema.codes]

    def _struct(self, *, nested: bool) -> Any:
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for slot, column in self._slots.items():
            kind = list[value_type(column)] if nested else value_type(column)  # type: ignore[misc]
            if column.role == "field" and not column.nullable:
                fields.append((slot, kind))
            elif column in self._schema.numbers and not nested:
                fields.append((slot, kind, _ABSENT))
            else:
                fields.append((slot, kind | UnsetType, UNSET))
        return msgspec.defstruct(
            "Columns" if nested else "Record",
            fields,
            rename=self._rename,
            forbid_unknown_fields=self._schema.extra == "refuse",
            gc=False,
            kw_only=True,  # else what is required would have to come first
        )

    # --- from records ---------------------------------------------------------------------------------

    def of_records(self, records: Sequence[Any]) -> Arrays:
        """Arrays from structs of type `record`.

        Raises:
            ValueError: a timestamp's text is none.
        """
        rows: list[tuple[Any, ...]] = [astuple(record) for record in records]
        packed = self._packed(rows)
        if self._are_numbers_alone and packed is not None:
            return self._arrays(packed, np.empty((len(rows), 0), dtype=np.int64), ())
        columns = list(zip(*rows, strict=True)) or [()] * len(self._order)
        numbers = self._numbers(columns, len(rows)) if packed is None else packed
        codes = np.empty((len(rows), len(self._coders)), dtype=np.int64)
        for j, coder in enumerate(self._coders):
            codes[:, j] = coder.codes(columns[self._n_numbers + j])
        return self._arrays(numbers, codes, columns)

    def _packed(self, rows: Sequence[tuple[Any, ...]]) -> NDArray[np.float64] | None:
        """The numbers of each row; None where one of them is null, or a moment's text."""
        pack, n = self._pack, self._n_numbers
        try:
            parts = [pack(*row) for row in rows] if self._are_numbers_alone else [pack(*row[:n]) for row in rows]
        except struct.error:
            return None
        return np.frombuffer(bytearray().join(parts), np.float64).reshape(len(rows), n)

    def _numbers(self, columns: Sequence[Values], n: int) -> NDArray[np.float64]:
        numbers = np.empty((n, self._n_numbers))
        for j, column in enumerate(self._schema.numbers):
            numbers[:, j] = _as_numbers(column, columns[j])
        return numbers

    def _arrays(self, numbers: NDArray[np.float64], codes: NDArray[np.int64], columns: Sequence[Values]) -> Arrays:
        """The arrays, and how many colons explain them; what was left out is then missing."""
        n_colons = self._n_colons(numbers, codes, columns)
        ids = self._ids(columns[self._n_coded :], len(numbers)) if columns else [None] * len(numbers)
        values: dict[str, Values] = {}
        for j, column in enumerate(self._schema.numbers):
            values[column.name] = columns[j] if columns and column.kind == "timestamp" else numbers[:, j]  # type: ignore[assignment]
        for j, column in enumerate(self._schema.codes, self._n_numbers):
            values[column.name] = columns[j]
        return Arrays(numbers, codes, ids, values, n_colons)

    def _n_colons(
        self, numbers: NDArray[np.float64], codes: NDArray[np.int64], columns: Sequence[Values]
    ) -> NDArray[np.int64] | int:
        found: NDArray[np.int64] | int = int(self._weights.sum())
        if self._are_optional:
            absent = numbers.view(np.int64) == _ABSENT_BITS
            if absent.any():
                found = found - absent @ self._weights[: self._n_numbers]
                numbers[absent] = np.nan
            left_out = codes == _ABSENT_CODE
            if left_out.any():
                found = found - left_out @ self._weights[self._n_numbers : self._n_coded]
                codes[left_out] = MISSING
        if not columns:
            return found
        if self.moments:
            for column, values in zip(self._schema.numbers, columns, strict=False):
                if column.kind == "timestamp":
                    found = found + _colons_in(values)
        for j, coder in enumerate(self._coders):
            found = found + coder.n_colons(codes[:, j], columns[self._n_numbers + j])
        for weight, values in zip(self._weights[self._n_coded :], columns[self._n_coded :], strict=True):
            found = found + _colons_in(values) - weight * np.array([value is UNSET for value in values], dtype=np.int64)
        return found

    def _ids(self, columns: Sequence[Values], n: int) -> Sequence[Any]:
        names = [column.name for column in self._schema.with_role("id")]
        return _ids(dict(zip(names, columns, strict=False)), n, are_several=len(names) > 1)

    # --- from columns ---------------------------------------------------------------------------------

    def of_lists(self, parsed: Any) -> dict[str, Values]:
        """The columns that are there, by name, from a struct of type `columns`."""
        values = ((column.name, getattr(parsed, slot)) for slot, column in self._slots.items())
        return {name: column for name, column in values if column is not UNSET}

    def of_columns(self, columns: Mapping[str, Values], n: int) -> Arrays:
        """Arrays from columns of n values, by name; an absent one is missing throughout.

        Raises:
            ValueError: a timestamp's text is none.
        """
        numbers = np.full((n, self._n_numbers), np.nan)
        codes = np.full((n, len(self._coders)), MISSING, dtype=np.int64)
        n_colons = 0  # of the whole body, here
        for j, column in enumerate(self._schema.numbers):
            if column.name in columns:
                numbers[:, j] = _as_numbers(column, columns[column.name])
        for j, coder in enumerate(self._coders):
            values = columns.get(coder.column.name)
            if values is not None:
                codes[:, j] = coder.codes(values)
        for column in self._schema.columns:
            if column.name in columns:
                n_colons += 1 + column.name.count(":")
                if column.kind != "numeric" and not isinstance(columns[column.name], np.ndarray):
                    n_colons += int(_colons_in(columns[column.name]).sum())
        with_id = self._schema.with_role("id")
        ids = {column.name: columns[column.name] for column in with_id if column.name in columns}
        own = {field.name: columns.get(field.name, [None] * n) for field in self._schema.fields}
        return Arrays(numbers, codes, _ids(ids, n, are_several=len(with_id) > 1), own, n_colons)


class _Coder:
    """From the values of one coded field to codes.

    Args:
        column: the field.
    """

    def __init__(self, column: Column) -> None:
        self.column = column
        self._unseen = repeat(column.unseen_code)
        self._code_of = code_table(column) | {UNSET: _ABSENT_CODE}
        self._have_texts = not has_integers(column) and column.kind != "boolean"
        known = [str(value).count(":") if self._have_texts else 0 for value in column.known]
        # By code, and at the end by the codes -2 and -1. What a rare or unseen value holds, only the value says.
        self._colons = np.array([*known, 0, 0, 0, 0], dtype=np.int64)
        self._known_have_colons = any(known)

    def codes(self, values: Values) -> NDArray[np.int64]:
        try:
            return np.fromiter(map(self._code_of.__getitem__, values), np.int64, len(values))
        except KeyError:  # a tenth slower, and seldom needed
            return np.fromiter(map(self._code_of.get, values, self._unseen), np.int64, len(values))

    def n_colons(self, codes: NDArray[np.int64], values: Values) -> NDArray[np.int64] | int:
        """In each value, or 0 for all."""
        if not self._have_texts:
            return 0
        found: NDArray[np.int64] | int = self._colons[codes] if self._known_have_colons else 0
        others = np.flatnonzero(codes >= self.column.rare_code).tolist()
        if not others:
            return found
        found = found + np.zeros(len(codes), dtype=np.int64)
        for row in others:
            found[row] = values[row].count(":")
        return found


def _ids(columns: Mapping[str, Values], n: int, *, are_several: bool) -> Sequence[Any]:
    """Each record's id: the value itself where one column of the schema holds ids, else an object of those there."""
    if not columns:
        return [None] * n
    if not are_several:
        return [None if value is UNSET else value for value in next(iter(columns.values()))]
    rows = zip(*columns.values(), strict=True)
    return [{k: v for k, v in zip(columns, row, strict=True) if v is not UNSET} or None for row in rows]


def _as_numbers(column: Column, values: Values) -> Any:
    """An array or list of floats; numpy takes None for NaN."""
    if column.kind != "timestamp" or isinstance(values, np.ndarray):
        return np.asarray(values, dtype=np.float64)
    return [None if value is None else seconds_since_1970(value) for value in values]


def _colons_in(values: Values) -> NDArray[np.int64]:
    return np.fromiter(_counted(values), np.int64, len(values))


def _counted(values: Values) -> Iterator[int]:
    for value in values:
        kind = type(value)
        yield value.count(":") if kind is str else bytes(value).count(b":") if kind is Raw else 0
