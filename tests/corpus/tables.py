"""CSV and Arrow bodies."""

import io

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from tests.corpus.case import ARROW, CSV, GOOD, MODEL, SCORE, Case, post

_HEAD = b"pressure,valve,in/out [l/s],rpm,heated\n"
_UNKNOWN = f"the body: expected the columns of {MODEL}, got another one,"
_ROW = b"5.0,open,20.0,1500.0,true\n"


def _csv(name: str, body: bytes, status: int, kind: str | None, detail: str) -> Case:
    return Case(f"CSV: {name}", post(body, f"{SCORE}?strict=true", CSV), status, kind, detail)


def _wrong_rows() -> list[Case]:
    rows = {
        "text for a number": (b"fast,open,20,1500,true", ", field 'pressure': expected a number, got 'fast'"),
        "a hexadecimal number": (b"0x5,open,20,1500,true", ", field 'pressure': expected a number, got '0x5'"),
        "a number with a comma": (b'"5,0",open,20,1500,true', ", field 'pressure': expected a number, got '5,0'"),
        "infinity": (b"inf,open,20,1500,true", ", field 'pressure': expected a number, got 'inf'"),
        "a number beyond any float": (b"1e400,open,20,1500,true", ", field 'pressure': expected a number, got '1e400'"),
        "yes for true": (b"5,open,20,1500,yes", ", field 'heated': expected true or false, got 'yes'"),
        "a value too few": (b"5,open,20,1500", ": expected 5 values as in the header, got 4"),
        "a value too many": (b"5,open,20,1500,true,x", ": expected 5 values as in the header, got 6"),
    }
    return [
        _csv(name, _HEAD + _ROW + row + b"\n" + _ROW, 422, "wrong-records", f"record 1{detail}")
        for name, (row, detail) in rows.items()
    ]


def _csv_cases() -> list[Case]:
    not_utf8 = "the body: expected UTF-8 text, got bytes that are not"
    return [
        *_wrong_rows(),
        _csv("nothing", b"", 400, "not-csv", "the body: expected a header, got blank lines"),
        _csv("blank lines", b"\n\r\n\n", 400, "not-csv", "the body: expected a header, got blank lines"),
        _csv("JSON", b'{"records":[]}', 422, "wrong-body", "the body: "),
        _csv(
            "a column twice",
            b"rpm," + _HEAD + b"1," + _ROW,
            422,
            "wrong-body",
            "the body: expected distinct column names, got 'rpm' several times",
        ),
        _csv("a column that there is not", b"x," + _HEAD + b"1," + _ROW, 422, "wrong-body", f"{_UNKNOWN} 'x'"),
        _csv("a column in capitals", _HEAD.upper() + _ROW, 422, "wrong-body", "the body: "),
        _csv("a column left out", b"pressure,valve\n5,open\n", 422, "wrong-body", "the body: "),
        _csv("an empty name", b"," + _HEAD + b"1," + _ROW, 422, "wrong-body", f"{_UNKNOWN} ''"),
        _csv("semicolons", _HEAD.replace(b",", b";") + _ROW.replace(b",", b";"), 422, "wrong-body", "the body: "),
        _csv("tabs", _HEAD.replace(b",", b"\t") + _ROW.replace(b",", b"\t"), 422, "wrong-body", "the body: "),
        _csv(
            "invalid UTF-8 in a value",
            _HEAD + b"5,\xff,20,1,true\n",
            400,
            "not-csv",
            "the body: expected CSV, got bytes that are not UTF-8",
        ),
        _csv("invalid UTF-8 in a name", b"press\xffure\n5\n", 400, "not-csv", not_utf8),
        _csv("UTF-16", (_HEAD + _ROW).decode().encode("utf-16"), 400, "not-csv", not_utf8),
        _csv(
            "a quote that does not end",
            _HEAD + b'5,"open,20,1,true\n',
            422,
            "wrong-records",
            "record 0: expected 5 values as in the header, got 2; is a quote left open?",
        ),
        _csv(
            "a header longer than a megabyte",
            b"a" * (1 << 20) + b"\n1\n",
            400,
            "not-csv",
            "the body: the header cannot be read: ",
        ),
        _csv("a zero byte in a name", b"press\x00ure\n5\n", 422, "wrong-body", f"{_UNKNOWN} 'press\x00ure'"),
        _csv(
            "a zero byte in a number",
            _HEAD + b"5\x00,open,20,1,true\n",
            422,
            "wrong-records",
            "record 0, field 'pressure': expected a number, got '5\\x00'",
        ),
        _csv("10,001 records", _HEAD + _ROW * 10_001, 413, "too-many-records", "expected at most 10000 records, got"),
        _csv(
            "10,001 ragged records",
            _HEAD + b"1\n" * 10_001,
            413,
            "too-many-records",
            "expected at most 10000 records, got",
        ),
        _csv(
            "100,000 commas",
            _HEAD + b"," * 100_000,
            422,
            "wrong-records",
            "record 0: expected 5 values as in the header, got 100001",
        ),
        _csv("a byte order mark", b"\xef\xbb\xbf" + _HEAD + _ROW, 200, None, ""),
        _csv("no record", _HEAD, 200, None, ""),
        _csv("carriage returns", (_HEAD + _ROW).replace(b"\n", b"\r\n"), 200, None, ""),
        _csv("a formula", _HEAD + b'5,"=HYPERLINK(""http://x"")",20,1,true\n', 200, None, ""),
    ]


def _stream(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _table(**replaced: object) -> pa.Table:
    columns: dict[str, object] = {name: pa.array([value]) for name, value in GOOD.items()}
    return pa.table(columns | replaced)


def _arrow(name: str, body: bytes, status: int, kind: str | None, detail: str) -> Case:
    return Case(f"Arrow: {name}", post(body, f"{SCORE}?strict=true", ARROW), status, kind, detail)


def _odd_columns() -> dict[str, tuple[pa.Array, str]]:
    plain = "expected text, numbers, true and false, or times, got type "
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1.0])])
    return {
        "a list": (pa.array([[5.0]]), plain),
        "a struct": (pa.array([{"a": 5.0}]), plain),
        "a map": (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), plain),
        "bytes": (pa.array([b"5"]), plain),
        "a union": (union, plain),
        "a duration": (pa.array([5], pa.duration("s")), plain),
        "an interval": (pa.array([None], pa.month_day_nano_interval()), plain),
        "a run": (pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([5.0])), plain),
        "a dictionary of lists": (pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([[1]])), plain),
    }


def _arrow_cases() -> list[Case]:
    good = _stream(_table())
    damaged = "the body: expected an Arrow IPC stream, got "
    lying = bytearray(good)
    return [
        *(
            _arrow(
                f"{name} for a number",
                _stream(_table(pressure=array)),
                422,
                "wrong-body",
                f"the body: column 'pressure': {detail}",
            )
            for name, (array, detail) in _odd_columns().items()
        ),
        *(
            _arrow(name, body, 400, "not-arrow", damaged)
            for name, body in {
                "nothing": b"",
                "words": b"hello",
                "JSON": b'{"records":[]}',
                "a Parquet file": b"PAR1" + bytes(20) + b"PAR1",
                "an Arrow file": b"ARROW1\x00\x00" + good,
                "a cut head": good[:40],
                "a cut body": good[:-60],
                "zeros": bytes(64),
                "a length beyond the body": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + good[8:],
                "a negative length": b"\xff\xff\xff\xff\xff\xff\xff\xff" + good[8:],
                "a head of 0xff": good[:8] + b"\xff" * 200 + good[208:],
            }.items()
        ),
        _arrow(
            "compressed buffers",
            _stream(_table(), compression="zstd"),
            400,
            "not-arrow",
            "the body: expected an Arrow IPC stream without compression, got compressed buffers",
        ),
        _arrow(
            "a column twice",
            _stream(pa.Table.from_arrays([pa.array([1.0])] * 2, names=["rpm", "rpm"])),
            422,
            "wrong-body",
            "the body: expected distinct column names, got 'rpm' several times",
        ),
        _arrow("a column that there is not", _stream(_table(x=pa.array([1]))), 422, "wrong-body", f"{_UNKNOWN} 'x'"),
        _arrow("a column left out", _stream(_table().drop_columns(["valve"])), 422, "wrong-body", "the body: "),
        _arrow(
            "text for a number",
            _stream(_table(pressure=pa.array(["5"]))),
            422,
            "wrong-body",
            "the body: column 'pressure'",
        ),
        _arrow(
            "true for a number",
            _stream(_table(pressure=pa.array([True]))),
            422,
            "wrong-body",
            "the body: column 'pressure'",
        ),
        _arrow(
            "a number for a category",
            _stream(_table(valve=pa.array([5.0]))),
            422,
            "wrong-body",
            "the body: column 'valve'",
        ),
        _arrow(
            "infinity",
            _stream(_table(pressure=pa.array([np.inf]))),
            422,
            "wrong-records",
            "record 0, field 'pressure': expected a number, got ",
        ),
        _arrow(
            "10,001 records",
            _stream(pa.table({n: pa.array([v] * 10_001) for n, v in GOOD.items()})),
            413,
            "too-many-records",
            "expected at most 10000 records, got 10001",
        ),
        _arrow("a stream without records", _stream(_table().slice(0, 0)), 200, None, ""),
        _arrow("no column", _stream(pa.table({})), 422, "wrong-body", "the body: "),
        _arrow("bytes behind the stream", good + b"hello", 200, None, ""),
        _arrow("the same bytes", bytes(lying), 200, None, ""),
    ]


def cases() -> list[Case]:
    """All of them."""
    return [*_csv_cases(), *_arrow_cases()]
