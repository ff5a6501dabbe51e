"""One inference request in, one answer out: the twin of `service.answer` for the Open Inference Protocol.

As there, whatever carries requests calls `infer`, and counts what there is to count.
"""

import time
from collections.abc import Callable

from msgspec import UNSET, structs

from nelbo.decision import Decision
from nelbo.errors import BodyError, CalibrationError, IntentError
from nelbo.intent import Intent, intent_of
from nelbo.records import Batch, shown
from nelbo.scoring import Scorer
from service.answer import Tally, find_scorer
from service.live import Live
from service.problems import OF_ERROR, Answer, ProblemError
from service.v2.envelope import Envelope, RequestParameters, read_request
from service.v2.inputs import batch_of
from service.v2.outputs import encoded, wanted_outputs
from service.v2.refusal import refusal
from service.v2.request import InferRequest

_WISHES = ("rate", "confidence", "max_false_alarms", "per", "records_per_s", "fdr")


def infer(
    live: Live,
    request: InferRequest,
    *,
    max_records: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Answer, Tally]:
    """The answer to an inference request, and what there is to count about it.

    Args:
        live: the loaded models; its state is read once.
        request: the body within the limit on bytes.
        max_records: the limit on records.
        clock: seconds from any start, for the stages.
    """
    tally = Tally()
    try:
        return _inferred(live, request, max_records, tally, clock), tally
    except ProblemError as error:
        tally.rejected = error.kind
        return refusal(error.answer), tally


def _inferred(live: Live, request: InferRequest, max_records: int, tally: Tally, clock: Callable[[], float]) -> Answer:
    scorer = find_version(live, request.name, request.version)
    tally.model = request.name
    _expect_plain(request)
    marks = [clock()]
    envelope, batch = _decoded(scorer, request, max_records)
    marks.append(clock())
    intent = _intent(scorer, envelope)
    decision = _decided(scorer, intent)
    marks.append(clock())
    scored = scorer.discover(batch, intent.fdr) if intent.fdr is not None else scorer.score(batch, decision)
    marks.append(clock())
    model = (scorer.bundle.name, scorer.bundle.version)
    found = encoded(envelope, scored, model, live.watches.verdict(scorer).state)
    marks.append(clock())
    tally.count(scorer, scored, _as_stages(*marks), (len(batch),), 0)
    return found


def _as_stages(start: float, decoded: float, decided: float, inferred: float, encoded_: float) -> tuple[float, ...]:
    """The marks as they were, had it been decided before the body was decoded; there is nothing to explain."""
    return start, start + decided - decoded, decided, inferred, inferred, encoded_


def find_version(live: Live, name: str, version: str | None) -> Scorer:
    """The scorer of a model; of its versions only the one that serves is loaded.

    Raises:
        ProblemError: there is no such model, it is not ready, or another version of it serves.
    """
    scorer = find_scorer(live, name)
    if version not in (None, scorer.bundle.version):
        detail = f"model {shown(name)} serves version {shown(scorer.bundle.version)}, not {shown(version)}"
        raise ProblemError("unknown-model", detail)
    return scorer


def _expect_plain(request: InferRequest) -> None:
    """Refuses a compressed body, and a query, which would look as if it were heard."""
    if request.content_encoding not in ("", "identity"):
        detail = f"expected a body that is not compressed, got Content-Encoding {shown(request.content_encoding)}"
        raise ProblemError("unsupported-media-type", detail, headers={"accept-encoding": "identity"})
    if request.query:
        raise ProblemError("wrong-query", "expected no query, for wishes are parameters of the request; got one")


def _decoded(scorer: Scorer, request: InferRequest, max_records: int) -> tuple[Envelope, Batch]:
    try:
        most_values = max_records * len(scorer.schema.fields)
        envelope, tensors = read_request(request.body, request.header_length, most_values)
        if envelope.model_name not in (UNSET, None, request.name):
            raise BodyError(f"model_name: expected that of the path, {shown(request.name)}, or none, got another")
        wanted_outputs(envelope)  # before any record is scored for nothing
        return envelope, batch_of(scorer.decoder, tensors, max_records)
    except BodyError as error:
        raise ProblemError(OF_ERROR[type(error)], str(error)) from error


def _intent(scorer: Scorer, envelope: Envelope) -> Intent:
    if not isinstance(envelope.parameters, RequestParameters):
        return scorer.decider.intent
    given = structs.asdict(envelope.parameters)
    try:
        intent = intent_of(**{name: given[name] for name in _WISHES if given[name] is not UNSET})
    except IntentError as error:
        detail = f"parameter '{error.parameter}': expected {error.expected}, got {error.found}"
        raise ProblemError("wrong-query", detail) from error
    return scorer.decider.intent if intent == Intent() else intent


def _decided(scorer: Scorer, intent: Intent) -> Decision:
    try:
        return scorer.decider.decide(intent.rate, intent.confidence)
    except CalibrationError as error:
        raise ProblemError(OF_ERROR[CalibrationError], str(error)) from error
