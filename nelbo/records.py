"""Records into arrays, strictly: from JSON objects, JSON columns and JSON lines.

The types of a schema become `msgspec` structs once per bundle, and the happy path is one decode and one
conversion a column. Only a body that is refused there is read again, record by record and field by field,
with the same types, to say what is wrong where; the good records of such a body are still scored.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isinf
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from nelbo.errors import BodyError, RecordError, TooManyRecordsError
from nelbo.schema import Column, Schema

MISSING = -1  # the code of a missing category
_SHOWN = 60  # characters of a wrong value that an error repeats
_NO_STRUCT_NAME = re.compile(r'["\\\x00-\x1f]')  # characters that msgspec takes in no struct's names

Scalar = str | int | float | bool | None
Values = Sequence[Any]


@dataclass(frozen=True)
class Batch:
    """Decoded records, and the errors of those that could not be decoded.

    Attributes:
        numbers: shape (n, n_numbers), float64, in the order of `Schema.numbers`; NaN = missing; a timestamp
            is seconds since 1970 UTC.
        codes: shape (n, n_codes), int64, in the order of `Schema.codes`; -1 = missing.
        index: shape (n,), each record's position in its body or file.
        ids: each record's id: the value of the id column, an object if there are several, else None.
        values: for each field by name, the records' own values; what an answer shows.
        errors: the records that could not be decoded, by position.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.int64]
    index: NDArray[np.int64]
    ids: Sequence[Any]
    values: Mapping[str, Values]
    errors: tuple[RecordError, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_records(self) -> int:
        """How many records came in, the undecodable ones included."""
        return len(self.index) + len(self.errors)


def take(batch: Batch, rows: NDArray[np.intp]) -> Batch:
    """Some records of a batch, or copies of them, without their own values and ids.

    Args:
        batch: n records.
        rows: shape (m,), which of them.
    """
    return replace(
        batch,
        numbers=batch.numbers[rows],
        codes=batch.codes[rows],
        index=batch.index[rows],
        ids=[None] * len(rows),
        values={},
    )


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
            return (int | None) if _has_integers(column) else (str | None)


def expectation(column: Column) -> str:
    """What a value of this column should have been, in words."""
    match column.kind:
        case "numeric":
            return "a number"
        case "boolean":
            return "true or false"
        case "timestamp":
            return "an ISO 8601 date and time, or seconds since 1970"
        case "categorical":
            return "an integer" if _has_integers(column) else "a string"
        case _:
            return "a string, a number, true, false or null"


def _has_integers(column: Column) -> bool:
    return any(isinstance(value, int) for value in column.known + column.rare)


def seconds_since_1970(value: str | float) -> float:
    """A timestamp as a number; a time without a zone is UTC.

    >>> seconds_since_1970("1970-01-02T00:00:00Z")
    86400.0
    """
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return value


def shown(value: object) -> str:
    """A wrong value as an error repeats it: as Python writes it, cut to a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class RecordDecoder:
    """Decodes the records of one schema.

    Args:
        schema: of the bundle.
        name: what the schema's owner is called in errors, `machines@20261122T101500Z-4f1c` for example.
    """

    def __init__(self, schema: Schema, name: str = "this model") -> None:
        self.schema = schema
        self.name = name
        self._code_of = {column.name: code_table(column) for column in schema.codes}
        self._columns = {column.name: column for column in schema.columns}
        self._name_of = {f"c{i}": column.name for i, column in enumerate(schema.columns)}
        self._moments = [slot for slot, name in self._name_of.items() if self._columns[name].kind == "timestamp"]
        self._alias_of = {name: f"\x7f{slot}" for slot, name in self._name_of.items() if _NO_STRUCT_NAME.search(name)}
        record, table = self._struct(nested=False), self._struct(nested=True)
        body = msgspec.defstruct(
            "Body",
            [("records", list[record] | UnsetType, UNSET), ("columns", table | UnsetType, UNSET)],  # type: ignore[valid-type]
            forbid_unknown_fields=True,
            gc=False,
        )
        loose_body = msgspec.defstruct(
            "LooseBody",
            [("records", list[Raw] | UnsetType, UNSET), ("columns", dict[str, list[Raw]] | UnsetType, UNSET)],
            forbid_unknown_fields=True,
        )
        self._record = msgspec.json.Decoder(record)
        self._body = msgspec.json.Decoder(body)
        self._loose_body = msgspec.json.Decoder(loose_body)
        self._loose_record = msgspec.json.Decoder(dict[str, Raw])
        self._cell = {column.name: msgspec.json.Decoder(value_type(column)) for column in schema.columns}

    # --- what a caller uses ---------------------------------------------------------------------

    def json(self, body: bytes, max_records: int | None = None) -> Batch:
        """The records of `{"records": [{…}, …]}` or `{"columns": {"field": […], …}}`.

        Args:
            body: UTF-8.
            max_records: what a stranger may send; bounds the memory and the time that any body can take.

        Raises:
            TooManyRecordsError: there are more.
            BodyError: the body is not JSON, is neither of the two, or its columns do not fit together.
        """
        self._expect_commas(body, max_records)
        try:
            self._expect_plain(body)
            parsed: Any = self._body.decode(body)
            if parsed.records is UNSET and parsed.columns is UNSET:
                return self._json_slowly(body, max_records)
            if parsed.columns is UNSET:
                columns, n = self._transposed(parsed.records), len(parsed.records)
            else:
                columns = self._listed(parsed.columns)
                n = _common_length(columns)
            _expect_at_most(max_records, n)
            self._expect_colons(body, 1, columns, by_record=parsed.columns is UNSET)
            return self._batch(columns, np.arange(n))
        except (ValueError, RecursionError):
            return self._json_slowly(body, max_records)

    def lines(self, body: bytes, first: int = 0) -> Batch:
        """The records of JSON lines; blank lines are skipped.

        Args:
            body: whole lines.
            first: position of the first record in its file.
        """
        lines = [line for line in body.split(b"\n") if line.strip()]
        try:
            self._expect_plain(body)
            columns = self._transposed([self._record.decode(line) for line in lines])
            self._expect_colons(body, 0, columns, by_record=True)
            return self._batch(columns, np.arange(first, first + len(lines)))
        except (ValueError, RecursionError):
            return self._one_by_one(lines, first)

    def objects(self, records: Sequence[Mapping[str, Any]]) -> Batch:
        """The records of Python objects, by the same rules as JSON.

        Raises:
            BodyError: an object cannot be written as JSON.
        """
        try:
            body = msgspec.json.encode({"records": [_with_infinities(record) for record in records]})
        except (TypeError, ValueError, RecursionError) as error:
            raise BodyError(f"the records cannot be written as JSON: {error}") from error
        return self.json(body)

    def columns(self, columns: Mapping[str, Values], index: NDArray[np.int64]) -> Batch:
        """Columns whose values have the schema's types already; for readers of typed tables.

        Args:
            columns: values of the fields and ids by name, None or NaN = missing; an absent column is missing
                throughout.
            index: shape (n,), position of each record.
        """
        return self._batch(dict(columns), index)

    # --- the happy path -------------------------------------------------------------------------

    def _struct(self, *, nested: bool) -> Any:
        """The struct of a record, or of a body's columns, whose values are lists of a record's."""
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for slot, column in zip(self._name_of, self.schema.columns, strict=True):
            required = column.role == "field" and not column.nullable
            kind = list[value_type(column)] if nested else value_type(column)  # type: ignore[misc]
            fields.append((slot, kind) if required else (slot, kind | UnsetType, UNSET))
        fields.sort(key=len)  # structs want what is required first
        return msgspec.defstruct(
            "Columns" if nested else "Record",
            fields,
            rename={slot: self._alias_of.get(name, name) for slot, name in self._name_of.items()},
            forbid_unknown_fields=self.schema.extra == "refuse",
            gc=False,
        )

    def _transposed(self, records: list[Any]) -> dict[str, Values]:
        """Values by column name, from structs."""
        if not records:
            return {}
        names = [self._name_of[slot] for slot in records[0].__struct_fields__]
        return dict(zip(names, zip(*map(msgspec.structs.astuple, records), strict=True), strict=True))

    def _listed(self, columns: Any) -> dict[str, Values]:
        values = {name: getattr(columns, slot) for slot, name in self._name_of.items()}
        return {name: column for name, column in values.items() if column is not UNSET}

    def _expect_commas(self, body: bytes, max_records: int | None) -> None:
        """Refuses a body with more values than its records can hold, before anything is built from them.

        A body of 16 MiB holds 8 million wrong records: their errors alone took minutes and gigabytes.
        """
        if max_records is None:
            return
        # Names that a schema ignores are values too: ten times its own columns is beyond any honest record.
        n_columns = len(self.schema.columns) * (1 if self.schema.extra == "refuse" else 10)
        most = max_records * n_columns
        if body.count(b",") > most and _STRING.sub(b"", body).count(b",") > most:
            raise TooManyRecordsError(
                f"expected at most {max_records} records of at most {n_columns} columns, got more values than that"
            )

    def _expect_plain(self, body: bytes) -> None:
        """Refuses what the happy path takes no notice of: values it skips, names that no struct can have.

        Raises:
            ValueError: only the slow path can tell.
        """
        if not body.isascii():
            body.decode()
        if self._alias_of:
            raise ValueError("a column has a name that no struct can have")

    def _expect_colons(self, body: bytes, outside: int, columns: Mapping[str, Values], *, by_record: bool) -> None:
        """Refuses a body with more colons than its values explain: msgspec keeps the last of repeated keys silently.

        Raises:
            ValueError: a key may be repeated; only the slow path can tell.
        """
        expected = outside
        for name, values in columns.items():
            n_present = sum(value is not UNSET for value in values) if by_record else 1
            expected += n_present * (1 + name.count(":"))
            if self._columns[name].kind != "numeric":
                expected += sum(map(_colons_within, values))
        if body.count(b":") != expected or b"\\u003a" in body or b"\\u003A" in body:
            raise ValueError("a key may be repeated")

    def _batch(self, columns: dict[str, Values], index: NDArray[np.int64]) -> Batch:
        n = len(index)
        numbers = np.empty((n, len(self.schema.numbers)))
        for j, column in enumerate(self.schema.numbers):
            numbers[:, j] = self._numbers(column, columns.get(column.name), n)
        codes = np.empty((n, len(self.schema.codes)), dtype=np.int64)
        for j, column in enumerate(self.schema.codes):
            codes[:, j] = self._codes(column, columns.get(column.name), n)
        values = {field.name: columns.get(field.name, [None] * n) for field in self.schema.fields}
        return Batch(numbers, codes, index, self._ids(columns, n), values)

    def _numbers(self, column: Column, values: Values | None, n: int) -> NDArray[np.float64]:
        if values is None:
            return np.full(n, np.nan)
        if isinstance(values, np.ndarray):
            return values
        if column.nullable:
            values = [None if value is UNSET else value for value in values]
        if column.kind == "timestamp":
            values = [None if value is None else seconds_since_1970(value) for value in values]
        return np.array(values, dtype=np.float64)

    def _codes(self, column: Column, values: Values | None, n: int) -> NDArray[np.int64]:
        if values is None:
            return np.full(n, MISSING)
        code_of, unseen = self._code_of[column.name], column.unseen_code
        return np.array([code_of.get(value, unseen) for value in values], dtype=np.int64)

    def _ids(self, columns: Mapping[str, Values], n: int) -> Sequence[Any]:
        names = [column.name for column in self.schema.with_role("id") if column.name in columns]
        if not names:
            return [None] * n
        if len(self.schema.with_role("id")) == 1:
            return [None if value is UNSET else value for value in columns[names[0]]]
        rows = zip(*(columns[name] for name in names), strict=True)
        return [{k: v for k, v in zip(names, row, strict=True) if v is not UNSET} or None for row in rows]

    # --- the path that explains -----------------------------------------------------------------

    def _json_slowly(self, body: bytes, max_records: int | None) -> Batch:
        try:
            parsed: Any = self._loose_body.decode(body)
        except RecursionError as error:
            raise BodyError("the body is nested too deeply to be records") from error
        except UnicodeDecodeError as error:
            raise BodyError("the body is not UTF-8") from error
        except msgspec.ValidationError as error:
            raise BodyError(f"{error}; {_BODY}") from error
        except msgspec.DecodeError as error:
            raise _not_json(body, error) from error
        if (parsed.records is UNSET) == (parsed.columns is UNSET):
            raise BodyError(_BODY)
        if parsed.columns is UNSET:
            _expect_at_most(max_records, len(parsed.records))
            raws = [bytes(record) for record in parsed.records]
            # One colon more than within the records, or "records" stands there several times.
            if body.count(b":") != 1 + sum(raw.count(b":") for raw in raws):
                _refuse_repeated_key(body, depth=1)
            return self._one_by_one(raws, 0)
        _expect_at_most(max_records, max(map(len, parsed.columns.values()), default=0))
        return self._columns_slowly(body, parsed.columns)

    def _one_by_one(self, records: Sequence[bytes], first: int) -> Batch:
        """Those records that decode become a batch, the others errors."""
        good: list[Any] = []
        index: list[int] = []
        errors: list[RecordError] = []
        for position, raw in enumerate(records, start=first):
            try:
                good.append(self._checked(position, raw))
                index.append(position)
            except RecordError as error:
                errors.append(error)
        batch = self._batch(self._transposed(good), np.array(index, dtype=np.int64))
        return replace(batch, errors=tuple(errors))

    def _checked(self, index: int, raw: bytes) -> Any:
        try:
            raw.decode()
            record = self._record.decode(self._renamed(raw))
            for text in (value for slot in self._moments if isinstance(value := getattr(record, slot), str)):
                seconds_since_1970(text)
        except (ValueError, RecursionError) as error:
            raise self._fault(index, raw, error) from error
        repeated = _repeated_key(raw)
        if repeated is not None:
            raise RecordError(index, repeated, "the name once", "it several times")
        return record

    def _renamed(self, raw: bytes) -> bytes:
        """The record with the names that its struct has."""
        if not self._alias_of:
            return raw
        cells, aliases = self._loose_record.decode(raw), set(self._alias_of.values())
        # A key that equals an alias is no column's name; lengthened it stays unknown.
        names = {name: self._alias_of.get(name, name + "?" if name in aliases else name) for name in cells}
        return msgspec.json.encode({names[name]: value for name, value in cells.items()})

    def _columns_slowly(self, body: bytes, columns: dict[str, list[Raw]]) -> Batch:
        n = _common_length(columns)
        _refuse_repeated_key(body, depth=2)
        for name in columns:
            if name not in self._columns and self.schema.extra == "refuse":
                raise BodyError(
                    f"column '{name}' is not among the columns of {self.name}", f"/columns/{_escaped(name)}"
                )
        for field in self.schema.fields:
            if field.name not in columns and not field.nullable:
                raise BodyError(f"expected {self._needed(field.name)}, got none", "/columns")
        keys = [msgspec.json.encode(name) + b":" for name in columns]
        rows = zip(*columns.values(), strict=True) if columns else iter([()] * n)
        return self._one_by_one([b"{" + b",".join(_joined(keys, row)) + b"}" for row in rows], 0)

    def _fault(self, index: int, raw: bytes, error: Exception) -> RecordError:
        """What is wrong with one record: the first field in the schema's order that is."""
        try:
            cells = self._loose_record.decode(raw)
        except RecursionError:
            return RecordError(index, None, "a flat JSON object", "one nested too deeply")
        except UnicodeDecodeError:
            return RecordError(index, None, "UTF-8", "bytes that are not")
        except msgspec.ValidationError:
            return RecordError(index, None, "a JSON object", shown_json(raw))
        except msgspec.DecodeError as fault:
            return RecordError(index, None, "a JSON object", f"text that is not JSON ({fault})")
        fault_of_field = self._fault_of_field(index, cells)
        if fault_of_field is None and isinstance(error, UnicodeDecodeError):
            return RecordError(index, None, "UTF-8", "bytes that are not")
        return fault_of_field or RecordError(index, None, "a record of this schema", str(error))

    def _fault_of_field(self, index: int, cells: Mapping[str, Raw]) -> RecordError | None:
        for name in cells:
            if name not in self._columns and self.schema.extra == "refuse":
                return RecordError(
                    index, name, f"one of the {len(self._columns)} columns of {self.name}", "another name"
                )
        for column in self.schema.columns:
            if column.name not in cells:
                if column.role == "field" and not column.nullable:
                    return RecordError(index, column.name, self._needed(column.name), "none")
                continue
            fault_of_cell = self._cell_fault(column, bytes(cells[column.name]))
            if fault_of_cell is not None:
                return RecordError(index, column.name, expectation(column), fault_of_cell)
        return None

    def _cell_fault(self, column: Column, raw: bytes) -> str | None:
        """What a cell holds, if it is not what its column takes."""
        try:
            value = self._cell[column.name].decode(raw)
            if column.kind == "timestamp" and value is not None:
                seconds_since_1970(value)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return shown_json(raw)
        return None

    def _needed(self, name: str) -> str:
        optional = [f"'{field.name}'" for field in self.schema.fields if field.nullable]
        may = f", of which {', '.join(optional)} may be left out" if optional else ", none of which may be left out"
        return f"a value for '{name}' ({self.name} has {len(self.schema.fields)} fields{may})"


def code_table(column: Column) -> dict[Any, int]:
    """The code of each value of a coded field; what is not in it is unseen."""
    table: dict[Any, int] = {value: code for code, value in enumerate(column.known)}
    table |= dict.fromkeys(column.rare, column.rare_code)
    return table | {None: MISSING, UNSET: MISSING}


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BODY = 'expected a JSON object with either "records": [{…}, …] or "columns": {"field": […], …}'


def _expect_at_most(max_records: int | None, n: int) -> None:
    if max_records is not None and n > max_records:
        raise TooManyRecordsError(f"expected at most {max_records} records, got {n}")


def _common_length(columns: Mapping[str, Values]) -> int:
    if not columns:
        raise BodyError("expected columns with values, got none", "/columns")
    name, n = next((name, len(values)) for name, values in columns.items())
    for other, values in columns.items():
        if len(values) != n:
            detail = f"column '{other}' has {len(values)} values, column '{name}' has {n}: expected equally many"
            raise BodyError(detail, f"/columns/{_escaped(other)}")
    return n


def _joined(keys: Sequence[bytes], row: Sequence[Raw]) -> Iterator[bytes]:
    return (key + bytes(value) for key, value in zip(keys, row, strict=True))


def _colons_within(value: object) -> int:
    if isinstance(value, str):
        return value.count(":")
    if isinstance(value, Raw):
        return bytes(value).count(b":")
    return 0


def _escaped(name: str) -> str:
    """A name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def shown_json(raw: bytes) -> str:
    """A JSON value as an error repeats it."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        text = raw.decode(errors="replace")
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return "null" if value is None else "true" if value is True else "false" if value is False else shown(value)


# A string, with a colon if it is a key; or a bracket.
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:)?|([{}\[\]])', re.DOTALL)


def _repeated_key(raw: bytes, depth: int = 1) -> str | None:
    """A key that stands several times in one object, at most so deep in well-formed JSON."""
    seen: list[set[str]] = []
    level = 0
    for text, colon, bracket in _TOKEN.findall(raw):
        if bracket:
            level += 1 if bracket in b"{[" else -1
            seen = [*seen[: level - 1], set()] if bracket in b"{[" and level <= depth else seen
        elif colon and level <= depth:
            key = msgspec.json.decode(b'"' + text + b'"', type=str)
            if key in seen[level - 1]:
                return key
            seen[level - 1].add(key)
    return None


def _refuse_repeated_key(body: bytes, depth: int) -> None:
    key = _repeated_key(body, depth)
    if key is not None:
        raise BodyError(f"the name '{key}' stands several times in one object; expected it once")


def _with_infinities(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with a number too large for JSON in place of each infinity, which msgspec would write as null."""
    if not isinstance(record, Mapping) or not any(isinstance(v, float) and isinf(v) for v in record.values()):
        return record
    return {k: Raw(b"1e999") if isinstance(v, float) and isinf(v) else v for k, v in record.items()}


class _Constant(str):
    """NaN, Infinity or -Infinity, which many programs write and JSON does not have."""

    __slots__ = ()


def _not_json(body: bytes, error: msgspec.DecodeError) -> BodyError:
    """Why a body is not JSON; where its only fault is a NaN, which is the most common one, also where that stands."""
    try:
        found = _first_constant(json.loads(body, parse_constant=_Constant), ())
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return BodyError(f"the body is not JSON: {error}")
    steps, constant = found
    pointer = "".join(f"/{_escaped(str(step))}" for step in steps)
    where = pointer
    match steps:
        case ("records", int(index), str(field)) | ("columns", str(field), int(index)):
            where = f"record {index}, field '{field}'"
    detail = f"{where}: expected a number, got {constant}, which is not JSON; a missing value is null"
    return BodyError(detail, pointer)


def _first_constant(value: Any, steps: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], _Constant] | None:
    if isinstance(value, _Constant):
        return steps, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((hit for step, part in inner if (hit := _first_constant(part, (*steps, step)))), None)
