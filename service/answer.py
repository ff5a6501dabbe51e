"""One scoring request in, one answer out: the only place that decides what a request gets.

Whatever carries requests calls `answer` and sends what it returns; so the ways in differ in speed, never in
meaning. It touches no counter: it returns what there is to count, and the event loop's thread counts it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from nelbo.calibration import Scores
from nelbo.decision import Decision
from nelbo.errors import BodyError, CalibrationError, NelboError, RecordError, TooManyRecordsError
from nelbo.intent import Intent
from nelbo.records import Batch, shown
from nelbo.results import DecisionAnswer, FaultyResult, Model, Result, decision_answer, model_of, results
from nelbo.schema import Schema
from nelbo.scoring import Scored, Scorer
from service.live import Live
from service.problems import OF_ERROR, Answer, Fault, Kind, ProblemError, pointer
from service.query import parse_query

JSON = "application/json"
Stage = Literal["decode", "decide", "infer", "explain", "encode"]
Reason = Literal["missing", "unknown", "repeated", "not-a-record", "wrong-value"]


@dataclass(frozen=True)
class ScoreRequest:
    """What a transport knows of a scoring request.

    Attributes:
        name: of the model, as it stands in the path, decoded.
        body: whole, within the limit.
        content_type: the header, "" where there is none.
        content_encoding: the header, "" where there is none.
        query: without its question mark, not decoded.
    """

    name: str
    body: bytes
    content_type: str = JSON
    content_encoding: str = ""
    query: str = ""


class ScoreAnswer(msgspec.Struct, frozen=True):
    """The body of an answer that scores."""

    model: Model
    decision: DecisionAnswer
    results: list[Result | FaultyResult]


@dataclass
class Tally:
    """What there is to count about one request; whoever owns the counters adds it to them.

    Attributes:
        model: whose records; None where the request never met a model.
        scored: its records, for the watch over them; None where there are none.
        stages: seconds spent in each stage that was reached.
        n_records: that came in; None where the body was not understood.
        n_flagged: of them.
        errors: the reason of each record that could not be scored.
        p_values: of the scored records, shape (n,).
        n_missing: values missing, by field; a field without any may be left out.
        n_unseen: categories unseen, likewise.
        rejected: why the request was refused; None where it was not.
    """

    model: str | None = None
    scored: tuple[Scorer, Scored] | None = None
    stages: dict[Stage, float] = field(default_factory=dict)
    n_records: int | None = None
    n_flagged: int = 0
    errors: tuple[Reason, ...] = ()
    p_values: Scores = field(default_factory=lambda: np.empty(0))
    n_missing: dict[str, int] = field(default_factory=dict)
    n_unseen: dict[str, int] = field(default_factory=dict)
    rejected: Kind | None = None


def answer(
    live: Live,
    request: ScoreRequest,
    *,
    max_records: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Answer, Tally]:
    """The answer to a scoring request, and what there is to count about it.

    Args:
        live: the loaded models; its state is read once.
        request: the body within the limit on bytes.
        max_records: the limit on records.
        clock: seconds from any start, for the stages.
    """
    tally = Tally()
    try:
        return _scored(live, request, max_records, tally, clock), tally
    except ProblemError as error:
        tally.rejected = error.kind
        return error.answer, tally


def _scored(live: Live, request: ScoreRequest, max_records: int, tally: Tally, clock: Callable[[], float]) -> Answer:
    scorer = find_scorer(live, request.name)
    tally.model = request.name
    _expect_json(request)
    query = parse_query(request.query)
    marks = [clock()]
    intent = scorer.decider.intent if query.intent == Intent() else query.intent
    decision = _decided(scorer, intent)
    marks.append(clock())
    batch = _decoded(scorer, request.body, max_records)
    if query.strict and batch.errors:
        _refuse_records(request.body, batch)
    marks.append(clock())
    scored = scorer.discover(batch, intent.fdr) if intent.fdr is not None else scorer.score(batch, decision)
    marks.append(clock())
    found = results(scorer, scored, query.explain)
    marks.append(clock())
    state = live.watches.verdict(scorer).state
    decided = decision_answer(scorer, scored.decision, set(scored.segments.tolist()), state)
    body = msgspec.json.encode(ScoreAnswer(model_of(scorer), decided, found))
    marks.append(clock())
    _count(tally, scorer, scored, marks)
    return Answer(200, {"content-type": JSON}, body)


def find_scorer(live: Live, name: str) -> Scorer:
    """The scorer that serves a model.

    Raises:
        ProblemError: there is no such model, or it is not ready.
    """
    state = live.state(name)
    if state is not None and state.scorer is not None:
        return state.scorer
    reason = live.unlisted() if state is None else state.failure or "it is being loaded"
    if reason is None:
        raise ProblemError("unknown-model", f"no model {shown(name)} is served; GET /v1/models lists those that are")
    detail = f"model {shown(name)} cannot answer: {reason}"
    raise ProblemError("model-not-ready", detail, headers={"retry-after": "5"})


def _expect_json(request: ScoreRequest) -> None:
    if request.content_encoding not in ("", "identity"):
        detail = f"expected a body that is not compressed, got Content-Encoding {shown(request.content_encoding)}"
        raise ProblemError("unsupported-media-type", detail, headers={"accept-encoding": "identity"})
    media_type, *parameters = (part.strip().lower() for part in request.content_type.split(";"))
    if media_type != JSON or any(part not in ("charset=utf-8", 'charset="utf-8"', "") for part in parameters):
        found = shown(request.content_type) if request.content_type else "none"
        detail = f"expected Content-Type {JSON}, in UTF-8, got {found}"
        raise ProblemError("unsupported-media-type", detail, headers={"accept": JSON})


def _decided(scorer: Scorer, intent: Intent) -> Decision:
    try:
        return scorer.decider.decide(intent.rate, intent.confidence)
    except CalibrationError as error:
        raise ProblemError(_kind_of(error), str(error), [Fault(str(error), parameter="rate")]) from error


def _decoded(scorer: Scorer, body: bytes, max_records: int) -> Batch:
    try:
        return scorer.decoder.json(body, max_records)
    except TooManyRecordsError as error:
        raise ProblemError(_kind_of(error), str(error)) from error
    except BodyError as error:
        if not _is_json(body):
            faults = [Fault(str(error), pointer=error.pointer)] if error.pointer else []
            raise ProblemError("not-json", str(error), faults) from error
        raise ProblemError(_kind_of(error), str(error), [Fault(str(error), pointer=error.pointer)]) from error


def _is_json(body: bytes) -> bool:
    """Whether a refused body is JSON at all; only then its shape can be what is wrong."""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return True  # a number beyond any float: still JSON
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _refuse_records(body: bytes, batch: Batch) -> NoReturn:
    by_column = "columns" in msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    faults = [
        Fault(str(error), pointer=_place(error, by_column=by_column), expected=error.expected, found=error.found)
        for error in batch.errors
    ]
    n, total = len(faults), batch.n_records
    raise ProblemError(OF_ERROR[RecordError], f"{n} of {total} records cannot be scored, and strict=true", faults)


def _place(error: RecordError, *, by_column: bool) -> str:
    if error.field is None:
        return pointer("columns") if by_column else pointer("records", error.index)
    steps = ("columns", error.field, error.index) if by_column else ("records", error.index, error.field)
    return pointer(*steps)


def _kind_of(error: NelboError) -> Kind:
    return OF_ERROR[type(error)]


def _count(tally: Tally, scorer: Scorer, scored: Scored, marks: list[float]) -> None:
    stages: tuple[Stage, ...] = ("decide", "decode", "infer", "explain", "encode")
    tally.stages = {stage: after - before for stage, before, after in zip(stages, marks, marks[1:], strict=False)}
    tally.scored = (scorer, scored)
    tally.n_records = scored.batch.n_records
    tally.n_flagged = int(np.count_nonzero(scored.flagged))
    tally.errors = tuple(reason_of(error) for error in scored.batch.errors)
    tally.p_values = scored.p_values["score"]
    tally.n_missing, tally.n_unseen = _by_field(scorer.schema, scored.missing), _by_field(scorer.schema, scored.unseen)


def _by_field(schema: Schema, where: NDArray[np.bool_]) -> dict[str, int]:
    """How many records of each field are so; fields without any are left out, which is most of them."""
    counts = np.count_nonzero(where, axis=0)
    return {schema.fields[j].name: int(counts[j]) for j in np.flatnonzero(counts)}


def reason_of(error: RecordError) -> Reason:
    """What kind of wrong a record is; a closed set, for it becomes a metric's label."""
    if error.field is None:
        return "not-a-record"
    match error.found:
        case "none":
            return "missing"
        case "another name":
            return "unknown"
        case "it several times":
            return "repeated"
        case _:
            return "wrong-value"
