"""Records into arrays, strictly: from JSON objects, JSON columns and JSON lines.

The types of a schema become `msgspec` structs once per bundle, and the happy path is one decode and one
conversion a column. Only a body that is refused there is read again, record by record and field by field,
with the same types, to say what is wrong where; the good records of such a body are still scored.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from nelbo.characters import count, count_outside_strings
from nelbo.errors import BodyError, NotJsonError, RecordError, TooManyRecordsError, shortened
from nelbo.schema import Column, Schema
from nelbo.structs import Arrays, Structs, Values, has_integers, seconds_since_1970, value_type

_NO_STRUCT_NAME = re.compile(r'["\\\x00-\x1f]')  # characters that msgspec takes in no struct's names


@dataclass(frozen=True)
class Batch:
    """Decoded records, and the errors of those that could not be decoded.

    Attributes:
        numbers: shape (n, n_numbers), float64, in the order of `Schema.numbers`; NaN = missing; a timestamp
            is seconds since 1970 UTC.
        codes: shape (n, n_codes), int64, in the order of `Schema.codes`; -1 = missing.
        index: shape (n,), each record's position in its body or file.
        ids: each record's id: the value of the id column, an object if there are several, else None.
        values: for each field by name, the records' own values, what an answer shows; null or NaN = missing.
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
            return "an integer" if has_integers(column) else "a string"
        case _:
            return "a string, a number, true, false or null"


def shown(value: object) -> str:
    """A wrong value as an error repeats it: as Python writes it, cut to a line."""
    return shortened(repr(value))


class RecordDecoder:
    """Decodes the records of one schema.

    Args:
        schema: of the bundle.
        name: what the schema's owner is called in errors, `machines@20261122T101500Z-4f1c` for example.
    """

    def __init__(self, schema: Schema, name: str = "this model") -> None:
        self.schema = schema
        self.name = name
        self._columns = {column.name: column for column in schema.columns}
        with_odd_names = filter(_NO_STRUCT_NAME.search, self._columns)
        self._alias_of = {name: f"\x7f{i}" for i, name in enumerate(with_odd_names)}
        self._structs = Structs(schema, self._alias_of)
        body = msgspec.defstruct(
            "Body",
            [
                ("records", list[self._structs.record] | UnsetType, UNSET),  # type: ignore[name-defined]
                ("columns", self._structs.columns | UnsetType, UNSET),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        loose_body = msgspec.defstruct(
            "LooseBody",
            [("records", list[Raw] | UnsetType, UNSET), ("columns", dict[str, list[Raw]] | UnsetType, UNSET)],
            forbid_unknown_fields=True,
        )
        self._record = msgspec.json.Decoder(self._structs.record)
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
            NotJsonError: the body is not JSON.
            BodyError: it is neither of the two, or its columns do not fit together.
        """
        self._expect_commas(body, max_records)
        try:
            self._expect_plain(body)
            parsed: Any = self._body.decode(body)
            if parsed.records is UNSET and parsed.columns is UNSET:
                return self._json_slowly(body, max_records)
            if parsed.columns is UNSET:
                _expect_at_most(max_records, len(parsed.records))
                arrays = self._structs.of_records(parsed.records)
                n_colons = _total(arrays, len(parsed.records))
            else:
                columns = self._structs.of_lists(parsed.columns)
                n = _common_length(columns)
                _expect_at_most(max_records, n)
                arrays = self._structs.of_columns(columns, n)
                n_colons = int(arrays.n_colons)
            _expect_colons(body, 1 + n_colons)
            return _batch(arrays, np.arange(len(arrays.numbers)))
        except (ValueError, RecursionError):
            return self._json_slowly(body, max_records)

    def together(self, bodies: Sequence[bytes], max_records: int) -> tuple[Batch, list[int]]:
        """The records of several bodies as one batch, whose conversions then cost little more than one body's.

        Args:
            bodies: each `{"records": [{…}, …]}`.
            max_records: of one body.

        Returns:
            The batch, in which each body's records are counted from 0, and how many are whose; -1 for a body that has
            columns, or of which something is wrong: `json` says what.
        """
        records: list[Any] = []
        sizes: list[int] = []
        for body in bodies:
            found = self._plain_records(body)
            sizes.append(-1 if found is None or len(found) > max_records else len(found))
            if sizes[-1] > 0:
                records += found or ()
        try:
            arrays = self._structs.of_records(records)
            wrong = [i for i, n in _n_colons_of_each(arrays, sizes) if not _has_colons(bodies[i], 1 + n)]
        except ValueError:  # a moment that is none; the others are not to wait for who sent it
            wrong = [i for i, rows in _rows_of_each(sizes) if not self._are_right(records[rows])]
        if wrong:
            return self.together([b"" if i in wrong else body for i, body in enumerate(bodies)], max_records)
        index = [i for size in sizes for i in range(size)]
        return _batch(arrays, np.array(index, dtype=np.int64)), sizes

    def _are_right(self, records: list[Any]) -> bool:
        """Whether all moments are some."""
        try:
            self._structs.of_records(records)
        except ValueError:
            return False
        return True

    def _plain_records(self, body: bytes) -> list[Any] | None:
        """Structs of the records of a body that the happy path takes."""
        try:
            self._expect_plain(body)
            parsed: Any = self._body.decode(body)
        except (ValueError, RecursionError):
            return None
        return parsed.records if parsed.columns is UNSET and parsed.records is not UNSET else None

    def lines(self, body: bytes, first: int = 0) -> Batch:
        """The records of JSON lines; blank lines are skipped.

        Args:
            body: whole lines.
            first: position of the first record in its file.
        """
        lines = [line for line in body.split(b"\n") if line.strip()]
        try:
            self._expect_plain(body)
            arrays = self._structs.of_records([self._record.decode(line) for line in lines])
            _expect_colons(body, _total(arrays, len(lines)))
            return _batch(arrays, np.arange(first, first + len(lines)))
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
        return _batch(self._structs.of_columns(columns, len(index)), index)

    # --- the happy path -------------------------------------------------------------------------

    def _expect_commas(self, body: bytes, max_records: int | None) -> None:
        """Refuses a body with more values than its records can hold, before anything is built from them.

        A body of 16 MiB holds 8 million wrong records: their errors alone took minutes and gigabytes.
        """
        if max_records is None:
            return
        # Names that a schema ignores are values too: ten times its own columns is beyond any honest record.
        n_columns = len(self.schema.columns) * (1 if self.schema.extra == "refuse" else 10)
        most = max_records * n_columns
        # A comma stands between two values, so half as many as there are bytes is the most there can be.
        if len(body) > 2 * most and count(body, b",") > most and count_outside_strings(body, b",") > most:
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

    # --- the path that explains -----------------------------------------------------------------

    def _json_slowly(self, body: bytes, max_records: int | None) -> Batch:
        try:
            parsed: Any = self._loose_body.decode(body)
        except (ValueError, RecursionError) as error:
            _expect_json(body)
            raise BodyError(f"{error}; {_BODY}") from error
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
        batch = _batch(self._structs.of_records(good), np.array(index, dtype=np.int64))
        return replace(batch, errors=tuple(errors))

    def _checked(self, index: int, raw: bytes) -> Any:
        try:
            raw.decode()
            record = self._record.decode(self._renamed(raw))
            for text in (value for slot in self._structs.moments if isinstance(value := getattr(record, slot), str)):
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
                    f"column '{shortened(name)}' is not among the columns of {self.name}", f"/columns/{_escaped(name)}"
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
            _JSON.decode(raw)
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
            detail = f"column '{shortened(other)}' has {len(values)} values, column '{shortened(name)}' has {n}"
            detail += ": expected equally many"
            raise BodyError(detail, f"/columns/{_escaped(other)}")
    return n


def _joined(keys: Sequence[bytes], row: Sequence[Raw]) -> Iterator[bytes]:
    return (key + bytes(value) for key, value in zip(keys, row, strict=True))


def _batch(arrays: Arrays, index: NDArray[np.int64]) -> Batch:
    return Batch(arrays.numbers, arrays.codes, index, arrays.ids, arrays.values)


def _total(arrays: Arrays, n: int) -> int:
    """How many colons the JSON of n records has."""
    return int(arrays.n_colons.sum()) if isinstance(arrays.n_colons, np.ndarray) else n * arrays.n_colons


def _rows_of_each(sizes: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """For each body that has records here its position and which they are."""
    start = 0
    for i, size in enumerate(sizes):
        if size >= 0:
            yield i, slice(start, start + size)
            start += size


def _n_colons_of_each(arrays: Arrays, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """For each of them how many colons its records have."""
    of_each = arrays.n_colons
    for i, rows in _rows_of_each(sizes):
        yield i, (rows.stop - rows.start) * of_each if isinstance(of_each, int) else int(of_each[rows].sum())


def _expect_colons(body: bytes, expected: int) -> None:
    """Refuses a body with more colons than its values explain: msgspec keeps the last of repeated keys silently.

    Raises:
        ValueError: a key may be repeated; only the slow path can tell.
    """
    if not _has_colons(body, expected):
        raise ValueError("a key may be repeated")


def _has_colons(body: bytes, expected: int) -> bool:
    if count(body, b":") != expected:
        return False
    return b"\\" not in body or not (b"\\u003a" in body or b"\\u003A" in body)


def _escaped(name: str) -> str:
    """A name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def shown_json(raw: bytes) -> str:
    """A JSON value as an error repeats it."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        text = raw.decode(errors="replace")
        return shortened(text)
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
        raise BodyError(f"the name '{shortened(key)}' stands several times in one object; expected it once")


def _with_infinities(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with a number too large for JSON in place of each infinity, which msgspec would write as null."""
    if not isinstance(record, Mapping) or not any(isinstance(v, float) and isinf(v) for v in record.values()):
        return record
    return {k: Raw(b"1e999") if isinstance(v, float) and isinf(v) else v for k, v in record.items()}


class _Constant(str):
    """NaN, Infinity or -Infinity, which many programs write and JSON does not have."""

    __slots__ = ()


_JSON = msgspec.json.Decoder(Raw)  # looks at all of a text and builds nothing
_SURROGATE = re.compile("[\ud800-\udfff]")


def _expect_json(body: bytes) -> None:
    """Refuses what is no JSON, also behind the place where it was found to have another shape.

    Raises:
        NotJsonError: saying where, if it is a fault that programs make often.
    """
    try:
        body.decode()
        _JSON.decode(body)
    except RecursionError as error:
        raise NotJsonError("the body is nested too deeply to be records") from error
    except UnicodeDecodeError as error:
        raise NotJsonError("the body is not UTF-8") from error
    except msgspec.DecodeError as error:
        raise _not_json(body, error) from error


def _not_json(body: bytes, error: msgspec.DecodeError) -> NotJsonError:
    """Why a body is not JSON; where its only faults are NaN or halves of characters, also where the first stands."""
    try:
        found = _first_fault(json.loads(body, parse_constant=_Constant), ())
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return NotJsonError(f"the body is not JSON: {error}")
    steps, fault = found
    pointer = "".join(f"/{_escaped(_whole(str(step)))}" for step in steps)
    where = pointer or "the body"
    match steps:
        case ("records", int(index), str(field)) | ("columns", str(field), int(index)):
            where = f"record {index}, field '{shortened(_whole(field))}'"
    return NotJsonError(f"{where}: expected {fault}", pointer)


def _whole(text: str) -> str:
    """A text whose halves of characters are question marks, for no answer can hold them."""
    return text.encode(errors="replace").decode()


Steps = tuple[str | int, ...]


def _first_fault(value: Any, steps: Steps) -> tuple[Steps, str] | None:
    """What Python takes for JSON although it is none: where, and what was expected and found."""
    if isinstance(value, _Constant):
        return steps, f"a number, got {value}, which is not JSON; a missing value is null"
    if isinstance(value, str) and _SURROGATE.search(value):
        return steps, "whole characters, got a surrogate without its other half"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((hit for step, part in inner if (hit := _first_fault(part, (*steps, step)))), None)
