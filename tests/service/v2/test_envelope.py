import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.errors import BodyError, TooManyRecordsError
from service.problems import ProblemError
from service.v2.envelope import Envelope, read_request
from service.v2.tensors import FLOATS, Tensor, values_of

ONE = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2.5]}
# What may make one text of two, or two values of one.
FRAGMENTS = [
    '"data"',
    '"data":[3,4]',
    '"x":"',
    "[",
    "]",
    "[1,2]",
    "{",
    "}",
    ",",
    ":",
    '"',
    "\\",
    "\\u003a",
    "null",
    "true",
    "é",
    "1e400",
    "",
]
SHORT, LONG = "", " " * 20_000  # a long request is taken apart first


def request(**changed: Any) -> str:
    return json.dumps({"inputs": [{**ONE, **changed}]})


def read(
    text: str, padding: str = SHORT, binary: bytes = b"", header: str | None = None
) -> tuple[Envelope, list[Tensor]]:
    encoded = (text + padding).encode()
    header = str(len(encoded)) if binary and header is None else header
    return read_request(encoded + binary, header, most_values=1000)


def refused(text: str, padding: str = SHORT, **options: Any) -> str:
    with pytest.raises((BodyError, ProblemError)) as caught:
        read(text, padding, **options)
    return str(caught.value)


both = pytest.mark.parametrize("padding", [SHORT, LONG], ids=["short", "long"])


@both
@pytest.mark.parametrize(
    "text",
    [
        request(),
        request(data=[[1], [2.5]], shape=[2, 1]),
        request(name='"data":[3,4]'),
        request(name="data"),
        request(name="a:b"),
        request(name="\\"),
        json.dumps({"inputs": [ONE], "id": '"data": ['}),
        json.dumps({"id": "a", "inputs": [ONE]}, indent=4),
        json.dumps({"inputs": [{**ONE, "parameters": {"content_type": "np"}}], "parameters": None, "outputs": []}),
        '{"inputs":[{"data":[1,2.5],"name":"\\u003a","shape":[2],"datatype":"FP32"}]}',
        '{"inputs":[{"data" \t:\n [1,2.5],"name":"x","shape":[2],"datatype":"FP32"}]}',
        '{"inputs":[{"d\\u0061ta":[1,2.5],"name":"x","shape":[2],"datatype":"FP32"}]}',
        request(datatype="INT64", data=[1, 2]),
    ],
)
def test_a_request_is_read_alike_whole_and_taken_apart(text: str, padding: str) -> None:
    envelope, (tensor,) = read(text, padding)
    assert tensor.name == json.loads(text)["inputs"][0]["name"] == envelope.inputs[0].name
    assert np.array_equal(np.array(values_of(tensor)), np.array(json.loads(text)["inputs"][0].get("data")).ravel())


@both
@pytest.mark.parametrize(
    "text",
    [
        request() + "x",
        request()[:-1],
        request().replace("2.5", "NaN"),
        request().replace("2.5", "2.5,"),
        request().replace("[1, 2.5]", "[1, 2.5"),
        request().replace("[1, 2.5]", "[1, 2.5]]"),
        request().replace('"data"', '"x""data"'),
        request().replace("2.5", "02"),
        "",
        "\ufeff" + request(),
        request().replace("[1, 2.5]", "[" * 100_000),
        request().replace("[1, 2.5]", "[" * 100_000 + "]" * 100_000),
    ],
)
def test_what_is_not_json_is_refused(text: str, padding: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(text, padding)
    assert caught.value.kind == "not-json"


@both
def test_nan_in_json_is_told_what_to_send_instead(padding: str) -> None:
    assert refused(request().replace("2.5", "NaN"), padding).endswith("; a missing value is null, not NaN")


@given(st.integers(0, 70), st.sampled_from(FRAGMENTS), st.integers(0, 6))
def test_no_change_of_a_request_makes_a_difference_between_the_two_ways(at: int, fragment: str, n_cut: int) -> None:
    changed = request()[:at] + fragment + request()[at + n_cut :]
    assert outcome(changed, SHORT) == outcome(changed, LONG)


def outcome(text: str, padding: str) -> object:
    try:
        _, tensors = read(text, padding)
        floats = [np.array(values_of(tensor)).tolist() for tensor in tensors if tensor.datatype in FLOATS]
    except (BodyError, ProblemError):
        return None
    return [(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors], floats


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ProblemError, match="the request is not UTF-8"):
        read_request(request(data=["é"]).encode().decode("unicode_escape").encode("latin-1"), None, 1000)


@both
@pytest.mark.parametrize(
    ("text", "name"),
    [
        (request().replace('"name"', '"name": "y", "name"'), "name"),
        (request().replace('"data"', '"data": [7], "data"'), "data"),
        (request().replace('"data"', '"data": [1, 2.5], "data"'), "data"),
        ('{"inputs": [], ' + request()[1:], "inputs"),
        ('{"id": "a", "id": "a", ' + request()[1:], "id"),
        ('{"parameters": {"rate": 1, "rate": 1}, ' + request()[1:], "rate"),
        ('{"outputs": [{"name": "score", "name": "elbo"}], ' + request()[1:], "name"),
        # A colon that is written as an escape makes up for the one that is too many.
        (request(name="a").replace('"a"', '"b", "name": "\\u003a"'), "name"),
        (request(name="a").replace('"a"', '"b", "n\\u0061me": "a"'), "name"),
    ],
)
def test_a_name_that_stands_twice_in_one_object_is_refused(text: str, name: str, padding: str) -> None:
    assert refused(text, padding) == f"the name '{name}' stands several times in one object; expected it once"


@both
@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("[]", "the request: Expected `object`, got `array`"),
        ("{}", "the request: Object missing required field `inputs`"),
        (request(shape=[True]), "the request: Expected `int`, got `bool` - at `$.inputs[0].shape[0]`"),
        (request(shape=[-1]), "the request: Expected `int` >= 0 - at `$.inputs[0].shape[0]`"),
        (request(shape=[1.5]), "the request: Expected `int`, got `float` - at `$.inputs[0].shape[0]`"),
        (request(name=None), "the request: Expected `str`, got `null` - at `$.inputs[0].name`"),
        (request(date=1), "the request: Object contains unknown field `date` - at `$.inputs[0]`"),
        (
            request(parameters={"shared_memory_region": "a"}),
            "the request: Object contains unknown field `shared_memory_region` - at `$.inputs[0].parameters`",
        ),
        (
            json.dumps({"inputs": [ONE], "parameters": {"rat": 1}}),
            "the request: Object contains unknown field `rat` - at `$.parameters`",
        ),
        (
            json.dumps({"inputs": [ONE], "outputs": [{"name": "score", "parameters": {"binary_data": 1}}]}),
            "the request: Expected `bool`, got `int` - at `$.outputs[0].parameters.binary_data`",
        ),
        (
            request(parameters={"binary_data_size": 0}),
            "input 'x': expected data or the parameter binary_data_size, got both",
        ),
        (
            json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": "FP64"}]}),
            "input 'x': expected data or the parameter binary_data_size, got neither",
        ),
    ],
)
def test_a_request_of_another_shape_is_told_where(text: str, detail: str, padding: str) -> None:
    assert refused(text, padding) == detail


@both
def test_more_values_than_the_records_can_have_are_refused_before_they_are_built(padding: str) -> None:
    with pytest.raises(TooManyRecordsError, match=r"^expected at most 1000 values in all inputs, got more$"):
        read(request(data=["a"] * 20_000), padding)


def test_commas_within_strings_are_no_values() -> None:
    _, (tensor,) = read(request(datatype="BYTES", data=['a,\\",b' * 10_000, ""]))
    assert len(values_of(tensor)[0]) == 60_000


@both
def test_an_integer_of_any_length_is_no_mistake_of_ours(padding: str) -> None:
    text = '{"inputs":[{"name":"\\u003a","shape":[1],"datatype":"INT64","data":[' + "9" * 5000 + "]}]}"
    _, (tensor,) = read(text, padding)
    with pytest.raises(BodyError, match=r"^input ':', value 0: expected an integer"):
        values_of(tensor)


# --- binary -----------------------------------------------------------------------------------------


def sized(*sizes: int) -> str:
    inputs = [
        {"name": f"x{i}", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": n}}
        for i, n in enumerate(sizes)
    ]
    return json.dumps({"inputs": inputs})


def test_binary_data_stands_behind_the_json_in_the_order_of_the_inputs() -> None:
    _, tensors = read(sized(8, 8), binary=np.array([1.5, 2.5]).tobytes())
    assert [np.array(values_of(tensor)).tolist() for tensor in tensors] == [[1.5], [2.5]]


def test_one_request_may_have_both_kinds_of_data() -> None:
    inputs = [ONE, *json.loads(sized(8))["inputs"]]
    _, tensors = read(json.dumps({"inputs": inputs}), binary=np.array([7.0]).tobytes())
    assert [np.array(values_of(tensor)).tolist() for tensor in tensors] == [[1.0, 2.5], [7.0]]


@pytest.mark.parametrize("n_bytes", [7, 9])
def test_binary_data_of_another_length_than_it_says_is_refused(n_bytes: int) -> None:
    expected = "expected 8 bytes of binary data behind the JSON, the sum of binary_data_size"
    assert refused(sized(8), binary=b"\0" * n_bytes) == f"{expected}, got {n_bytes}"


@pytest.mark.parametrize("header", ["-1", "1.5", "abc", "1000000", "9" * 5000, "٣", " 10"])
def test_a_header_that_is_no_length_of_the_json_is_refused(header: str) -> None:
    detail = refused(request(), header=header)
    assert detail.startswith("header inference-header-content-length: expected a whole number of bytes, at most the ")
