"""What schemathesis is told of this service: its media types, its models, and what no JSON schema can say.

schemathesis imports it where `SCHEMATHESIS_HOOKS` names it.
"""

import io
import json
import re
import struct
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import schemathesis
from hypothesis import strategies as st
from pyarrow import ipc
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData

SCORE_PATH, INFER_PATH = "/v1/models/{name}/score", "/v2/models/{name}/infer"
JSON, BINARY = "application/json", "application/octet-stream"
LENGTH = "Inference-Header-Content-Length"
NDJSON, CSV, ARROW = "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"
Document = dict[str, Any]
_FEW = 20  # records of a table, at most; chosen

# Why a request that fits its schema may be refused all the same.
_BEYOND_A_SCHEMA = re.compile(
    "|".join(
        [
            "expected equally many",  # columns are equally long
            r"^expected columns with values, got none",
            # Parameters that do not go together.
            r"parameter '\w+': expected (it beside|a rate or|it without|at most|a number above 0 and below the)",
            r"^query parameter '\w+': expected (it|false) with JSON lines",
            r"^(query )?parameter '\w+': expected a number.*, got (0|1|inf)$",  # that a float rounds to
            "^false-alarm rate .* needs at least",  # the calibration records do not carry it
            r"^input '.*?'(, value \d+|, row \d+)?: expected",  # data are of their shape
            "^inputs: expected at least one",
            "^output '.*': expected it once",
            "^model_name: expected that of the path",
            r"^header inference-header-content-length: expected",
            r"^the request: Expected `int`, got `float`",  # 1.0 is an integer to a schema
            "^expected no query",
            r"^\d+ of \d+ records cannot be scored, and strict=true",  # of several models, a record may be another's
            "^expected at most 10000 records",
            "is not among the columns of",
            "^expected a value for",
        ]
    )
)


_TABLES: dict[str, pa.Table] = {}  # a good record as a table, by model
_INPUTS: dict[str, Any] = {}  # a good record as tensors, by model


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: Document) -> None:
    """Learns which models are loaded, and what their records look like."""
    tables = raw_schema["paths"][SCORE_PATH]["post"]["requestBody"]["content"][CSV]["examples"]
    _TABLES.update({name: pa_csv.read_csv(pa.BufferReader(it["value"].encode())) for name, it in tables.items()})
    tensors = raw_schema["paths"][INFER_PATH]["post"]["requestBody"]["content"][JSON]["examples"]
    _INPUTS.update({name: it["value"]["inputs"] for name, it in tensors.items()})


@schemathesis.hook
def flatmap_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> st.SearchStrategy[Any]:
    """Asks mostly for models that there are: any other request ends with 404."""
    if not path_parameters or "name" not in path_parameters:
        return st.just(path_parameters)
    known = [path_parameters | {"name": name} for name in _TABLES]
    return st.sampled_from([*known * 4, path_parameters])


@schemathesis.hook
def flatmap_case(_context: Any, case: Any) -> st.SearchStrategy[Any]:
    """Gives a request that is to be right a body that its model takes, where its schema would do with any."""
    name = (case.path_parameters or {}).get("name")
    if name not in _TABLES or case.meta is None or not case.meta.generation.mode.is_positive:
        return st.just(case)
    if case.media_type in (CSV, ARROW):
        written = _csv if case.media_type == CSV else _arrow
        return _parts_of(_TABLES[name]).map(lambda table: _with_body(case, written(table)))
    if case.operation.path.endswith("/infer") and case.media_type == BINARY:
        return st.just(_with_binary_body(case, _INPUTS[name]))
    if case.operation.path.endswith("/infer") and isinstance(case.body, dict):
        case.headers.pop(LENGTH, None)  # of a body that is all JSON; any other number ends it too early
        return st.just(_with_body(case, _with_one_wish(case.body) | {"inputs": _INPUTS[name]}))
    return st.just(case)


def _with_body(case: Any, body: Any) -> Any:
    case.body = body
    return case


def _with_one_wish(body: dict[str, Any]) -> dict[str, Any]:
    """A request whose wishes do not contradict each other, as any two do that are drawn by chance."""
    given = body.get("parameters")
    if not isinstance(given, dict):
        return body
    wishes = [name for name in ("fdr", "rate") if name in given][:1]
    kept = {name: value for name, value in given.items() if name in (*wishes, "binary_data_output", "content_type")}
    return body | {"parameters": kept}


def _with_binary_body(case: Any, inputs: list[dict[str, Any]]) -> Any:
    """The numbers as bytes behind the JSON, whose length a header says."""
    sent, data = [], b""
    for given in inputs:
        if given["datatype"] == "FP64":
            (value,) = given["data"]
            data += struct.pack("<d", float("nan") if value is None else value)
            plain = {name: given[name] for name in ("name", "shape", "datatype")}
            sent.append(plain | {"parameters": {"binary_data_size": 8}})
        else:
            sent.append(given)
    text = _json({"inputs": sent})
    case.headers[LENGTH] = str(len(text))
    return _with_body(case, text + data)


def _parts_of(table: pa.Table) -> st.SearchStrategy[pa.Table]:
    """A table's columns in any order, its record as often as one likes."""
    columns, n = st.permutations(table.column_names), st.integers(0, _FEW)
    return st.tuples(columns, n).map(lambda drawn: table.select(drawn[0]).take(pa.array([0] * drawn[1], pa.int64())))


def _csv(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa_csv.write_csv(table, sink)
    return sink.getvalue()


def _arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@schemathesis.serializer(CSV, ARROW)
def as_it_is(_context: Any, value: Any) -> bytes:
    """Bytes and text go over the wire as they are; what is neither, as JSON, which is then wrong."""
    if isinstance(value, bytes):
        return value
    return value.encode(errors="replace") if isinstance(value, str) else _json(value)


@schemathesis.serializer(NDJSON)
def as_line(_context: Any, value: Any) -> bytes:
    """A record as a line of JSON; the text of an example is one already."""
    return value.encode(errors="replace") if isinstance(value, str) else _json(value) + b"\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


@schemathesis.deserializer(NDJSON)
def first_line(_context: Any, response: Any) -> Any:
    """The first result of a stream; each has the same schema, and a stream of nothing has none."""
    line = response.content.partition(b"\n")[0]
    return json.loads(line) if line else _NO_RESULT


_NO_RESULT = {"index": 0, "id": None, "error": {"field": None, "expected": "", "found": "", "detail": ""}}


@schemathesis.hook
def filter_failure(_context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Drops what is right although no schema can say so."""
    if isinstance(failure, RejectedPositiveData):
        if LENGTH in case.headers and case.operation.path.endswith("/infer"):
            return False  # any number is a length, and where the JSON ends then is chance
        return _BEYOND_A_SCHEMA.search(_detail(response)) is None
    if isinstance(failure, AcceptedNegativeData):
        # Bytes are those from above, and lines without a record are answered by none.
        is_right = isinstance(case.body, bytes) or (case.media_type == NDJSON and not response.content)
        return not (is_right or _names_a_wrong_record(response))
    return True


def _detail(response: Any) -> str:
    found = json.loads(response.content)
    return str(found.get("error") or found.get("detail"))


def _names_a_wrong_record(response: Any) -> bool:
    """Whether an answer refuses nothing but single records."""
    if response.status_code != 200:
        return False
    for line in response.content.splitlines():
        found = json.loads(line) if line.startswith(b"{") else {}
        if any("error" in result for result in found.get("results", [found])):
            return True
    return False
