"""What is answered: one tensor a statistic, in JSON or as bytes behind it."""

from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from nelbo.errors import BodyError
from nelbo.records import shown
from nelbo.schema import Schema
from nelbo.scoring import Scored
from service.problems import JSON, Answer
from service.v2.envelope import HEADER_LENGTH, OUTPUTS, Envelope, RequestParameters

BINARY = "application/octet-stream"  # of an answer with bytes behind its JSON
_UNASKED = tuple(name for name in OUTPUTS if name != "contributions")


class BinaryData(msgspec.Struct, frozen=True):
    """How many bytes behind the JSON are this output's."""

    binary_data_size: int


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor of an answer, row by row."""

    name: str
    datatype: str
    shape: list[int]
    parameters: BinaryData | UnsetType = UNSET
    data: list[float | bool] | UnsetType = UNSET


class DecisionParameters(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What held for every record, by the names of `decision` under /v1; what is null there is left out."""

    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    mode: str
    n_calibration: int
    threshold: float | UnsetType = UNSET
    state: str
    confidence: float | UnsetType = UNSET
    fdr: float | UnsetType = UNSET


class InferAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    id: str | UnsetType = UNSET
    parameters: DecisionParameters
    outputs: list[Output]


def shape_of(name: str, schema: Schema) -> list[int]:
    """An output's shape, -1 for the number of records."""
    return [-1, len(schema.fields)] if name == "contributions" else [-1]


def wanted_outputs(envelope: Envelope) -> dict[str, bool]:
    """The outputs to answer with, in order, and whether each is to be bytes.

    Raises:
        BodyError: one is asked for that there is not, or twice.
    """
    parameters = envelope.parameters
    are_binary = isinstance(parameters, RequestParameters) and parameters.binary_data_output is True
    if not envelope.outputs:
        return dict.fromkeys(_UNASKED, are_binary)
    wanted: dict[str, bool] = {}
    for output in envelope.outputs:
        if output.name not in OUTPUTS:
            raise BodyError(f"output {shown(output.name)}: expected one of {', '.join(OUTPUTS)}, got another name")
        if output.name in wanted:
            raise BodyError(f"output '{output.name}': expected it once, got it several times")
        wanted[output.name] = are_binary if output.is_binary is UNSET else output.is_binary
    return wanted


def encoded(envelope: Envelope, scored: Scored, model: tuple[str, str], state: str) -> Answer:
    """The answer to a request.

    Args:
        envelope: of the request, its outputs such as there are.
        scored: its records.
        model: name and version.
        state: of the drift watch.
    """
    outputs, binary = [], []
    for name, is_binary in wanted_outputs(envelope).items():
        values = _values(scored, name)
        parameters: BinaryData | UnsetType = UNSET
        data: Any = UNSET
        if is_binary:
            binary.append(values.tobytes())
            parameters = BinaryData(len(binary[-1]))
        else:
            data = values.ravel().tolist()
        outputs.append(Output(name, OUTPUTS[name], list(values.shape), parameters, data))
    said = InferAnswer(
        model_name=model[0],
        model_version=model[1],
        id=envelope.id if isinstance(envelope.id, str) else UNSET,
        parameters=_parameters(scored, state),
        outputs=outputs,
    )
    text = msgspec.json.encode(said)
    if not binary:
        return Answer(200, {"content-type": JSON}, text)
    headers = {"content-type": BINARY, HEADER_LENGTH: str(len(text))}
    return Answer(200, headers, b"".join([text, *binary]))


def _values(scored: Scored, name: str) -> NDArray[Any]:
    match name:
        case "p_value":
            return scored.p_values["score"]
        case "flagged":
            return scored.flagged
        case "kl":
            return scored.kl
        case "contributions":
            return scored.contributions
        case "score" | "elbo" | "reconstruction_error":
            return scored.statistics[name]
    raise AssertionError(name)


def _parameters(scored: Scored, state: str) -> DecisionParameters:
    decision = scored.decision
    threshold = decision.thresholds["score"]
    return DecisionParameters(
        rate=decision.rate,
        effective_rate=decision.effective_rate,
        rate_low=decision.rate_low,
        rate_high=decision.rate_high,
        mode=decision.mode,
        n_calibration=decision.n_calibration,
        threshold=threshold if np.isfinite(threshold) else UNSET,
        state=state,
        confidence=_given(decision.confidence),
        fdr=_given(decision.fdr),
    )


def _given(value: float | None) -> float | UnsetType:
    return UNSET if value is None else value
