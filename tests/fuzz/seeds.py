"""What fuzzing starts from: good inputs, the corpus of malformed requests, and what was found before."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bundles import PUMPS, VERSION, odd_record, write_tiny_bundle
from tests.corpus import corpus
from tests.fuzz.targets import FILES, OPEN, PLAIN
from tests.hostile import READ

FOUND = Path(__file__).parent / "found"  # an input a file, in a folder a target
_LONGEST = 4_000  # bytes of a seed; longer ones make fuzzing slow. Chosen
# What the readers look for and chance does not find.
TOKENS = (
    *(b'"%b"' % name for name in (b"records", b"columns", b"inputs", b"data", b"shape", b"datatype", b"name", b"FP64")),
    *(b'"%b":' % name for name in (b"x", b"a:b", b"n", b"t", b"on", b"id", b"why", b"a", b"b", b"c", b'q\\"\\\\')),
    *(b'"parameters":', b'"binary_data_size":', b'"outputs":', b'"id":', b'"format":1', b'"categories":', b'"spike":'),
    *(b"null", b"true", b"false", b"NaN", b"1e400", b"-0", b"1E+2", b"18446744073709551616", b"0.1", b"5e-324"),
    *(
        b"\\u0061",
        b"\\u003a",
        b"\\ud83d",
        b"\\ude00",
        b"\\u0000",
        b"\\\\",
        b'\\"',
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xed\xa0\x80",
    ),
    *(b"{}", b"[]", b'":', b'","', b"},{", b"],[", b"\r\n", b"\n", b"2026-03-02T08:15:00Z", b"T", b"+00:00"),
    *(
        name + b"="
        for name in (b"rate", b"confidence", b"max_false_alarms", b"per", b"records_per_s", b"fdr", b"window")
    ),
    *(b"explain=all", b"strict=true", b"&", b"%00", b"%ff", b"day"),
)
_RECORDS = (
    '{"id":"k","x":1.5,"a:b":"u","n":2,"t":"2026-03-02T08:15:00Z","on":true,"why":[1,{"a":2}]}',
    '{"x":-0.0,"a:b":"v:w","n":null,"t":12.5,"q\\"\\\\":1e300,"z":"\\u003a"}',
    '{"a":1e-400,"b":null,"c":18446744073709551616}',
    '{"x":NaN,"a:b":"\\ud83d\\ude00","x":2}',
)


def seeds(target: str) -> list[bytes]:
    """The seeds of a target."""
    folder = FOUND / target
    found = [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return [*_MADE[target](), *found]


def _bodies(content_type: bytes) -> Iterator[bytes]:
    for case in corpus():
        head, _, body = case.request.partition(b"\r\n\r\n")
        if b"content-type: " + content_type in head and len(body) <= _LONGEST:
            yield body


def _records() -> list[bytes]:
    texts = [f'{{"records":[{record}]}}' for record in (*_RECORDS, ",".join(_RECORDS))]
    texts += ['{"columns":{"x":[1,2],"a:b":["u",null],"n":[1,"1"]}}', '{"columns":{"a":[1,null],"b":[2,3e5]}}']
    return [*(text.encode() for text in texts), *_bodies(b"application/json")]


def _lines() -> list[bytes]:
    cuts = (b"\x00\x00\x00\x00", b"\x01\x08\x10\x20")
    bodies = ["\n".join(_RECORDS).encode(), *_bodies(b"application/x-ndjson")]
    return [cut + body for cut in cuts for body in bodies]


def _requests() -> list[bytes]:
    queries = ("", "explain=all", "fdr=0.1", "rate=0.01&confidence=0.5", "strict=true", "rate=0")
    body = json.dumps({"records": [odd_record(), {}, odd_record(rpm=None, valve="x")]}).encode()
    return [query.encode() + b"\n" + body for query in queries] + [
        b"\n" + body for body in _bodies(b"application/json")
    ]


def _queries() -> list[bytes]:
    paths = (case.request.split(b" ")[1] for case in corpus() if case.request.count(b" ") > 1)
    return [path.partition(b"?")[2] for path in paths if b"?" in path and len(path) <= _LONGEST]


def _protocol() -> list[bytes]:
    bodies = [body for body in _bodies(b"application/json") if b"inputs" in body]
    binary = (b"%d\n" % body.find(b"}]}") + body for body in _bodies(b"application/octet-stream"))
    return [*(b"\n" + body for body in bodies), *binary]


def _schemas() -> list[bytes]:
    return [schema.to_json() for schema in (PLAIN, OPEN, PUMPS)]


def _bundles() -> list[bytes]:
    from tests.fuzz.targets import _bundle  # noqa: PLC0415  # it is written only where it is needed

    _, files = _bundle()
    return [bytes([place]) + files[name][:_LONGEST] for place, name in enumerate(FILES)]


def _graphs() -> list[bytes]:
    """A good graph and the hostile ones, as far as they are short."""
    found = []
    for hostile in READ.values():
        with TemporaryDirectory() as folder:
            hostile.make(write_tiny_bundle(Path(folder)))
            path = Path(folder) / "pumps" / VERSION / "score.onnx"
            if path.is_file() and path.stat().st_size <= _LONGEST:
                found.append(path.read_bytes())
    return sorted(set(found))


_MADE = {
    "records": _records,
    "lines": _lines,
    "objects": lambda: [f"[{record}]".encode() for record in _RECORDS],
    "csv": lambda: list(_bodies(b"text/csv")),
    "arrow": lambda: list(_bodies(b"application/vnd.apache.arrow.stream")),
    "query": _queries,
    "request": _requests,
    "protocol": _protocol,
    "schema": _schemas,
    "bundle": _bundles,
    "graph": _graphs,
}
