"""Files of records: CSV, Parquet and JSON lines, read in batches or as a whole.

Every CSV cell is read as text and cast here, so that fitting and scoring see the same text. A cast is one
vectorised pass over a column; only a column in which it fails is looked at again, cell by cell.
"""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import islice
from math import isnan
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nelbo.errors import RecordError, SchemaError, TableError
from nelbo.parts import Part, of_csv, of_lines, of_row_groups
from nelbo.records import Batch, RecordDecoder, expectation, shown
from nelbo.schema import Column, Schema
from nelbo.structs import seconds_since_1970, value_type

Progress = Callable[[float], object]

_HEAD = 1 << 20  # bytes in which the header must end; chosen
# A record must end within two blocks. Larger blocks cost memory, smaller ones a call per column and block;
# 4 MiB reads a table of 35 columns in steps of about 16,000 records.
_BLOCK = 4 << 20
_COLUMN_BUFFER = 1 << 20  # bytes read at once of a Parquet column; chosen
_READ_ROWS = 1 << 16  # records a chunk where a whole column is read; chosen
_PEEKED = 1_000  # JSON lines in which column names are looked for; chosen
_LISTED = 12  # names that an error repeats; chosen
_DELIMITERS = ",;\t|"
_MISSING = pa.array(["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"])
# Narrower than what Arrow parses ("inf", "nan(5)"), and just what it parses correctly.
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_EXACT = 2.0**53  # beyond it not every integer has a float of its own


def _silent(fraction: float) -> None:
    """Progress that nobody watches."""


# --- the three formats -------------------------------------------------------------------------------


@dataclass(frozen=True)
class CsvTable:
    """A file of delimited text.

    Attributes:
        path: of the file.
        columns: the names in its header.
        n_bytes: size of the file.
        delimiter: between two values.
        n_header_bytes: before the first record.
        has_records: there is something below the header.
    """

    format: ClassVar[Literal["csv"]] = "csv"

    path: Path
    columns: tuple[str, ...]
    n_bytes: int
    delimiter: str
    n_header_bytes: int
    has_records: bool

    def whole(self) -> Part:
        """All records."""
        return Part(0, self.n_header_bytes, self.n_bytes)

    def parts(self) -> Iterator[Part]:
        """The records in parts, in order."""
        return of_csv(self.path, self.n_header_bytes, self.n_bytes, self.delimiter)

    def batches(
        self,
        n_rows: int,
        names: Sequence[str] | None = None,
        progress: Progress = _silent,
        part: Part | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The records in order, every value a string, null where a cell is empty.

        Args:
            n_rows: the most records in a batch.
            names: of the columns wanted, in this order; None = all.
            progress: called with the fraction read so far, after every block and at the end with 1.0.
            part: of the file; None = all of it.

        Raises:
            TableError: a record is ragged or is not UTF-8, or the file cannot be read.
        """
        ragged: list[Any] = []
        part = part or self.whole()
        n_bytes = part.stop - part.start
        with _naming(self.path, ragged, part.first), pa.OSFile(str(self.path)) as file:
            there = file.get_stream(part.start, n_bytes)
            reader = self._reader(there, names, ragged) if self.has_records and n_bytes else ()
            for n_blocks, block in enumerate(reader, start=1):
                for first in range(0, block.num_rows, n_rows):
                    yield block.slice(first, n_rows)
                # The file's own position says little: pyarrow reads many blocks ahead.
                progress(min(1.0, n_blocks * _BLOCK / n_bytes))
        progress(1.0)

    def _reader(self, file: Any, names: Sequence[str] | None, ragged: list[Any]) -> Any:
        def refuse(row: Any) -> str:
            ragged.append(row)
            return "error"

        return pa_csv.open_csv(
            file,
            # With threads pyarrow does not know the number of a ragged row.
            pa_csv.ReadOptions(
                column_names=self.columns,
                use_threads=False,
                block_size=_BLOCK,
            ),
            pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=refuse),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(self.columns, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                include_columns=self.columns if names is None else names,
            ),
        )


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file.

    Attributes:
        path: of the file.
        columns: their names.
        n_bytes: size of the file.
        n_records: how many it holds.
        types: the Arrow schema of the columns.
        row_groups: records in each.
    """

    format: ClassVar[Literal["parquet"]] = "parquet"

    path: Path
    columns: tuple[str, ...]
    n_bytes: int
    n_records: int
    types: pa.Schema
    row_groups: tuple[int, ...]

    def whole(self) -> Part:
        """All records."""
        return Part(0, 0, len(self.row_groups), n_records=self.n_records)

    def parts(self) -> Iterator[Part]:
        """The records in parts, in order."""
        return of_row_groups(self.row_groups)

    def batches(
        self,
        n_rows: int,
        names: Sequence[str] | None = None,
        progress: Progress = _silent,
        part: Part | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The records in order, of the file's own types; arguments as for `CsvTable.batches`."""
        names, part = list(self.columns if names is None else names), part or self.whole()
        to_skip, n_read, n_records = part.skip, 0, part.n_records or 0
        # Else each column chunk would be read as a whole: of a large row group that is gigabytes.
        with _naming(self.path), pq.ParquetFile(self.path, buffer_size=_COLUMN_BUFFER, pre_buffer=False) as file:
            groups = range(part.start, part.stop)
            for block in file.iter_batches(n_rows, row_groups=groups, columns=names, use_threads=False):
                block.validate(full=True)  # pyarrow looks for a damaged value where it is too late to say whose
                wanted = block.select(names).slice(to_skip, n_records - n_read)
                to_skip = max(0, to_skip - block.num_rows)
                if wanted.num_rows:
                    yield wanted
                n_read += wanted.num_rows
                progress(n_read / n_records)
                if n_read == n_records:
                    break
        progress(1.0)


@dataclass(frozen=True)
class NdjsonTable:
    """A file of JSON lines.

    Attributes:
        path: of the file.
        columns: the names in its first 1,000 records.
        n_bytes: size of the file.
        n_header_bytes: before the first record: a byte order mark, or none.
    """

    format: ClassVar[Literal["ndjson"]] = "ndjson"

    path: Path
    columns: tuple[str, ...]
    n_bytes: int
    n_header_bytes: int

    def whole(self) -> Part:
        """All records."""
        return Part(0, self.n_header_bytes, self.n_bytes)

    def parts(self) -> Iterator[Part]:
        """The records in parts, in order."""
        return of_lines(self.path, self.n_header_bytes, self.n_bytes)

    def lines(self, n_rows: int, progress: Progress = _silent, part: Part | None = None) -> Iterator[bytes]:
        """At most `n_rows` whole lines at a time; blank ones are left out."""
        part = part or self.whole()
        with _naming(self.path), self.path.open("rb") as file:
            file.seek(part.start)
            present = (line for line in _lines_of(file, part.stop - part.start) if line.strip())
            while body := b"".join(islice(present, n_rows)):
                yield body
                progress((file.tell() - part.start) / (part.stop - part.start))
        progress(1.0)


def _lines_of(file: IO[bytes], n_bytes: int) -> Iterator[bytes]:
    """The lines of so many bytes."""
    for line in file if n_bytes else ():
        yield line
        n_bytes -= len(line)
        if n_bytes <= 0:
            return


Table = CsvTable | ParquetTable | NdjsonTable

_SUFFIXES = ".csv, .tsv, .parquet, .ndjson or .jsonl"


def open_table(path: Path) -> Table:
    """A file of records, known by its suffix; nothing but its head is read.

    Raises:
        TableError: the file is not there, is empty, or is not what its suffix says.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise TableError(f"{path}: expected a file of records, got a folder")
    if suffix not in _OPENED:
        raise TableError(f"{path}: expected a file that ends in {_SUFFIXES}, got '{suffix}'")
    with _naming(path):
        n_bytes = path.stat().st_size
        if n_bytes == 0:
            raise TableError(f"{path}: expected records, got an empty file")
        table = _OPENED[suffix](path, n_bytes)
    repeated = [name for name, n in Counter(table.columns).items() if n > 1]
    if repeated:
        raise TableError(f"{path}: expected distinct column names, got '{repeated[0]}' several times")
    return table


def _csv(path: Path, n_bytes: int) -> CsvTable:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=n_bytes <= _HEAD)
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: {_NOT_UTF8}") from error
    delimiters = "\t" if path.suffix.lower() == ".tsv" else _DELIMITERS
    try:
        headers = [_header(text, delimiter) for delimiter in delimiters]
    except csv.Error as error:
        raise TableError(f"{path}: the header cannot be read: {error}") from error
    delimiter, (names, rest) = max(zip(delimiters, headers, strict=True), key=lambda pair: len(pair[1][0]))
    if not names:
        raise TableError(f"{path}: expected a header, got blank lines")
    n_header_bytes = len(_byte_order_mark(head)) + len(text.removesuffix(rest).encode())
    return CsvTable(path, tuple(names), n_bytes, delimiter, n_header_bytes, bool(rest.strip()) or n_bytes > _HEAD)


def _header(text: str, delimiter: str) -> tuple[list[str], str]:
    """The names in the first line that is not blank, and the text below."""
    lines = io.StringIO(text, newline="")
    names = next((row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)), [])
    return names, lines.read()


def _parquet(path: Path, n_bytes: int) -> ParquetTable:
    try:
        with pq.ParquetFile(path) as file:
            types, read = file.schema_arrow, file.metadata
            names = tuple(types.names)
            row_groups = tuple(read.row_group(i).num_rows for i in range(read.num_row_groups))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise TableError(f"{path}: expected a Parquet file, got something else or a damaged one") from error
    return ParquetTable(path, names, n_bytes, read.num_rows, types, row_groups)


def _ndjson(path: Path, n_bytes: int) -> NdjsonTable:
    names: dict[str, None] = {}
    with path.open("rb") as file:
        n_header_bytes = len(_byte_order_mark(file.read(3)))
    for line in islice(NdjsonTable(path, (), n_bytes, n_header_bytes).lines(1), _PEEKED):
        if not names and line.lstrip().startswith(b"["):
            raise TableError(f"{path}: expected one JSON object a line, got a JSON array")
        names |= dict.fromkeys(_keys(line))
    return NdjsonTable(path, tuple(names), n_bytes, n_header_bytes)


def _keys(line: bytes) -> Sequence[str]:
    try:
        return list(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
    except (ValueError, RecursionError):
        return ()  # whoever reads the records says what is wrong with this one


_OPENED: dict[str, Callable[[Path, int], Table]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".ndjson": _ndjson,
    ".jsonl": _ndjson,
}


def _byte_order_mark(head: bytes) -> bytes:
    return codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""


_NOT_UTF8 = "expected UTF-8 text, got bytes that are not; save the file as UTF-8"


@contextmanager
def _naming(path: Path, ragged: Sequence[Any] = (), first: int = 0) -> Iterator[None]:
    """Turns the libraries' errors into one that names the file, and the ragged row if that was it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if ragged:
            found, wanted = ragged[0].actual_columns, ragged[0].expected_columns
            record = first + ragged[0].number - 1
            detail = f"record {record}: expected {wanted} values as in the header, got {found}"
        elif "invalid UTF8" in str(error):
            detail = _NOT_UTF8
        elif "straddl" in str(error):
            detail = f"expected records of less than {_BLOCK >> 20} MiB, got a longer one; is a quote left open?"
        elif isinstance(error, OSError) and error.strerror:
            detail = f"cannot be read: {error.strerror}"
        else:
            detail = f"cannot be read: {str(error).splitlines()[0]}"
        raise TableError(f"{path}: {detail}") from error


# --- records in batches, by a schema -----------------------------------------------------------------


class Cells(Sequence[Any]):
    """A column's values, made plain only when looked at: str, int, float, bool or None.

    >>> list(Cells(pa.array([1.5, None])))
    [1.5, None]
    """

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return Cells(self._array[position])
        return _cell(self._array[int(position)])

    def __iter__(self) -> Iterator[Any]:
        try:
            return map(_plain_value, self._array.to_pylist())
        except (OverflowError, ValueError):
            return map(_cell, self._array)


def _cell(scalar: Any) -> Any:
    try:
        return _plain_value(scalar.as_py())
    except (OverflowError, ValueError):  # a moment beyond Python's years
        return scalar.cast(pa.string()).as_py()


def _plain_value(value: Any) -> Any:
    if isinstance(value, float) and isnan(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


def read_batches(
    table: Table,
    decoder: RecordDecoder,
    n_rows: int,
    progress: Progress = _silent,
    ignored: Sequence[str] = (),
    part: Part | None = None,
) -> Iterator[Batch]:
    """The records as batches, in bounded memory; positions count through the file.

    Args:
        table: to read.
        decoder: of the schema that the records should have.
        n_rows: the most records in a batch; the last of a block is smaller.
        progress: called with the fraction read so far, after every block and at the end with 1.0.
        ignored: columns that may be there although the schema does not know them; a label, for example.
        part: of the file; None = all of it.

    Raises:
        SchemaError: a column is unknown or absent, or its type cannot hold such values. Raised at once.
        TableError: the file cannot be read on. Raised while reading.
    """
    decoder = _ignoring(decoder, ignored)
    if isinstance(table, NdjsonTable):
        return _batches_of_lines(table, decoder, n_rows, progress, part or table.whole())
    check_columns(table, decoder.schema, decoder.name)
    return _batches_of_columns(table, decoder, n_rows, progress, part or table.whole())


def _ignoring(decoder: RecordDecoder, names: Sequence[str]) -> RecordDecoder:
    schema = decoder.schema
    known = {column.name for column in schema.columns}
    others = tuple(Column(name=name, role="ignored") for name in names if name not in known)
    if not others:
        return decoder
    return RecordDecoder(Schema(extra=schema.extra, columns=schema.columns + others), decoder.name)


def check_columns(table: CsvTable | ParquetTable, schema: Schema, name: str) -> None:
    """Refuses a table whose columns do not fit a schema.

    Args:
        table: whose header is looked at.
        schema: that it should fit.
        name: what the schema's owner is called in errors.

    Raises:
        SchemaError: naming the column, what was expected, and what the table has.
    """
    check_names(str(table.path), table.columns, schema, name)
    if isinstance(table, ParquetTable):
        check_types(str(table.path), table.types, schema)


def check_names(where: str, columns: Sequence[str], schema: Schema, name: str) -> None:
    """Refuses columns that are not those of a schema; `where` is what the table is called in errors."""
    known = {column.name for column in schema.columns}
    for column in columns:
        if column not in known and schema.extra == "refuse":
            detail = f"expected the columns of {name}, got another one, '{column}'"
            raise SchemaError(f'{where}: {detail}; drop it, or set "extra": "ignore" in the schema')
    for field in schema.fields:
        if field.name not in columns and not field.nullable:
            detail = f"expected a column '{field.name}' as in {name}, got only {_names(columns)}"
            raise SchemaError(f"{where}: {detail}")


def check_types(where: str, types: pa.Schema, schema: Schema) -> None:
    """Refuses columns whose types cannot hold the values of a schema's fields."""
    for field in schema.fields:
        if field.name in types.names:
            found = types.field(field.name).type
            if _plain_type(found) not in _holding(field):
                raise SchemaError(f"{where}: column '{field.name}': expected {expectation(field)}, got type {found}")


@lru_cache(maxsize=64)
def _plain_type(kind: pa.DataType) -> pa.DataType:
    return plain(pa.nulls(0, kind)).type


def _holding(field: Column) -> tuple[pa.DataType, ...]:
    """The plain types that can hold the values of a field."""
    match field.kind:
        case "numeric":
            return (pa.null(), pa.int64(), pa.float64())
        case "boolean":
            return (pa.null(), pa.bool_())
        case "timestamp":
            return (pa.null(), pa.timestamp("us"), pa.string(), pa.int64(), pa.float64())
        case _ if _takes_integers(field):
            return (pa.null(), pa.int64(), pa.float64())
        case _:
            return (pa.null(), pa.string())


def _takes_integers(field: Column) -> bool:
    return bool(value_type(field) == int | None)


def _names(columns: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in columns[:_LISTED])
    return listed if len(columns) <= _LISTED else f"{listed} and {len(columns) - _LISTED} more"


def _batches_of_lines(
    table: NdjsonTable, decoder: RecordDecoder, n_rows: int, progress: Progress, part: Part
) -> Iterator[Batch]:
    first = part.first
    for body in table.lines(n_rows, progress, part):
        batch = decoder.lines(body, first)
        yield batch
        first += batch.n_records


def _batches_of_columns(
    table: CsvTable | ParquetTable, decoder: RecordDecoder, n_rows: int, progress: Progress, part: Part
) -> Iterator[Batch]:
    is_text = isinstance(table, CsvTable)
    wanted = {column.name for column in decoder.schema.columns if column.role in ("field", "id")}
    # One column at least: a file of which nothing is read has no records.
    names = [name for name in table.columns if name in wanted] or table.columns[:1]
    first = part.first
    for records in table.batches(n_rows, names, progress, part):
        columns = dict(zip(names, records.columns, strict=True))
        yield batch_of(decoder, columns, np.arange(first, first + records.num_rows), is_text=is_text)
        first += records.num_rows


def batch_of(decoder: RecordDecoder, columns: dict[str, pa.Array], index: NDArray[np.int64], *, is_text: bool) -> Batch:
    """The good records of some columns, and the errors of the others.

    Args:
        decoder: of the schema whose fields and ids the columns are.
        columns: by name, n values each.
        index: shape (n,), position of each record.
        is_text: every value is text, as in CSV; else the columns have types.
    """
    cast = _cast_text if is_text else _cast_typed
    casts = {field.name: cast(field, columns[field.name]) for field in decoder.schema.fields if field.name in columns}
    errors = _errors(decoder.schema, casts, index)
    if errors:
        is_good = ~np.isin(index, [error.index for error in errors])
        index, mask = index[is_good], pa.array(is_good)
        columns = {name: array.filter(mask) for name, array in columns.items()}
        casts = {name: Cast(c.source.filter(mask), c.cells.filter(mask)) for name, c in casts.items()}
    values: dict[str, Any] = {
        column.name: Cells(columns[column.name]) for column in decoder.schema.with_role("id") if column.name in columns
    }
    values |= {f.name: _listed(casts[f.name].cells) for f in decoder.schema.codes if f.name in casts}
    numbers = {f.name: _floats(casts[f.name].cells) for f in decoder.schema.numbers if f.name in casts}
    batch = decoder.columns(values | numbers, index)
    shown_numbers = {
        field.name: Cells(casts[field.name].source if field.kind == "timestamp" else casts[field.name].cells)
        for field in decoder.schema.numbers
        if field.name in casts
    }
    return replace(batch, values={**batch.values, **shown_numbers}, errors=tuple(errors))


def _errors(schema: Schema, casts: Mapping[str, "Cast"], index: NDArray[np.int64]) -> list[RecordError]:
    """For each record with wrong cells the first of them, in the schema's order."""
    errors: dict[int, RecordError] = {}
    for field in schema.fields:
        if field.name in casts:
            cast = casts[field.name]
            for i in cast.wrong():
                found = shown(_cell(cast.source[i]))
                errors.setdefault(i, RecordError(int(index[i]), field.name, expectation(field), found))
    return [errors[i] for i in sorted(errors)]


def _listed(cells: pa.Array) -> list[Any]:
    """Plain values; each distinct one is converted once."""
    encoded = cells.dictionary_encode()
    distinct = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    codes = encoded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)
    return list(distinct[codes])


def _floats(cells: pa.Array) -> NDArray[np.float64]:
    return np.asarray(cells.to_numpy(zero_copy_only=False), dtype=np.float64)


# --- casts -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cast:
    """A column before and after a cast.

    Attributes:
        source: as it stands in the file; null = missing.
        cells: of the wanted type; null = missing, or wrong.
    """

    source: pa.Array
    cells: pa.Array

    @property
    def is_clean(self) -> bool:
        """No cell is wrong."""
        return bool(self.source.null_count == self.cells.null_count)

    def wrong(self) -> list[int]:
        """Positions of the cells that are no such value."""
        if self.is_clean:
            return []
        is_wrong = pc.and_(self.source.is_valid(), self.cells.is_null())
        return np.flatnonzero(is_wrong.to_numpy(zero_copy_only=False)).tolist()


def _cast_text(field: Column, text: pa.Array) -> Cast:
    match field.kind:
        case "numeric":
            return numbers(text)
        case "boolean":
            return booleans(text)
        case "timestamp":
            return times(text)
        case _:
            return integers(text) if _takes_integers(field) else Cast(text, text)


def _cast_typed(field: Column, array: pa.Array) -> Cast:
    # Most columns are such, and each kernel of pyarrow costs as much as the rest of the column.
    if field.kind == "numeric" and _is_finite(array):
        return Cast(array, array)
    source = plain(array)
    if pa.types.is_null(source.type):
        return Cast(source, source.cast(pa.float64() if not field.is_coded else pa.string()))
    if field.is_coded:
        is_float = pa.types.is_floating(source.type)
        return Cast(source, _integral(source) if is_float else source)
    if pa.types.is_string(source.type):
        return moments(source)
    if pa.types.is_timestamp(source.type):
        return Cast(source, _seconds(source))
    floats = source.cast(pa.float64(), safe=False)
    return Cast(floats, _finite(floats))


def numbers(text: pa.Array) -> Cast:
    """Text as finite floats; blanks around a number are no fault.

    >>> cast = numbers(pa.array([" 1.5", "NA", "1e400"]))
    >>> cast.cells.to_pylist(), cast.wrong()
    ([1.5, None, None], [2])
    """
    cells = _tried(text, pa.float64())
    if cells is not None and pc.all(pc.is_finite(cells), min_count=0).as_py():
        return Cast(text, cells)
    source = _without_missing(text)
    is_number = pc.match_substring_regex(source, _NUMBER)
    cells = pc.if_else(is_number, source, pa.scalar(None, pa.string())).cast(pa.float64())
    return Cast(source, _finite(cells))


def integers(text: pa.Array) -> Cast:
    """Text as integers; "1.0" is one, as a column of integers with gaps is often written.

    >>> integers(pa.array(["1", "2.0", "2.5"])).cells.to_pylist()
    [1, 2, None]
    """
    exact = _exact_integers(text)
    return exact if exact.is_clean else Cast(exact.source, _integral(numbers(exact.source).cells))


def booleans(text: pa.Array) -> Cast:
    """Text as true and false, in any case.

    >>> booleans(pa.array(["True", "false", "1"])).cells.to_pylist()
    [True, False, None]
    """
    source = _without_missing(text)
    lower = pc.utf8_lower(source)
    otherwise = pc.if_else(pc.equal(lower, "false"), False, pa.scalar(None, pa.bool_()))
    return Cast(source, pc.if_else(pc.equal(lower, "true"), True, otherwise))


def times(text: pa.Array) -> Cast:
    """Text as seconds since 1970 UTC: a number of them, or an ISO 8601 date and time.

    >>> times(pa.array(["1970-01-01 00:01", "7.5", None])).cells.to_pylist()
    [60.0, 7.5, None]
    """
    cast = moments(text)
    if cast.is_clean:
        return cast
    return Cast(cast.source, pc.coalesce(cast.cells, numbers(cast.source).cells))


def moments(text: pa.Array) -> Cast:
    """ISO 8601 text as seconds since 1970 UTC; a time without a zone is UTC."""
    source = _without_missing(text)
    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        cells = _tried(source, type_)
        if cells is not None:
            return Cast(source, _seconds(cells))
    encoded = source.dictionary_encode()
    distinct = pa.array([_moment(value) for value in encoded.dictionary.to_pylist()], pa.float64())
    return Cast(source, distinct.take(encoded.indices))


def _moment(text: str) -> float | None:
    if text.isdecimal():
        return None  # "20240131" is a date in ISO 8601, but in a column of numbers it is a number
    try:
        return seconds_since_1970(text)
    except ValueError:
        return None


def _exact_integers(text: pa.Array) -> Cast:
    """Text as integers that are written as such; all cells null if one is not."""
    as_numbers = numbers(text)  # first, since Arrow takes "0x1F" for an integer
    source = as_numbers.source
    cells = _tried(source, pa.int64()) if as_numbers.is_clean else None
    return Cast(source, pa.nulls(len(source), pa.int64()) if cells is None else cells)


def _integral(cells: pa.Array) -> pa.Array:
    """Floats as integers, null where they are not."""
    is_integer = pc.and_(pc.equal(pc.floor(cells), cells), pc.less_equal(pc.abs(cells), _EXACT))
    return pc.if_else(is_integer, cells, pa.scalar(None, pa.float64())).cast(pa.int64())


def _is_finite(array: pa.Array) -> bool:
    return array.type == pa.float64() and array.null_count == 0 and bool(np.isfinite(array.to_numpy()).all())


def _finite(cells: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_finite(cells), cells, pa.scalar(None, pa.float64()))


def _seconds(moments_: pa.Array) -> pa.Array:
    microseconds = moments_.cast(pa.int64()).cast(pa.float64(), safe=False)
    return pc.divide(microseconds, 1e6)


def _without_missing(text: pa.Array) -> pa.Array:
    """Text without blanks around it, null where it is a word for a missing value."""
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.is_in(trimmed, value_set=_MISSING), pa.scalar(None, pa.string()), trimmed)


def _tried(array: pa.Array, type_: pa.DataType) -> pa.Array | None:
    try:
        # Arrow words an error for every cell that fails, so a hopeless column is told by its first few.
        array[:8].cast(type_)
        return array.cast(type_)
    except pa.ArrowInvalid:
        return None


# --- labels ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """What a column says of n records; of a record without a value it says neither.

    Attributes:
        is_normal: shape (n,).
        is_anomaly: shape (n,).
    """

    is_normal: NDArray[np.bool_]
    is_anomaly: NDArray[np.bool_]


def labels(table: Table, name: str, normal: str) -> Labels:
    """Which records of a file are normal, by their positions in it.

    Args:
        table: to read.
        name: of the column that says it.
        normal: its value in normal records, as text: true is 'true' and 1 is '1'.

    Raises:
        SchemaError: there is no such column.
        TableError: no record has that value; the text lists those there are.
    """
    if name not in table.columns:
        raise SchemaError(_no_column(table.path, name, table.columns))
    if isinstance(table, NdjsonTable):
        return _labels(table.path, name, normal, _label_texts_of_lines(table, name))
    values = read_columns(table, [name])[name].to_pylist()
    return _labels(table.path, name, normal, [_label_text(value) for value in values])


def _labels(path: Path, name: str, normal: str, texts: Sequence[str | None]) -> Labels:
    found = sorted({text for text in texts if text is not None})
    if normal not in found:
        only = f"only {_names(found)}" if found else "nor any other value"
        raise TableError(f"{path}: column '{name}' holds no '{normal}', {only}")
    return Labels(
        is_normal=np.array([text == normal for text in texts]),
        is_anomaly=np.array([text is not None and text != normal for text in texts]),
    )


def _label_texts_of_lines(table: NdjsonTable, name: str) -> list[str | None]:
    """A line that is no record has no label; whoever reads the records says what is wrong with it."""
    record, value = msgspec.json.Decoder(dict[str, msgspec.Raw]), msgspec.json.Decoder(str | int | float | bool | None)
    texts: list[str | None] = []
    for line in table.lines(1):
        try:
            texts.append(_label_text(value.decode(record.decode(line).get(name, b"null"))))
        except (ValueError, RecursionError):
            texts.append(None)
    return texts


def _label_text(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _no_column(path: Path, name: str, columns: Sequence[str]) -> str:
    return f"{path}: expected a column '{name}', got only {_names(columns)}"


# --- whole columns, with inferred types --------------------------------------------------------------


def count_records(table: Table) -> int:
    """How many records a file holds, in bounded memory.

    Raises:
        TableError: the file cannot be read.
    """
    match table:
        case ParquetTable():
            return table.n_records
        case CsvTable():
            return sum(batch.num_rows for batch in table.batches(_READ_ROWS, table.columns[:1]))
        case NdjsonTable():
            return sum(1 for _ in table.lines(1))


def read_columns(table: Table, names: Sequence[str] | None = None, rows: NDArray[np.int64] | None = None) -> pa.Table:
    """A table in memory, for fitting and inference.

    Args:
        table: to read; what is not kept takes no memory, but for JSON lines.
        names: of the columns to keep; None = all.
        rows: positions of the records to keep, ascending; None = all.

    Returns:
        Columns of type bool, int64, float64, timestamp[us] (UTC, without a zone) or string, null = missing.
        Text becomes the first of these that fits all of its values.

    Raises:
        TableError: the file cannot be read.
        SchemaError: a wanted column is not there.
    """
    for name in names or ():
        if name not in table.columns:
            raise SchemaError(_no_column(table.path, name, table.columns))
    match table:
        case CsvTable():
            return _by_column(_kept(table, names, rows), _inferred)
        case ParquetTable():
            return _by_column(_kept(table, names, rows), _plain_chunks)
        case NdjsonTable():
            with _naming(table.path):
                read = pa_json.read_json(table.path, pa_json.ReadOptions(block_size=_BLOCK))
            read = read if names is None else read.select(list(names))
            return _by_column(read if rows is None else read.take(pa.array(rows)), _inferred_json)


def _kept(table: CsvTable | ParquetTable, names: Sequence[str] | None, rows: NDArray[np.int64] | None) -> pa.Table:
    names = list(table.columns if names is None else names)
    types = table.types if isinstance(table, ParquetTable) else pa.schema([(n, pa.string()) for n in names])
    batches: Iterable[pa.RecordBatch] = table.batches(_READ_ROWS, names)
    if rows is not None:
        batches = _taken(batches, rows)
    return pa.Table.from_batches(batches, pa.schema([types.field(name) for name in names]))


def _taken(batches: Iterable[pa.RecordBatch], rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in batches:
        start, stop = np.searchsorted(rows, [first, first + batch.num_rows])
        yield batch.take(pa.array(rows[start:stop] - first))  # a copy: a slice would keep the whole batch
        first += batch.num_rows


def _by_column(table: pa.Table, change: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> pa.Table:
    return pa.table([change(column) for column in table.columns], names=table.column_names)


def _plain_chunks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [plain(chunk) for chunk in column.chunks]
    return pa.chunked_array(chunks, plain(pa.nulls(0, column.type)).type)


def _inferred(text: pa.ChunkedArray) -> pa.ChunkedArray:
    for cast in (_exact_integers, numbers, booleans):
        cells = _all_clean(text, cast)
        if cells is not None:
            return cells
    return _inferred_moments(text)


def _inferred_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """JSON says what is a number, but has no type for a time."""
    chunks = _plain_chunks(column)
    return _inferred_moments(chunks) if pa.types.is_string(chunks.type) else chunks


def _inferred_moments(text: pa.ChunkedArray) -> pa.ChunkedArray:
    seconds = _all_clean(text, moments)
    if seconds is None:
        return text
    microseconds = pc.round(pc.multiply(seconds, 1e6))
    return microseconds.cast(pa.int64()).cast(pa.timestamp("us"))


def _all_clean(text: pa.ChunkedArray, cast: Callable[[pa.Array], Cast]) -> pa.ChunkedArray | None:
    """The cast column, or None from the first chunk on in which a cell is wrong."""
    chunks = []
    for chunk in text.chunks or [pa.nulls(0, pa.string())]:
        done = cast(chunk)
        if not done.is_clean:
            return None
        chunks.append(done.cells)
    return pa.chunked_array(chunks)


def plain(array: pa.Array) -> pa.Array:
    """An array of one of few types: null, bool, int64, float64, string, timestamp[us] in UTC without a zone.

    NaN becomes null, dictionaries are decoded, decimals become floats; lists, structs, bytes and the like
    stay as they are.

    >>> plain(pa.array([1, 2], pa.int8())).type
    DataType(int64)
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.cast(kind.value_type))
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return array.cast(pa.string())
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return array.cast(pa.int64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return array.cast(pa.timestamp("us"), safe=False)
    if kind == pa.uint64() or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        floats = array.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(floats), pa.scalar(None, pa.float64()), floats)
    return array
