"""The JSON part of an inference request: the struct that it must be, and the tensors that it describes."""

import json
import re
from collections import Counter
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from nelbo.characters import count, count_outside_strings
from nelbo.errors import BodyError, TooManyRecordsError
from nelbo.intent import SECONDS
from nelbo.records import shown
from service.problems import ProblemError
from service.v2.tensors import FLOATS, INTEGERS, Tensor, numbers_of

HEADER_LENGTH = "inference-header-content-length"
# A shorter text is decoded whole in less time than it takes to take it apart.
_LONG = 16 * 1024
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_COMMAS = 10_000  # that the rest of a request may have: more than a thousand fields' inputs need. Chosen


# Each output's datatype. Contributions are as many values as all fields together, so only whoever names them gets them.
OUTPUTS = {
    "score": "FP64",
    "p_value": "FP64",
    "flagged": "BOOL",
    "reconstruction_error": "FP64",
    "elbo": "FP64",
    "kl": "FP64",
    "contributions": "FP64",
}
Size = Annotated[int, msgspec.Meta(ge=0)]


def _meta(**schema: Any) -> msgspec.Meta:
    """What the OpenAPI document says of a value that is checked later, where an error can say more."""
    return msgspec.Meta(extra_json_schema=schema)


_DATATYPE = _meta(enum=[*FLOATS, *INTEGERS, "BOOL", "BYTES"])
_SHARE = _meta(minimum=0, exclusiveMaximum=1)
_COUNT = _meta(exclusiveMinimum=0)


class InputParameters(msgspec.Struct, forbid_unknown_fields=True):
    """How an input's data is sent; `content_type` is what MLServer's clients say of their own reading of it."""

    binary_data_size: Size | UnsetType = UNSET
    content_type: str | UnsetType = UNSET


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """One input."""

    name: str
    shape: list[Size]
    datatype: Annotated[str, _DATATYPE]
    parameters: InputParameters | UnsetType | None = UNSET
    data: Raw | UnsetType = UNSET


class OutputParameters(msgspec.Struct, forbid_unknown_fields=True):
    """How an output is wished for."""

    binary_data: bool | UnsetType = UNSET
    content_type: str | UnsetType = UNSET


class RequestedOutput(msgspec.Struct, forbid_unknown_fields=True):
    """One output that is wished for."""

    name: Annotated[str, _meta(enum=list(OUTPUTS))]
    parameters: OutputParameters | UnsetType | None = UNSET

    @property
    def is_binary(self) -> bool | UnsetType:
        """UNSET where it says nothing of it."""
        return self.parameters.binary_data if isinstance(self.parameters, OutputParameters) else UNSET


class RequestParameters(msgspec.Struct, forbid_unknown_fields=True):
    """What a request wishes of false alarms, by the names of the query under /v1, and how it wants its answer."""

    binary_data_output: bool | UnsetType = UNSET
    rate: Annotated[float, _SHARE] | UnsetType = UNSET
    confidence: Annotated[float, _meta(minimum=0.5, exclusiveMaximum=1)] | UnsetType = UNSET
    max_false_alarms: Annotated[float, _COUNT] | UnsetType = UNSET
    per: Annotated[str, _meta(enum=list(SECONDS))] | UnsetType = UNSET
    records_per_s: Annotated[float, _COUNT] | UnsetType = UNSET
    fdr: Annotated[float, _meta(exclusiveMinimum=0, exclusiveMaximum=1)] | UnsetType = UNSET
    content_type: str | UnsetType = UNSET


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON part of a request."""

    inputs: Annotated[list[Input], _meta(minItems=1)]
    model_name: str | UnsetType | None = UNSET  # KServe's client repeats the path's here
    id: str | UnsetType | None = UNSET
    parameters: RequestParameters | UnsetType | None = UNSET
    outputs: list[RequestedOutput] | UnsetType | None = UNSET


_DECODER = msgspec.json.Decoder(Envelope)
Form = TypeVar("Form", bound=msgspec.Struct)


def read_request(body: bytes, header_length: str | None, most_values: int) -> tuple[Envelope, list[Tensor]]:
    """A request, and the tensors that it brings.

    Args:
        body: JSON, or JSON with the data of the binary tensors behind it.
        header_length: its header, the bytes of the JSON; None where all of it is JSON.
        most_values: in all tensors; bounds the memory and the time that any body can take.

    Raises:
        TooManyRecordsError: there are more.
        BodyError: the body has another shape, or is not as long as it says.
        ProblemError: it is not JSON.
    """
    n_json = _json_length(header_length, len(body))
    binary = memoryview(body)[n_json:]
    text = body if n_json == len(body) else body[:n_json]
    _expect_commas(text, most_values)
    if not binary and len(text) > _LONG:
        found = _flat_request(text)
        if found is not None:
            return found
    envelope = decoded(text, _DECODER)
    return envelope, _tensors(envelope, binary)


def _json_length(header: str | None, n_bytes: int) -> int:
    if header is None:
        return n_bytes
    n_json = int(header) if _WHOLE_NUMBER.fullmatch(header) else n_bytes + 1
    if n_json > n_bytes:
        expected = f"a whole number of bytes, at most the {n_bytes} of the body"
        raise BodyError(f"header {HEADER_LENGTH}: expected {expected}, got {shown(header)}")
    return n_json


def decoded(text: bytes, decoder: msgspec.json.Decoder[Form]) -> Form:
    """The struct that a text is.

    Args:
        text: JSON.
        decoder: of the struct.

    Raises:
        BodyError: it has another shape, or a name twice.
        ProblemError: it is not JSON.
    """
    try:
        if not text.isascii():
            text.decode()  # msgspec does not look at what it steps over
        found = decoder.decode(text)
        _refuse_repeated_names(text, found)
    except UnicodeDecodeError as error:
        raise ProblemError("not-json", "the request is not UTF-8") from error
    except RecursionError as error:
        raise ProblemError("not-json", "the request is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise BodyError(f"the request: {error}") from error
    except ValueError as error:
        hint = "; a missing value is null, not NaN" if b"NaN" in text else ""
        raise ProblemError("not-json", f"the request is not JSON: {error}{hint}") from error
    return found


def _expect_commas(text: bytes, most_values: int) -> None:
    """Refuses a text of more values than its records can hold, before anything is built from them."""
    most = most_values + _COMMAS
    # The quick looks first: at most every other byte of a text is a comma between values.
    if len(text) > 2 * most and count(text, b",") > most and count_outside_strings(text, b",") > most:
        raise TooManyRecordsError(f"expected at most {most_values} values in all inputs, got more")


def _flat_request(text: bytes) -> tuple[Envelope, list[Tensor]] | None:
    """A request whose inputs are all flat arrays of numbers, which nothing but simdjson looks at.

    msgspec would step over them once more, and takes for that nearly as long as simdjson takes to read them.

    Returns:
        None where the request is another one, or wrong: then it has to be decoded as a whole.
    """
    short, arrays = _emptied(text)
    try:
        envelope = decoded(short, _DECODER)
    except (BodyError, ProblemError):
        return None
    # A name stands but once in an input: if there are as many, each input has one.
    if len(arrays) != len(envelope.inputs):
        return None
    tensors = []
    for asked, array in zip(envelope.inputs, arrays, strict=True):
        shape = tuple(asked.shape)
        is_plain = asked.datatype in FLOATS and _size_of(asked) is None
        numbers = numbers_of(array, shape) if is_plain else None
        if numbers is None:
            return None
        tensors.append(Tensor(asked.name, asked.datatype, shape, numbers))
    return envelope, tensors


def _emptied(text: bytes) -> tuple[bytes, list[bytes]]:
    """The text with nothing in its arrays of data, and these arrays.

    That text is a request exactly if the whole is one, provided that each array is one: `"data"` and a colon are a
    name, or the end of one that no input has; what stands behind it is its value.
    """
    kept, arrays, at = [], [], 0
    while (name := text.find(b'"data"', at)) >= 0:
        start = text.find(b"[", name)
        stop = text.find(b"]", start) + 1
        if start < 0 or not stop or text[name + 6 : start].strip(b" \t\r\n") != b":":
            break
        kept.append(text[at : start + 1])
        arrays.append(text[start:stop])
        at = stop - 1
    return b"".join([*kept, text[at:]]), arrays


def _refuse_repeated_names(text: bytes, found: msgspec.Struct) -> None:
    """Of repeated names msgspec keeps the last silently: written anew, the request has fewer colons then.

    Unless an escaped one makes up for it; so what may hold one is looked at name by name, as is what differs.
    """
    if b"\\u003" in text or msgspec.json.encode(found).count(b":") != text.count(b":"):
        json.loads(text, object_pairs_hook=_refuse_repeated, parse_int=float)  # of any length


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    (name, count) = Counter(name for name, _ in pairs).most_common(1)[0] if pairs else ("", 0)
    if count > 1:
        raise BodyError(f"the name '{name}' stands several times in one object; expected it once")


def _tensors(envelope: Envelope, binary: memoryview) -> list[Tensor]:
    tensors, at = [], 0
    for asked in envelope.inputs:
        n_bytes = _size_of(asked)
        if (n_bytes is None) == (asked.data is UNSET):
            found = "neither" if n_bytes is None else "both"
            raise BodyError(f"input '{asked.name}': expected data or the parameter binary_data_size, got {found}")
        data: Any = asked.data
        if n_bytes is not None:
            data = binary[at : at + n_bytes]
            at += n_bytes
        tensors.append(Tensor(asked.name, asked.datatype, tuple(asked.shape), data))
    if at != len(binary):
        raise BodyError(
            f"expected {at} bytes of binary data behind the JSON, the sum of binary_data_size, got {len(binary)}"
        )
    return tensors


def _size_of(asked: Input) -> int | None:
    if not isinstance(asked.parameters, InputParameters) or asked.parameters.binary_data_size is UNSET:
        return None
    return asked.parameters.binary_data_size
