"""What is said of the server and its models in the Open Inference Protocol."""

from typing import Literal

import msgspec

from nelbo.errors import BodyError
from service.live import Live, ModelState
from service.problems import ProblemError
from service.v2.envelope import OUTPUTS, decoded
from service.v2.infer import find_version
from service.v2.inputs import datatypes
from service.v2.outputs import shape_of

State = Literal["READY", "LOADING", "UNAVAILABLE"]


class ServerLive(msgspec.Struct, frozen=True):
    """Whether the process is alive."""

    live: bool


class ServerReady(msgspec.Struct, frozen=True):
    """Whether every model answers."""

    ready: bool


class Server(msgspec.Struct, frozen=True):
    """Which server answers."""

    name: str
    version: str
    extensions: list[str]


class TensorDescription(msgspec.Struct, frozen=True):
    """An input or output; -1 stands for the number of records."""

    name: str
    datatype: str
    shape: list[int]


class ModelDescriptionV2(msgspec.Struct, frozen=True):
    """What a client needs to know of a model before its first request."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]


class ModelReady(msgspec.Struct, frozen=True):
    """Whether a model answers."""

    name: str
    ready: bool


class IndexEntry(msgspec.Struct, frozen=True):
    """A model of the store."""

    name: str
    version: str
    state: State
    reason: str


class IndexRequest(msgspec.Struct, frozen=True):
    """Which models are asked for; there is one repository, so that its name matters to none of them."""

    repository_name: str = ""
    ready: bool = False


_ASKED = msgspec.json.Decoder(IndexRequest)


def server(version: str) -> Server:
    """The server's metadata."""
    return Server("nelbo", version, ["binary_tensor_data"])


def server_ready(live: Live) -> ServerReady:
    """The server, ready.

    Raises:
        ProblemError: it is not; the text says why.
    """
    problems = live.problems()
    if problems:
        raise ProblemError("model-not-ready", "; ".join(problems), headers={"retry-after": "5"})
    return ServerReady(ready=True)


def model_ready(live: Live, name: str, version: str | None = None) -> ModelReady:
    """A model, ready.

    Raises:
        ProblemError: there is no such model or version, or it is not ready.
    """
    find_version(live, name, version)
    return ModelReady(name, ready=True)


def describe(live: Live, name: str, version: str | None = None) -> ModelDescriptionV2:
    """A model's metadata: one input a field.

    Raises:
        ProblemError: as above.
    """
    scorer = find_version(live, name, version)
    schema = scorer.schema
    inputs = [TensorDescription(field.name, datatypes(field)[0], [-1]) for field in schema.fields]
    outputs = [TensorDescription(output, kind, shape_of(output, schema)) for output, kind in OUTPUTS.items()]
    return ModelDescriptionV2(name, [scorer.bundle.version], "onnxruntime_onnx", inputs, outputs)


def index(live: Live, body: bytes) -> list[IndexEntry]:
    """The models of the store, those that do not answer included.

    Args:
        live: the models.
        body: JSON, or nothing.

    Raises:
        ProblemError: the body is something else.
    """
    try:
        asked = decoded(body or b"{}", _ASKED)
    except BodyError as error:
        raise ProblemError("wrong-body", str(error)) from error
    states = {name: live.state(name) for name in live.names()}
    entries = [_entry(live, name, state) for name, state in states.items() if state is not None]
    return [entry for entry in entries if entry.state == "READY" or not asked.ready]


def _entry(live: Live, name: str, state: ModelState) -> IndexEntry:
    if state.scorer is not None:
        return IndexEntry(name, state.scorer.bundle.version, "READY", "")
    return IndexEntry(name, "", "LOADING" if state.failure is None else "UNAVAILABLE", live.said(state.failure or ""))
