import io
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from nelbo.buffers import arrow_of, csv_of, read_arrow, read_csv
from nelbo.errors import NelboError, SchemaError, TableError, TooManyRecordsError
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Column, Schema

SCHEMA = Schema(
    columns=(
        Column(name="serial", role="id"),
        Column(name="rpm", role="field", kind="numeric"),
        Column(name="valve", role="field", kind="categorical", categories=("open", "shut")),
        Column(name="heated", role="field", kind="boolean", nullable=True),
        Column(name="at", role="field", kind="timestamp", nullable=True),
        Column(name="note", role="ignored"),
    )
)
DECODER = RecordDecoder(SCHEMA, "pumps")
HEADER = b"serial,rpm,valve,heated,at\n"


def of_csv(body: bytes, max_records: int = 100) -> Batch:
    return read_csv(body, DECODER, max_records)


def of_arrow(body: bytes, max_records: int = 100) -> Batch:
    return read_arrow(body, DECODER, max_records)


def stream(*batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, batches[0].schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def record_batch(**columns: Any) -> pa.RecordBatch:
    given_ = {"rpm": [1500.0], "valve": ["open"]} | columns
    return pa.RecordBatch.from_pydict({name: values for name, values in given_.items() if values is not None})


def errors(batch: Batch) -> list[str]:
    return [str(error) for error in batch.errors]


# --- CSV ---------------------------------------------------------------------------------------------


def test_a_line_of_csv_is_a_record() -> None:
    batch = of_csv(HEADER + b'P-1,1500,open,true,1970-01-01T00:01:00Z\nP-2,,"ajar",,\n')
    np.testing.assert_array_equal(batch.numbers, [[1500.0, 60.0], [np.nan, np.nan]])
    assert (batch.codes.tolist(), list(batch.ids), batch.index.tolist()) == ([[0, 1], [3, -1]], ["P-1", "P-2"], [0, 1])


def test_columns_of_csv_may_stand_in_any_order_and_nullable_ones_be_left_out() -> None:
    batch = of_csv(b"valve,note,rpm\nshut,x,7\n")
    assert (batch.numbers[:, 0].tolist(), batch.codes.tolist()) == ([7.0], [[1, -1]])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_of_csv_may_end_in_any_way_and_the_last_one_in_none(end: bytes) -> None:
    body = end.join([b"rpm,valve", b"1,open", b"2,shut"])
    assert of_csv(body).numbers[:, 0].tolist() == of_csv(body + end).numbers[:, 0].tolist() == [1.0, 2.0]


def test_a_byte_order_mark_and_blank_lines_before_a_header_are_skipped() -> None:
    assert of_csv(b"\xef\xbb\xbf\n\nrpm,valve\n1,open\n").numbers[:, 0].tolist() == [1.0]


@pytest.mark.parametrize("body", [b"rpm,valve", b"rpm,valve\n", b"rpm,valve\n\r\n\n"])
def test_a_header_alone_has_no_records(body: bytes) -> None:
    assert len(of_csv(body)) == 0


def test_a_value_of_csv_may_hold_commas_quotes_and_line_feeds() -> None:
    batch = of_csv(b'serial,rpm,valve\n"a,""b""\nc",1,open\n')
    assert list(batch.ids) == ['a,"b"\nc']


def test_a_wrong_cell_of_csv_is_an_error_of_its_record() -> None:
    batch = of_csv(b"rpm,valve,heated\n1,open,true\nfast,open,true\n1e400,open,\n1,open,yes\n")
    assert errors(batch) == [
        "record 1, field 'rpm': expected a number, got 'fast'",
        "record 2, field 'rpm': expected a number, got '1e400'",
        "record 3, field 'heated': expected true or false, got 'yes'",
    ]
    assert batch.index.tolist() == [0]


def test_a_ragged_line_is_an_error_of_its_record_and_shifts_no_other() -> None:
    batch = of_csv(b"rpm,valve\n1\n2,open\nfast,open\n4,open,x\n5,shut\n")
    assert errors(batch) == [
        "record 0: expected 2 values as in the header, got 1",
        "record 2, field 'rpm': expected a number, got 'fast'",
        "record 3: expected 2 values as in the header, got 3",
    ]
    assert (batch.index.tolist(), batch.numbers[:, 0].tolist(), batch.n_records) == ([1, 4], [2.0, 5.0], 5)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body: expected a header, got blank lines"),
        (b" \n,\n", "the body: expected a header, got blank lines"),
        (b"rpm,v\xe4lve\n1,open\n", "the body: expected UTF-8 text, got bytes that are not"),
        (b"rpm,valve\n1,\xff\n", "the body: expected CSV, got bytes that are not UTF-8"),
        (b"rpm," + b"x" * 200_000, "the body: the header cannot be read: field larger than field limit (131072)"),
    ],
)
def test_a_body_that_is_no_csv_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(TableError) as caught:
        of_csv(body)
    assert str(caught.value) == text


@pytest.mark.parametrize("read", [lambda: of_csv(b"rpm,valve,x\n"), lambda: of_arrow(stream(record_batch(x=[1])))])
def test_a_column_that_the_schema_does_not_know_is_refused_by_name(read: Any) -> None:
    with pytest.raises(SchemaError, match=r"^the body: expected the columns of pumps, got another one, 'x'; drop it"):
        read()


@pytest.mark.parametrize("read", [lambda: of_csv(b"rpm\n1\n"), lambda: of_arrow(stream(record_batch(valve=None)))])
def test_a_column_left_out_is_named(read: Any) -> None:
    with pytest.raises(SchemaError, match=r"^the body: expected a column 'valve' as in pumps, got only 'rpm'$"):
        read()


def test_a_column_that_stands_twice_is_refused() -> None:
    with pytest.raises(SchemaError, match="distinct column names, got 'rpm' several times"):
        of_csv(b"rpm,valve,rpm\n1,open,1\n")
    twice = pa.RecordBatch.from_arrays([pa.array([1.0]), pa.array([1.0])], names=["rpm", "rpm"])
    with pytest.raises(SchemaError, match="distinct column names, got 'rpm' several times"):
        of_arrow(stream(twice))


@pytest.mark.parametrize("line", [b"1,open\n", b"1\n"])
def test_more_records_than_the_limit_are_refused(line: bytes) -> None:
    with pytest.raises(TooManyRecordsError, match="expected at most 3 records, got 4"):
        of_csv(b"rpm,valve\n" + 4 * line, max_records=3)
    with pytest.raises(TooManyRecordsError, match="expected at most 3 records, got 4"):
        of_arrow(stream(record_batch(), record_batch(rpm=[1.0] * 3, valve=["open"] * 3)), max_records=3)


# --- Arrow -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16(), pa.int8(), pa.uint64(), pa.int64()])
def test_any_type_of_number_is_a_number(kind: pa.DataType) -> None:
    batch = of_arrow(stream(record_batch(rpm=pa.array([1, 2], kind), valve=["open", "shut"])))
    assert batch.numbers[:, 0].tolist() == [1.0, 2.0]


def test_null_and_nan_are_missing_and_infinity_is_an_error() -> None:
    batch = of_arrow(stream(record_batch(rpm=[None, np.nan, np.inf, 4.0], valve=["open"] * 4)))
    np.testing.assert_array_equal(batch.numbers[:, 0], [np.nan, np.nan, 4.0])
    assert errors(batch) == ["record 2, field 'rpm': expected a number, got inf"]


@pytest.mark.parametrize(
    "valve",
    [
        pa.array(["shut", None, "ajar", "open"]),
        pa.array(["shut", None, "ajar", "open"], pa.large_string()),
        pa.array(["shut", None, "ajar", "open"], pa.string_view()),
        pa.array(["shut", None, "ajar", "open"]).dictionary_encode(),
        pa.array(["shut", None, "ajar", "open"], pa.dictionary(pa.int8(), pa.large_string())),
    ],
    ids=lambda array: str(array.type),
)
def test_any_type_of_text_is_a_category(valve: pa.Array) -> None:
    batch = of_arrow(stream(record_batch(rpm=[1.0, 2.0, 3.0, np.inf], valve=valve, serial=valve)))
    assert batch.codes[:, 0].tolist() == [1, -1, 3]
    assert list(batch.values["valve"]) == list(batch.ids) == ["shut", None, "ajar"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_moment_is_seconds_since_1970(unit: str) -> None:
    at = pa.array([datetime(1970, 1, 2, tzinfo=UTC)], pa.timestamp(unit, "UTC"))
    assert of_arrow(stream(record_batch(at=at))).numbers[0, 1] == 86400.0


def test_batches_and_their_dictionaries_make_one_batch() -> None:
    two = [record_batch(valve=pa.array([value]).dictionary_encode()) for value in ("shut", "open")]
    batch = of_arrow(stream(*two))
    assert (batch.codes[:, 0].tolist(), batch.index.tolist()) == ([1, 0], [0, 1])


def test_a_stream_without_batches_has_no_records() -> None:
    assert len(of_arrow(stream(record_batch().slice(0, 0)))) == 0


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"rpm": ["1500"]}, "column 'rpm': expected a number, got type string"),
        ({"rpm": [True]}, "column 'rpm': expected a number, got type bool"),
        ({"valve": [1]}, "column 'valve': expected a string, got type int64"),
        ({"valve": [b"open"]}, "column 'valve': expected text, numbers, true and false, or times, got type binary"),
        ({"heated": [1]}, "column 'heated': expected true or false, got type int64"),
        ({"note": [[1.0]]}, "column 'note': expected text, numbers, true and false, or times, got type list<"),
        ({"serial": [{"a": 1}]}, "expected text, numbers, true and false, or times, got type struct<a: int64>"),
    ],
)
def test_a_column_of_a_type_that_cannot_hold_its_values_is_refused(columns: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        of_arrow(stream(record_batch(**columns)))
    assert text in str(caught.value)


def test_a_type_that_crashes_pyarrow_is_refused_by_its_name_alone() -> None:
    types = pa.schema([("rpm", pa.float64()), ("valve", pa.dictionary(pa.int8(), pa.sparse_union([])))])
    with pytest.raises(SchemaError, match=r"column 'valve': expected text, numbers, .* got type dictionary<values"):
        of_arrow(types.serialize().to_pybytes())


@pytest.mark.parametrize(
    ("serial", "expected"),
    [(["P-1"], "P-1"), ([7], 7), ([2.5], 2.5), ([True], True), ([None], None), ([Decimal("1.50")], "1.50")],
)
def test_an_id_is_echoed(serial: list[Any], expected: object) -> None:
    assert list(of_arrow(stream(record_batch(serial=serial))).ids) == [expected]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_before_they_are_expanded(compression: str) -> None:
    bomb = record_batch(rpm=np.zeros(100), valve=pa.array(["open"] * 100).dictionary_encode())
    with pytest.raises(TableError, match="without compression, got compressed buffers"):
        of_arrow(stream(bomb, compression=compression))


LONG = "x" * (1 << 20)
DICTIONARY = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), pa.array([LONG]))
_, VIEW, TEXT = pa.array([LONG], pa.string_view()).buffers()
VIEWS = pa.Array.from_buffers(pa.string_view(), 100, [None, pa.py_buffer(VIEW.to_pybytes()[:16] * 100), TEXT])


@pytest.mark.parametrize("long", [DICTIONARY, VIEWS], ids=["dictionary", "views"])
def test_a_text_that_is_repeated_by_reference_is_not_written_out(long: pa.Array) -> None:
    body = stream(record_batch(rpm=np.zeros(100), valve=long))
    assert len(body) < 2 << 20
    with pytest.raises(TableError, match="at most 67108864 bytes of text, got 104857600 with dictionaries decoded"):
        of_arrow(body)


def test_a_stream_of_more_messages_than_any_needs_is_refused() -> None:
    with pytest.raises(TableError, match="at most 10000 messages, got more"):
        of_arrow(stream(*[record_batch().slice(0, 0)] * 10_000))


def test_a_stream_that_names_more_records_than_it_holds_is_refused() -> None:
    body = stream(record_batch())
    # The batch's own length and that of its columns, in the metadata of the record batch.
    lied = body.replace(struct.pack("<q", 1), struct.pack("<q", 90))
    assert lied != body
    with pytest.raises(TableError, match="expected an Arrow IPC stream, got something else or a damaged one"):
        of_arrow(lied)


@pytest.mark.parametrize("body", [b"", b"ARROW1", b'{"records":[]}', b"\xff" * 100, stream(record_batch())[:-60]])
def test_a_body_that_is_no_arrow_stream_is_refused(body: bytes) -> None:
    with pytest.raises(TableError, match="expected an Arrow IPC stream, got something else or a damaged one"):
        of_arrow(body)


def test_a_moment_beyond_any_calendar_is_scored_and_shown_as_text() -> None:
    batch = of_arrow(stream(record_batch(at=pa.array([2**62], pa.timestamp("us")))))
    assert batch.numbers[0, 1] == 2**62 / 1e6
    assert isinstance(batch.values["at"][0], str)
    assert isinstance(next(iter(batch.values["at"])), str)


# --- whatever comes ----------------------------------------------------------------------------------

WHOLE = stream(
    record_batch(
        serial=["P-1", None],
        rpm=[1.0, None],
        valve=pa.array(["open", "x"]).dictionary_encode(),
        at=pa.array([0, 1], pa.timestamp("us")),
        heated=[True, None],
        note=["a", "b"],
    )
)
edits = st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8)


def looked_at(read: Any, body: bytes) -> None:
    """Reads a body and writes out all that an answer may show of it."""
    try:
        batch = read(body)
    except NelboError:
        return
    shown = [list(values) for values in batch.values.values()]
    msgspec.json.encode([shown, list(batch.ids), errors(batch)])
    assert batch.numbers.shape == (len(batch), 2)
    assert np.isfinite(batch.numbers[~np.isnan(batch.numbers)]).all()
    assert batch.n_records <= 100


@settings(max_examples=300, deadline=None)
@given(edits, st.integers(0, len(WHOLE)))
def test_no_damage_to_an_arrow_stream_makes_more_than_an_error(changes: list[tuple[int, int]], length: int) -> None:
    body = bytearray(WHOLE)
    for place, value in changes:
        body[place] = value
    looked_at(of_arrow, bytes(body))
    looked_at(of_arrow, bytes(body[:length]))


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_no_bytes_make_more_than_an_error(body: bytes) -> None:
    looked_at(of_arrow, body)
    looked_at(of_csv, body)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('rpm,valve\n\r"1.5eE+-open ,,\x00é\ufeff'), max_size=60))
def test_no_text_below_a_header_makes_more_than_an_error(text: str) -> None:
    looked_at(of_csv, b"rpm,valve\n" + text.encode())
    looked_at(of_csv, text.encode())


# --- results -----------------------------------------------------------------------------------------


def test_a_table_becomes_csv_with_a_header_and_reads_back() -> None:
    table = pa.table({"a": [1.5, None], 'b "c"': ["x,y", None]})
    assert csv_of(table) == b'a,"b ""c"""\n1.5,"x,y"\n,\n'


def test_a_table_becomes_an_arrow_stream_and_reads_back() -> None:
    table = pa.table({"a": [1.5, None], "b": ["x", None]})
    assert ipc.open_stream(arrow_of(table)).read_all().equals(table)
