"""Records and results in memory as CSV and as Arrow IPC streams: what comes from a stranger, so everything is bounded.

The casts are those of files, so that a file and a body of the same bytes get the same scores.
"""

import csv
import io
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray
from pyarrow import ipc

from nelbo.errors import RecordError, SchemaError, TableError, TooManyRecordsError
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Schema
from nelbo.spreadsheet import plain
from nelbo.tables import batch_of, check_names, check_types

_HEADER = 1 << 20  # bytes in which a header must end, as in files
_BLOCK = 2**31 - 1  # the largest that pyarrow takes: a body is one block
_TEXT = 64 << 20  # bytes of text that an Arrow body may stand for: a dictionary can repeat a long one; chosen
_MESSAGES = 10_000  # of an Arrow stream: each costs some microseconds, whatever it holds; chosen
_BODY = "the body"


# --- CSV ---------------------------------------------------------------------------------------------


def read_csv(body: bytes, decoder: RecordDecoder, max_records: int) -> Batch:
    r"""The records of comma-separated text with a header.

    Args:
        body: UTF-8.
        decoder: of the schema that the records should have.
        max_records: more are refused.

    Raises:
        TableError: the body is not CSV in UTF-8.
        SchemaError: a column is unknown, absent, or there twice.
        TooManyRecordsError: there are more records.

    >>> from nelbo.schema import Column
    >>> decoder = RecordDecoder(Schema(columns=(Column(name="rpm", role="field", kind="numeric"),)))
    >>> batch = read_csv(b"rpm\n1500\nfast\n", decoder, max_records=10)
    >>> batch.numbers.tolist(), str(batch.errors[0])
    ([[1500.0]], "record 1, field 'rpm': expected a number, got 'fast'")
    """
    names, start = _header(body)
    _check_distinct(names)
    check_names(_BODY, names, decoder.schema, decoder.name)
    wanted = _wanted(names, decoder.schema)
    ragged: list[RecordError] = []

    def skip(row: Any) -> str:
        expected = f"{row.expected_columns} values as in the header"
        # An open quote takes in all lines up to the next one, and with them their records.
        hint = "; is a quote left open?" if row.text.count('"') % 2 else ""
        ragged.append(RecordError(row.number - 1, None, expected, f"{row.actual_columns}{hint}"))
        return "skip" if len(ragged) <= max_records else "error"

    with _reading("CSV"):
        try:
            table = _parsed(body, start, names, wanted, skip)
        except pa.ArrowInvalid:
            _expect_at_most(max_records, len(ragged))
            raise
    n = table.num_rows + len(ragged)
    _expect_at_most(max_records, n)
    index = np.setdiff1d(np.arange(n), [error.index for error in ragged])
    batch = batch_of(decoder, _columns(table), index, is_text=True)
    return replace(batch, errors=tuple(sorted([*batch.errors, *ragged], key=lambda error: error.index)))


def _parsed(body: bytes, start: int, names: Sequence[str], wanted: Sequence[str], skip: Any) -> pa.Table:
    if not body[start:].strip(b"\r\n"):  # pyarrow takes no CSV without a record
        return pa.table({name: pa.nulls(0, pa.string()) for name in wanted})
    return pa_csv.read_csv(
        pa.BufferReader(pa.py_buffer(body).slice(start)),
        # With threads pyarrow does not know the number of a ragged row.
        pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=min(len(body) + 1, _BLOCK)),
        pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            include_columns=wanted,
        ),
    )


def _header(body: bytes) -> tuple[list[str], int]:
    """The names in the first line that is not blank, and where the line below it begins."""
    mark = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    text = body[mark : mark + _HEADER].decode(errors="surrogateescape")
    lines = io.StringIO(text, newline="")
    try:
        names = next((row for row in csv.reader(lines) if any(cell.strip() for cell in row)), [])
    except csv.Error as error:
        raise TableError(f"{_BODY}: the header cannot be read: {error}") from error
    if not names:
        raise TableError(f"{_BODY}: expected a header, got blank lines")
    with _reading("CSV"):
        "".join(names).encode()
    return names, mark + len(text[: lines.tell()].encode(errors="surrogateescape"))


# --- Arrow -------------------------------------------------------------------------------------------


def read_arrow(body: bytes, decoder: RecordDecoder, max_records: int) -> Batch:
    """The records of an Arrow IPC stream; columns without types for it are refused, dictionaries are decoded.

    Args:
        body: the stream, its buffers not compressed: what they would expand to is known only afterwards.
        decoder: of the schema that the records should have.
        max_records: more are refused.

    Raises:
        TableError: the body is not such a stream, or does not hold what it says.
        SchemaError: a column is unknown, absent, there twice, or of a type that cannot hold its values.
        TooManyRecordsError: there are more records.
    """
    with _reading("an Arrow IPC stream"):
        buffer = pa.py_buffer(body)
        _expect_at_most(max_records, _n_records(buffer))
        names = _checked_names(ipc.open_stream(buffer).schema, decoder)
        wanted = _wanted(names, decoder.schema)
        options = ipc.IpcReadOptions(included_fields=[names.index(name) for name in wanted], use_threads=False)
        with ipc.open_stream(buffer, options=options) as reader:
            table = pa.Table.from_batches(_validated(reader), reader.schema)
        _expect_little_text(table)
        return batch_of(decoder, _columns(table), np.arange(table.num_rows), is_text=False)


def _checked_names(types: pa.Schema, decoder: RecordDecoder) -> list[str]:
    _check_distinct(types.names)
    check_names(_BODY, types.names, decoder.schema, decoder.name)
    for column in types:
        if not _is_plain(column.type):
            expected = "text, numbers, true and false, or times"
            raise SchemaError(f"{_BODY}: column '{column.name}': expected {expected}, got type {column.type}")
    check_types(_BODY, types, decoder.schema)
    return list(types.names)


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_PLAIN = (
    *_TEXTS,
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_date,
)


@lru_cache(maxsize=64)
def _is_plain(kind: pa.DataType) -> bool:
    """Whether a type is safe to look into. pyarrow 26 itself crashes on some: an array of a union of nothing."""
    return any(is_of(_values(kind)) for is_of in _PLAIN)


@lru_cache(maxsize=64)
def _is_text(kind: pa.DataType) -> bool:
    return any(is_of(_values(kind)) for is_of in _TEXTS)


def _values(kind: pa.DataType) -> pa.DataType:
    """The type of what a dictionary holds; any other type itself."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _validated(reader: Any) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        batch.validate(full=True)
        yield batch


def _expect_little_text(table: pa.Table) -> None:
    """Refuses columns that stand for more text than a body can hold, before it is written out."""
    texts = [column for column in table.columns if _is_text(column.type)]
    n_bytes = sum(np.nansum(_lengths(chunk)) for column in texts for chunk in column.chunks)
    if n_bytes > _TEXT:
        raise TableError(
            f"{_BODY}: expected at most {_TEXT} bytes of text, got {n_bytes:.0f} with dictionaries decoded"
        )


def _lengths(array: pa.Array) -> NDArray[np.float64]:
    """Bytes of each text; 0 or NaN where there is none."""
    if pa.types.is_dictionary(array.type):
        lengths = np.append(_lengths(array.dictionary), 0.0)
        codes = array.indices.cast(pa.int64()).fill_null(-1)
        found: NDArray[np.float64] = lengths[codes.to_numpy()]
        return found
    if pa.types.is_string_view(array.type):
        # Of each view of 16 bytes the first four.
        first, stop = array.offset, array.offset + len(array)
        views = np.frombuffer(array.buffers()[1] or b"", np.int32, count=4 * stop)[4 * first :: 4]
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), views, 0.0)
    return np.asarray(pc.binary_length(array).to_numpy(zero_copy_only=False), dtype=np.float64)


def _n_records(buffer: pa.Buffer) -> int:
    """How many records a stream says that it holds, without reading them.

    Raises:
        TableError: buffers are compressed, or there are too many messages.
    """
    n_records = 0
    for n_messages, message in enumerate(ipc.MessageReader.open_stream(buffer)):
        if n_messages == _MESSAGES:
            raise TableError(f"{_BODY}: expected an Arrow IPC stream of at most {_MESSAGES} messages, got more")
        if message.type in ("record batch", "dictionary"):
            n_rows, is_compressed = _record_batch(message.metadata.to_pybytes())
            if is_compressed:
                raise TableError(f"{_BODY}: expected an Arrow IPC stream without compression, got compressed buffers")
            n_records += max(n_rows, 0) if message.type == "record batch" else 0
    return n_records


# Places of fields in the tables of Arrow's Message.fbs.
_HEADER_TYPE, _HEADER_TABLE = 1, 2
_LENGTH, _COMPRESSION = 0, 3
_DICTIONARY_BATCH, _DATA = 2, 1


def _record_batch(metadata: bytes) -> tuple[int, bool]:
    """The number of rows in a message, and whether its buffers are compressed; pyarrow tells neither beforehand.

    Source: Arrow's Message.fbs, and the FlatBuffers binary format.
    """
    message = _offset(metadata, 0)
    header = _offset(metadata, _field(metadata, message, _HEADER_TABLE))
    if metadata[_field(metadata, message, _HEADER_TYPE)] == _DICTIONARY_BATCH:
        header = _offset(metadata, _field(metadata, header, _DATA))
    length = _field(metadata, header, _LENGTH)
    (n_rows,) = struct.unpack_from("<q", metadata, length) if length else (0,)
    return n_rows, _field(metadata, header, _COMPRESSION) != 0


def _offset(metadata: bytes, at: int) -> int:
    """What an offset leads to."""
    return int(at + struct.unpack_from("<I", metadata, at)[0])


def _field(metadata: bytes, table: int, place: int) -> int:
    """Where a field of a table is; 0 where it is left out."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, vtable)
    if 4 + 2 * place >= size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, vtable + 4 + 2 * place)
    return table + offset if offset else 0


# --- both --------------------------------------------------------------------------------------------


def _wanted(names: Sequence[str], schema: Schema) -> list[str]:
    """The columns that are read: one at least, for without any there would be no records."""
    used = {column.name for column in schema.columns if column.role in ("field", "id")}
    return [name for name in names if name in used] or list(names[:1])


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    return {name: _joined(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _joined(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_string_view(column.type):  # for which pyarrow has few functions
        column = column.cast(pa.string())
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _check_distinct(names: Sequence[str]) -> None:
    repeated = next((name for name, n in Counter(names).items() if n > 1), None)
    if repeated is not None:
        raise SchemaError(f"{_BODY}: expected distinct column names, got '{repeated}' several times")


def _expect_at_most(max_records: int, n: int) -> None:
    if n > max_records:
        raise TooManyRecordsError(f"expected at most {max_records} records, got {n}")


@contextmanager
def _reading(form: str) -> Iterator[None]:
    """Turns whatever pyarrow raises about a stranger's bytes into one error, without the bytes."""
    try:
        yield
    except UnicodeError as error:
        raise TableError(f"{_BODY}: expected UTF-8 text, got bytes that are not") from error
    except (pa.ArrowException, OSError, IndexError, struct.error) as error:
        reason = "bytes that are not UTF-8" if "UTF8" in str(error) else "something else or a damaged one"
        raise TableError(f"{_BODY}: expected {form}, got {reason}") from error


# --- results -----------------------------------------------------------------------------------------


def csv_of(table: pa.Table) -> bytes:
    """A table as comma-separated text with a header; a spreadsheet takes nothing in it for a formula."""
    table = plain(table)
    names = io.StringIO()
    csv.writer(names, lineterminator="\n").writerow(table.column_names)
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(include_header=False))
    return names.getvalue().encode() + bytes(sink.getvalue())


def arrow_of(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
