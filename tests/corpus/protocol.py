"""Requests of the Open Inference Protocol."""

import json
import struct
from typing import Any

from tests.bundles import VERSION
from tests.corpus.case import GOOD, INFER, MODEL, Case, bare, post

_TYPES = {"pressure": "FP64", "valve": "BYTES", "in/out [l/s]": "FP64", "rpm": "FP64", "heated": "BOOL"}


def _inputs() -> list[dict[str, Any]]:
    return [{"name": n, "shape": [1], "datatype": _TYPES[n], "data": [value]} for n, value in GOOD.items()]


def _body(**members: Any) -> bytes:
    return json.dumps({"inputs": _inputs()} | members).encode()


def _first(**members: Any) -> bytes:
    """A request whose first input, of pressure, has these members; those that are None are left out."""
    first, *others = _inputs()
    changed = {name: value for name, value in (first | members).items() if value is not None}
    return _body(inputs=[changed, *others])


def _case(name: str, body: bytes, detail: str, path: str = INFER) -> Case:
    return Case(f"{name}", post(body, path), 400, "error", detail)


def _binary(name: str, text: bytes, data: bytes, detail: str, length: str | None = None) -> Case:
    length = str(len(text)) if length is None else length
    header = b"inference-header-content-length: %b\r\n" % length.encode("latin-1")
    request = post(text + data, INFER, "application/octet-stream", header)
    return Case(f"binary: {name}", request, 400, "error", detail)


def _with_bytes(size: int, datatype: str = "FP64", name: str = "pressure", shape: object = None) -> bytes:
    members = {
        "name": name,
        "shape": [1] if shape is None else shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }
    return _body(inputs=[members, *(given for given in _inputs() if given["name"] != name)])


def _binary_cases() -> list[Case]:
    good, number = _with_bytes(8), struct.pack("<d", 5.0)
    of_length = "header inference-header-content-length: expected a whole number of bytes, at most the "
    text = _with_bytes(8, "BYTES", "valve")
    return [
        *(
            _binary(f"a header length of {length or 'blanks'}", good, number, of_length, length)
            for length in ("-1", "+5", "5.0", "1e3", "0x10", "five", "99999999", "9" * 30, "\xb2", "1 2", "")
        ),
        _binary("a header length of zero", good, number, "the request is not JSON: ", "0"),
        _binary("a header length one too short", good, number, "the request is not JSON: ", str(len(good) - 1)),
        _binary("a header length one too long", good, number, "the request is not JSON: ", str(len(good) + 1)),
        _binary(
            "no data", good, b"", "expected 8 bytes of binary data behind the JSON, the sum of binary_data_size, got 0"
        ),
        _binary("a byte too few", good, number[:7], "expected 8 bytes of binary data behind the JSON"),
        _binary("a byte too many", good, number + b"\0", "expected 8 bytes of binary data behind the JSON"),
        _binary(
            "a size that is not the shape's",
            _with_bytes(4),
            number[:4],
            "input 'pressure': expected 8 bytes for 1 values of FP64, got 4",
        ),
        _binary(
            "infinity",
            good,
            struct.pack("<d", float("inf")),
            "input 'pressure', value 0: expected a finite number, or NaN for a missing one, got inf",
        ),
        _binary(
            "2 for true", _with_bytes(1, "BOOL", "heated"), b"\x02", "input 'heated', value 0: expected 0 or 1, got 2"
        ),
        _binary(
            "text without its length", text, b"opened!!", "input 'valve', value 0: expected a length of four bytes"
        ),
        _binary(
            "text that is not UTF-8",
            text,
            struct.pack("<I", 4) + b"op\xff\xfe",
            "input 'valve', value 0: expected UTF-8, got bytes that are not",
        ),
        _binary(
            "text longer than the data",
            text,
            struct.pack("<I", 2**32 - 1) + b"open",
            "input 'valve', value 0: expected a length of four bytes",
        ),
        _binary("a size that is negative", _with_bytes(-1), b"", "the request: Expected `int` >= 0"),
        _binary("a size beyond 64 bits", _with_bytes(2**70), b"", f"expected {2**70} bytes of binary data"),
        _binary("a size of gigabytes", _with_bytes(2**40), b"", f"expected {2**40} bytes of binary data"),
    ]


def cases() -> list[Case]:
    """All of them."""
    unknown = f"expected the name of one of the 5 fields of {MODEL}, got another name"
    outputs = "expected one of score, p_value, flagged, reconstruction_error, elbo, kl, contributions, got another name"
    return [
        _case("nothing", b"", "the request is not JSON: "),
        _case("words", b"hello", "the request is not JSON: "),
        _case("cut", _body()[:-1], "the request is not JSON: "),
        _case("NaN", _body().replace(b"1500.0", b"NaN"), "the request is not JSON: "),
        _case("invalid UTF-8", _body().replace(b"open", b"\xff"), "the request is not UTF-8"),
        _case("a list", b"[]", "the request: Expected `object`, got `array`"),
        _case("no inputs", b"{}", "the request: Object missing required field `inputs`"),
        _case("inputs that are null", b'{"inputs":null}', "the request: Expected `array`, got `null`"),
        _case("no input", b'{"inputs":[]}', "inputs: expected at least one, got none"),
        _case("a member that there is not", _body(records=[]), "the request: Object contains unknown field `records`"),
        _case(
            "inputs twice",
            _body()[:-1] + b',"inputs":[]}',
            "the name 'inputs' stands several times in one object; expected it once",
        ),
        _case(
            "a name twice in an input",
            b'{"inputs":[{"name":"rpm","name":"rpm","shape":[1],"datatype":"FP64","data":[1]}]}',
            "the name 'name' stands several times in one object; expected it once",
        ),
        _case("the name of another model", _body(model_name="pump"), "model_name: expected that of the path, 'pumps'"),
        _case("an id that is a number", _body(id=5), "the request: Expected `str | null`, got `int` - at `$.id`"),
        _case("an input that is not a field", _first(name="speed"), f"input 'speed': {unknown}"),
        _case("an input in capitals", _first(name="PRESSURE"), f"input 'PRESSURE': {unknown}"),
        _case("an input without a name", _first(name=None), "the request: Object missing required field `name`"),
        _case(
            "an input twice",
            _body(inputs=[_inputs()[0], *_inputs()]),
            "input 'pressure': expected it once, got it several times",
        ),
        _case(
            "an input left out",
            _body(inputs=_inputs()[1:]),
            "input 'pressure': expected it, for this field cannot be left out; got none",
        ),
        _case(
            "no data",
            _first(data=None),
            "input 'pressure': expected data or the parameter binary_data_size, got neither",
        ),
        _case(
            "data twice",
            _first(parameters={"binary_data_size": 8}),
            "input 'pressure': expected data or the parameter binary_data_size, got both",
        ),
        _case("data that is text", _first(data="5"), "input 'pressure': expected data that is a list, got '5'"),
        _case("data that is a number", _first(data=5), "input 'pressure': expected data that is a list, got 5"),
        _case("data that is an object", _first(data={}), "input 'pressure': expected data that is a list, got {}"),
        _case("text for a number", _first(data=["5"]), "input 'pressure', value 0: expected a number, got '5'"),
        _case("true for a number", _first(data=[True]), "input 'pressure', value 0: expected a number, got true"),
        _case(
            "a number beyond any float",
            _body().replace(b"5.0", b"1e400"),
            "input 'pressure', value 0: expected a number, got 1e400",
        ),
        _case("more data than its shape", _first(data=[1, 2]), "input 'pressure': expected 1 values for its shape [1]"),
        _case("no value", _first(data=[]), "input 'pressure': expected 1 values for its shape [1], got 0"),
        _case("a shape of no dimension", _first(shape=[]), "input 'pressure': expected "),
        _case("a shape that is negative", _first(shape=[-1]), "the request: Expected `int` >= 0"),
        _case("a shape of fractions", _first(shape=[1.5]), "the request: Expected `int`, got `float`"),
        _case("a shape of text", _first(shape="1"), "the request: Expected `array`, got `str`"),
        _case("a shape whose product is beyond 64 bits", _first(shape=[1, 2**40, 2**40]), "input 'pressure': expected"),
        _case("a shape of three dimensions", _first(shape=[1, 1, 1]), "input 'pressure': expected "),
        _case("another number of records", _first(shape=[2], data=[1, 2]), "input 'valve': expected "),
        _case(
            "a datatype that there is not", _first(datatype="FP128"), "input 'pressure': expected datatype FP64, FP32"
        ),
        _case("a datatype of another kind", _first(datatype="BOOL"), "input 'pressure': expected datatype FP64, FP32"),
        _case("a datatype in small letters", _first(datatype="fp64"), "input 'pressure': expected datatype FP64, FP32"),
        _case(
            "an integer beyond its datatype",
            _first(datatype="INT8", data=[300]),
            "input 'pressure', value 0: expected an integer from -128 to 127, got 300",
        ),
        _case(
            "a fraction for an integer",
            _first(datatype="INT32", data=[1.5]),
            "input 'pressure', value 0: expected an integer, got 1.5",
        ),
        _case("an output that there is not", _body(outputs=[{"name": "sigma"}]), f"output 'sigma': {outputs}"),
        _case(
            "an output twice",
            _body(outputs=[{"name": "kl"}] * 2),
            "output 'kl': expected it once, got it several times",
        ),
        _case("outputs that are names", _body(outputs=["kl"]), "the request: Expected `object`, got `str`"),
        _case("a rate of 2", _body(parameters={"rate": 2}), "parameter 'rate': expected a number, 0 ≤ rate < 1, got 2"),
        _case("a rate of text", _body(parameters={"rate": "0.1"}), "the request: Expected `float`, got `str`"),
        _case("a rate beyond any float", _body(parameters={"rate": 0.5}).replace(b"0.5", b"1e400"), "the request: "),
        _case(
            "a parameter that there is not",
            _body(parameters={"x": 1}),
            "the request: Object contains unknown field `x`",
        ),
        _case(
            "a false discovery rate beside a rate",
            _body(parameters={"rate": 0.1, "fdr": 0.1}),
            "parameter 'fdr': expected it without rate",
        ),
        _case("a rate that is not carried", _body(parameters={"rate": 1e-7}), "false-alarm rate 1e-07 "),
        Case(
            "another version",
            post(_body(), "/v2/models/pumps/versions/1/infer"),
            404,
            "error",
            f"model 'pumps' serves version '{VERSION}', not '1'",
        ),
        Case(
            "a shape beyond 64 bits",
            post(_first(shape=[2**70]), INFER),
            413,
            "error",
            f"expected at most 10000 records, got {2**70}",
        ),
        Case(
            "10,001 records",
            post(_first(shape=[10_001], data=[1] * 10_001), INFER),
            413,
            "error",
            "expected at most 10000 records, got 10001",
        ),
        Case(
            "gzip",
            post(_body(), INFER, headers=b"content-encoding: gzip\r\n"),
            415,
            "error",
            "expected a body that is not compressed, got Content-Encoding 'gzip'",
        ),
        *(
            Case(f"an index asked for by {name}", post(body, "/v2/repository/index"), 400, "error", detail)
            for name, body, detail in [
                ("a list", b"[]", "the request: Expected `object`, got `array`"),
                ("text for true", b'{"ready":"yes"}', "the request: Expected `bool`, got `str`"),
                ("half an object", b"{", "the request is not JSON: "),
                ("deep lists", b"[" * 100_000, "the request"),
                ("invalid UTF-8", b'{"repository_name":"\xff"}', "the request is not UTF-8"),
            ]
        ),
        Case(
            "a path that there is not",
            bare(b"GET /v2/models/pumps/x HTTP/1.1"),
            404,
            "error",
            "there is nothing at this path",
        ),
        *_binary_cases(),
    ]
