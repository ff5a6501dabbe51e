"""What is fuzzed: for each reader of a stranger's bytes, a function that fails where a promise about it does.

Any bytes are an input, and an error of the family is an answer; everything else that is raised is a finding.
"""

import io
import json
import math
import tempfile
from collections.abc import Callable
from csv import DictReader
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto
from pyarrow import ipc

from nelbo.admission import _MODEL, admit
from nelbo.buffers import read_arrow, read_csv
from nelbo.bundle import MANIFEST, read_bundle, sha256
from nelbo.errors import BodyError, BundleError, NelboError, NotJsonError, RecordError, SchemaError
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Column, Schema, parse_schema
from nelbo.store import Store
from nelbo.wire import read
from service.answer import answer
from service.forms import ARROW, CSV, FORMS, NDJSON
from service.live import Live
from service.problems import JSON, ProblemError
from service.query import parse_query
from service.request import ScoreRequest
from service.stream import Lines
from service.v2.envelope import read_request
from service.v2.infer import infer
from service.v2.request import InferRequest
from service.v2.tensors import FLOATS, values_of
from tests.bundles import PUMPS, write_tiny_bundle
from tests.fuzz import reference
from tests.fuzz.reference import NotAtAllError, WrongBodyError

MAX_RECORDS = 50
_LINE = 64  # bytes of the longest line; chosen, so that there are longer ones
# Each kind and role, names that need escapes, and one that no struct takes as it is.
PLAIN = Schema(
    columns=(
        Column(name="id", role="id"),
        Column(name="x", role="field", kind="numeric"),
        Column(name="a:b", role="field", kind="categorical", categories=("u", "v:w"), rare=("r",)),
        Column(name="n", role="field", kind="categorical", categories=(1, 2), nullable=True),
        Column(name="t", role="field", kind="timestamp", nullable=True),
        Column(name="on", role="field", kind="boolean", nullable=True),
        Column(name="why", role="label"),
    )
)
OPEN = Schema(
    extra="ignore", columns=(*PLAIN.columns[:3], Column(name='q"\\', role="field", kind="numeric", nullable=True))
)
NUMBERS = Schema(columns=tuple(Column(name=name, role="field", kind="numeric", nullable=name > "a") for name in "abc"))
DECODERS = tuple(RecordDecoder(schema) for schema in (PLAIN, OPEN, NUMBERS, PUMPS))
GOOD = (
    b'{"x":1,"a:b":"u","id":"first"}',
    b'{"x":1,"a:b":"u","id":"first","extra":[1]}',
    b'{"a":1,"b":null}',
    b'{"pressure":5,"valve":"open","in/out [l/s]":20,"heated":true}',
)


@lru_cache(maxsize=1)
def live() -> Live:
    """A model that serves."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    write_tiny_bundle(folder)
    found = Live(Store(folder))
    found.load_all()
    return found


# --- records -----------------------------------------------------------------------------------------


def records(data: bytes) -> None:
    """A body of records or columns is decoded as its twin does, whatever the schema, and disturbs no other body."""
    for decoder, good in zip(DECODERS, GOOD, strict=True):
        expected = _expected(decoder.schema, data)
        found = _found(decoder, data)
        if expected is not None:
            _expect_same(expected, found)
        alone = decoder.json(b'{"records":[' + good + b"]}")
        bodies = [b'{"records":[' + good + b"]}", data, b'{"records":[' + good + b"]}"]
        together, sizes = decoder.together(bodies, MAX_RECORDS)
        if decoder.schema is OPEN:  # bodies of names that no struct has are read one by one
            assert sizes == [-1, -1, -1]
            continue
        assert sizes[0] == sizes[2] == 1
        rows = [0, len(together) - 1]
        assert np.array_equal(together.numbers[rows], np.repeat(alone.numbers, 2, axis=0), equal_nan=True)
        assert together.codes[rows].tolist() == [*alone.codes.tolist()] * 2
        assert [together.ids[i] for i in rows] == [alone.ids[0]] * 2
        if sizes[1] >= 0:
            assert isinstance(found, Batch)
            assert not found.errors
            assert np.array_equal(together.numbers[1:-1], found.numbers, equal_nan=True)
            assert together.codes[1:-1].tolist() == found.codes.tolist()


Expected = list[reference.Row | None] | type[BodyError]


def _expected(schema: Schema, data: bytes) -> Expected | None:
    """None where either is right: what is nested deeply, and text in which the bytes of a record are no UTF-8.

    Likewise a body of more commas than its records may have, which is refused before anything else is known of it.
    """
    if data.count(b",") > MAX_RECORDS * len(schema.columns):
        return None
    if max(data.count(b"["), data.count(b"{")) > reference.DEEP or not _is_utf8(data) or len(data) > 1 << 16:
        return None
    try:
        rows = reference.rows(schema, data)
    except NotAtAllError:
        return NotJsonError
    except WrongBodyError:
        return BodyError
    return rows if len(rows) <= MAX_RECORDS else BodyError


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _found(decoder: RecordDecoder, data: bytes) -> Batch | type[BodyError]:
    try:
        return decoder.json(data, MAX_RECORDS)
    except BodyError as error:
        return NotJsonError if isinstance(error, NotJsonError) else BodyError


def _expect_same(expected: Expected, found: Batch | type[BodyError]) -> None:
    if not isinstance(expected, list) or not isinstance(found, Batch):
        assert found is expected
        return
    _expect_rows(expected, found)


def _expect_rows(expected: list[reference.Row | None], found: Batch) -> None:
    right = [(i, row) for i, row in enumerate(expected) if row is not None]
    assert [error.index for error in found.errors] == [i for i, row in enumerate(expected) if row is None]
    assert found.index.tolist() == [i for i, _ in right]
    shape = found.numbers.shape
    assert np.array_equal(found.numbers, np.array([row.numbers for _, row in right]).reshape(shape), equal_nan=True)
    assert found.codes.tolist() == [row.codes for _, row in right]
    assert list(found.ids) == [row.id for _, row in right]


def lines(data: bytes) -> None:
    """JSON lines come out the same however they are cut, and each is decoded as its twin does."""
    cuts, body = sorted(data[:4]), data[4:]
    bounds = [0, *(min(cut, len(body)) for cut in cuts), len(body)]
    whole, cut_up = Lines(_LINE), Lines(_LINE)
    apart = [line for start, stop in pairwise(bounds) for line in cut_up.add(body[start:stop])] + cut_up.end()
    assert apart == whole.add(body) + whole.end()
    short = [line if len(line) <= _LINE else None for line in body.split(b"\n")]
    assert apart == [line for line in short if line is None or line.strip()]
    plain = [line for line in body.split(b"\n") if line.strip()]
    for decoder in DECODERS:
        found = decoder.lines(body)
        assert found.n_records == len(plain)
        if _is_utf8(body) and max(body.count(b"["), body.count(b"{")) <= reference.DEEP:
            _expect_rows([_row(decoder.schema, line) for line in plain], found)


def _row(schema: Schema, line: bytes) -> reference.Row | None:
    try:
        value = reference.parsed(line)
    except NotAtAllError:
        return None
    return None if reference.has_half_characters(value) else reference.row(schema, value)


def objects(data: bytes) -> None:
    """Python's objects are taken by the same rules as their JSON."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        return
    for decoder in DECODERS:
        try:
            batch = decoder.objects(found)
        except BodyError:
            continue
        assert batch.n_records == len(found)
        assert not np.isinf(batch.numbers).any()


# --- tables ------------------------------------------------------------------------------------------


def csv(data: bytes) -> None:
    """CSV becomes finite numbers and known codes, or an error of the family."""
    for decoder in DECODERS:
        _look_at_table(read_csv, data, decoder)


def arrow(data: bytes) -> None:
    """So does an Arrow stream."""
    for decoder in DECODERS:
        _look_at_table(read_arrow, data, decoder)


def _look_at_table(read: Callable[[bytes, RecordDecoder, int], Batch], data: bytes, decoder: RecordDecoder) -> None:
    try:
        batch = read(data, decoder, MAX_RECORDS)
    except NelboError:
        return
    assert batch.n_records <= MAX_RECORDS
    assert batch.numbers.shape == (len(batch), len(decoder.schema.numbers))
    assert not np.isinf(batch.numbers).any()
    for j, field in enumerate(decoder.schema.codes):
        assert ((batch.codes[:, j] >= -1) & (batch.codes[:, j] <= field.unseen_code)).all()
    places = [*batch.index.tolist(), *(error.index for error in batch.errors)]
    assert sorted(places) == list(range(batch.n_records))
    assert all(isinstance(error, RecordError) for error in batch.errors)


# --- requests ----------------------------------------------------------------------------------------


def query(data: bytes) -> None:
    """A query is a wish that means something, or a problem that names its parameter."""
    try:
        found = parse_query(data.decode("latin-1"))
    except ProblemError as error:
        _expect_problem(error)
        return
    intent = found.intent
    assert intent.rate is None or 0 <= intent.rate < 1
    assert intent.confidence is None or 0.5 <= intent.confidence < 1
    assert intent.fdr is None or 0 < intent.fdr < 1
    assert found.window is None or found.window >= 1


def _expect_problem(error: ProblemError) -> None:
    assert error.kind == "wrong-query"
    assert json.loads(error.answer.body)["status"] == 422


def request(data: bytes) -> None:
    """A scoring request is answered in the form it asks for: by one result a record in their order, or by a problem."""
    text, _, body = data.partition(b"\n")
    form = FORMS[len(data) % len(FORMS)]
    asked = ScoreRequest("pumps", body, query=text.decode("latin-1"), accept=form)
    found, tally = answer(live(), asked, max_records=MAX_RECORDS)
    assert found.status in (200, 400, 413, 415, 422)
    assert all(value.isascii() for value in found.headers.values())
    if found.status == 200:
        assert found.headers["content-type"] == form
        assert _INDEXES[form](found.body) == list(range(sum(tally.n_records)))
    else:
        problem = _finite_json(found.body)
        assert problem["status"] == found.status
        assert problem["detail"]


def _of_json(body: bytes) -> list[int]:
    said = _finite_json(body)
    results, decision = said["results"], said["decision"]
    assert all(("error" in result) != ("p_value" in result) for result in results)
    if decision["fdr"] is None:
        assert all(it["p_value"] <= decision["effective_rate"] for it in results if it.get("flagged"))
    return [result["index"] for result in results]


def _of_lines(body: bytes) -> list[int]:
    return [_finite_json(line)["index"] for line in body.splitlines()]


def _of_csv(body: bytes) -> list[int]:
    rows = list(DictReader(io.StringIO(body.decode(), newline="")))
    assert all(math.isfinite(float(row["score"])) for row in rows if not row["error"])
    return [int(row["index"]) for row in rows]


def _of_arrow(body: bytes) -> list[int]:
    table = ipc.open_stream(body).read_all()
    table.validate(full=True)
    return [int(index) for index in table["index"].to_pylist()]


# What reads the places of the records from an answer of each form.
_INDEXES = {JSON: _of_json, NDJSON: _of_lines, CSV: _of_csv, ARROW: _of_arrow}


def protocol(data: bytes) -> None:
    """An inference request is answered by tensors that fit, or an error; flat ones as if read in whole."""
    length, _, body = data.partition(b"\n")
    header = length.decode("latin-1") if length else None
    found, _ = infer(live(), InferRequest("pumps", body, header_length=header), max_records=MAX_RECORDS)
    assert found.status in (200, 400, 413)
    n_json = int(found.headers.get("inference-header-content-length", len(found.body)))
    said = _finite_json(found.body[:n_json])
    if found.status == 200:
        sizes = [output.get("parameters", {}).get("binary_data_size", 0) for output in said["outputs"]]
        assert n_json + sum(sizes) == len(found.body)
        for output in said["outputs"]:
            assert "data" not in output or len(output["data"]) == math.prod(output["shape"])
    else:
        assert said["error"]
    if not length:
        padding = b" " * (16 * 1024)  # from which on numbers are read past the rest of the request
        assert _tensors(body) == _tensors(body + padding)


def _tensors(body: bytes) -> Any:
    try:
        _, tensors = read_request(body, None, 10_000)
        floats = [tensor for tensor in tensors if tensor.datatype in FLOATS]
        return [(it.name, it.shape, np.array(values_of(it), dtype=object).tolist()) for it in floats]
    except (BodyError, ProblemError):
        return None


def _finite_json(body: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(body.decode(), parse_constant=refuse)


# --- bundles -----------------------------------------------------------------------------------------


def schema(data: bytes) -> None:
    """Any bytes are a schema that is written and read again the same, or an error."""
    try:
        found = parse_schema(data, "fuzz")
    except SchemaError:
        return
    assert parse_schema(found.to_json(), "fuzz") == found
    RecordDecoder(found)


@lru_cache(maxsize=1)
def _bundle() -> tuple[Path, dict[str, bytes]]:
    folder = write_tiny_bundle(Path(tempfile.mkdtemp(prefix="fuzz-")))
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


FILES = ("schema.json", "calibration.json", "reference.json", "golden.ndjson", MANIFEST)


def bundle(data: bytes) -> None:
    """A bundle with another file in it, its digests made to fit, is a bundle still or refused as one."""
    if not data:
        return
    folder, files = _bundle()
    name, content = FILES[data[0] % len(FILES)], data[1:]
    changed = {**files, name: content}
    changed[MANIFEST] = _sealed(changed, name, files[name])
    try:
        for file in (name, MANIFEST):
            (folder / file).write_bytes(changed[file])
        found = read_bundle(folder)
        assert found.digest == json.loads(changed[MANIFEST])["digest"]
    except BundleError:
        pass
    finally:
        for file in (name, MANIFEST):
            (folder / file).write_bytes(files[file])


def graph(data: bytes) -> None:
    """What is admitted is what ONNX's own reader finds in the same bytes, no more and no less."""
    try:
        admit(data)
    except BundleError:
        return
    ours, theirs = read(memoryview(data), _MODEL), ModelProto.FromString(data)
    opsets = [(opset["domain"] or "", opset["version"] or 0) for opset in ours["opsets"]]
    assert opsets == [(opset.domain, opset.version) for opset in theirs.opset_import]
    assert [*theirs.functions, *theirs.training_info, *theirs.graph.sparse_initializer] == []
    nodes = ours["graph"]["nodes"]
    calls = [(node["operator"], node["domain"] or "", node["inputs"], node["outputs"]) for node in nodes]
    assert calls == [(node.op_type, node.domain, [*node.input], [*node.output]) for node in theirs.graph.node]
    attributes = [_attribute(of) for node in nodes for of in node["attributes"]]
    assert attributes == [
        (of.name, of.type, of.i, [*of.ints], of.t.raw_data) for node in theirs.graph.node for of in node.attribute
    ]
    constants = [(one["name"], one["dims"], one["type"], one["raw"] or b"") for one in ours["graph"]["constants"]]
    assert constants == [(one.name, [*one.dims], one.data_type, one.raw_data) for one in theirs.graph.initializer]
    assert not any(one.external_data or one.data_location for one in theirs.graph.initializer)


def _attribute(of: dict[str, Any]) -> tuple[str, int, int, list[int], bytes]:
    return of["name"] or "", of["type"] or 0, of["i"] or 0, of["ints"], (of["t"] or {}).get("raw") or b""


def _sealed(files: dict[str, bytes], name: str, before: bytes) -> bytes:
    """The manifest with the digests that its files have now."""
    text = files[MANIFEST]
    if name != MANIFEST:
        text = text.replace(sha256(before).encode(), sha256(files[name]).encode())
    try:
        digest = json.loads(text)["digest"]
        zeroed = text.replace(digest.encode(), b"0" * 64)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text
    return zeroed.replace(b"0" * 64, sha256(zeroed).encode()) if len(digest) == 64 else text


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (records, lines, objects, csv, arrow, query, request, protocol, schema, bundle, graph)
}
