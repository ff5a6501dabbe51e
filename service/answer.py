"""One scoring request in, one answer out: the only place that decides what a request gets.

Whatever carries requests calls `answer`, or for many short ones at once the parts of it, and sends what it returns; so
the ways in differ in speed, never in meaning. It touches no counter: it returns what there is to count, and the event
loop's thread counts it.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from nelbo.calibration import Scores
from nelbo.decision import Decision
from nelbo.errors import CalibrationError, RecordError
from nelbo.intent import Intent
from nelbo.records import shown
from nelbo.results import DecisionAnswer, FaultyResult, Model, Result, decision_answer, model_of
from nelbo.schema import Schema
from nelbo.scoring import Scored, Scorer
from nelbo.verdict import State
from service.decoding import decoded, expect_known_form
from service.encoding import answer_headers, encoded, said_of
from service.forms import accepted
from service.live import Live
from service.problems import JSON, OF_ERROR, Answer, Fault, Kind, ProblemError
from service.query import Query, expect_of_stream, expect_of_whole, parse_query
from service.request import ScoreRequest

Stage = Literal["decode", "decide", "infer", "explain", "encode"]
_STAGES: tuple[Stage, ...] = ("decide", "decode", "infer", "explain", "encode")  # as they follow each other
Reason = Literal["missing", "unknown", "repeated", "not-a-record", "wrong-value"]
encode = msgspec.json.Encoder().encode
# Of so many results, some 100 kB. Where there is no memory for more, `encode` of msgspec 0.22 ends the process with a
# segmentation fault, and this raises MemoryError (2026-11-25).
encode_into, _MANY = msgspec.json.Encoder().encode_into, 256


class ScoreAnswer(msgspec.Struct, frozen=True):
    """The body of an answer that scores."""

    model: Model
    decision: DecisionAnswer
    results: Sequence[Result | FaultyResult]


@dataclass(frozen=True)
class Wish:
    """What a scoring request asks for.

    Attributes:
        scorer: of the version that answers.
        query: of the request.
        fdr: the false discovery rate that holds, if one does.
        decision: that holds; of a false discovery rate only the request's records can tell.
    """

    scorer: Scorer
    query: Query
    fdr: float | None
    decision: Decision


@dataclass
class Tally:
    """What there is to count about one request, or several scored together; whoever owns the counters adds it to them.

    Attributes:
        model: whose records; None where the request never met a model.
        scored: its records, for the watch over them; None where there are none.
        stages: of each stage that was reached the seconds spent there, and how many requests spent them.
        n_records: that came in with each request; none where its body was not understood.
        n_flagged: of all of them.
        errors: the reason of each record that could not be scored.
        p_values: of the scored records, shape (n,).
        n_missing: values missing, by field; a field without any may be left out.
        n_unseen: categories unseen, likewise.
        rejected: why the request was refused; None where it was not.
    """

    model: str | None = None
    scored: tuple[Scorer, Scored] | None = None
    stages: dict[Stage, tuple[float, int]] = field(default_factory=dict)
    n_records: Sequence[int] = ()
    n_flagged: int = 0
    errors: tuple[Reason, ...] = ()
    p_values: Scores = field(default_factory=lambda: np.empty(0))
    n_missing: dict[str, int] = field(default_factory=dict)
    n_unseen: dict[str, int] = field(default_factory=dict)
    rejected: Kind | None = None

    def count(self, scorer: Scorer, scored: Scored, marks: Sequence[float], sizes: Sequence[int], n_later: int) -> None:
        """Takes in scored records.

        Args:
            scorer: that scored.
            scored: the records of all requests.
            marks: when each stage began and the last one ended, seconds.
            sizes: how many records came with each request.
            n_later: of the requests, those that are yet to be explained and encoded.
        """
        n = len(sizes)
        n_each = (n, n, n, n - n_later, n - n_later)
        for stage, of, (before, after) in zip(_STAGES, n_each, pairwise(marks), strict=True):
            self.stages[stage] = (after - before, of)
        self.n_records = sizes
        self.scored = (scorer, scored)
        self.n_flagged = int(np.count_nonzero(scored.flagged))
        self.errors = tuple(reason_of(error) for error in scored.batch.errors)
        self.p_values = scored.p_values["score"]
        self.n_missing = _by_field(scorer.schema, scored.missing)
        self.n_unseen = _by_field(scorer.schema, scored.unseen)


def answer(
    live: Live,
    request: ScoreRequest,
    *,
    max_records: int,
    go_on: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Answer, Tally]:
    """The answer to a scoring request, and what there is to count about it.

    Args:
        live: the loaded models; its state is read once.
        request: the body within the limit on bytes.
        max_records: the limit on records.
        go_on: is called again and again while records are explained; a problem that it raises is the answer.
        clock: seconds from any start, for the stages.
    """
    tally = Tally()
    try:
        return _scored(live, request, max_records, tally, go_on, clock), tally
    except ProblemError as error:
        tally.rejected = error.kind
        return error.answer, tally


def _scored(
    live: Live,
    request: ScoreRequest,
    max_records: int,
    tally: Tally,
    go_on: Callable[[], None],
    clock: Callable[[], float],
) -> Answer:
    marks = [clock()]
    wish = wish_of(live, request, tally)
    scorer = wish.scorer
    marks.append(clock())
    batch = decoded(scorer, request, max_records, strict=wish.query.strict)
    marks.append(clock())
    scored = scorer.score(batch, wish.decision) if wish.fdr is None else scorer.discover(batch, wish.fdr)
    marks.append(clock())
    form = accepted(request.accept) if request.accept else JSON
    said = said_of(form, scorer, scored, wish.query.explain, go_on)
    marks.append(clock())
    state = live.watches.verdict(scorer).state
    if form == JSON:
        body = body_of(head(scorer, scored.decision, scored.segments.tolist(), state), said)
        found = Answer(200, {"content-type": JSON}, body)
    else:
        found = Answer(200, answer_headers(form, scorer, scored.decision, state), encoded(form, said))
    marks.append(clock())
    tally.count(scorer, scored, marks, (batch.n_records,), 0)
    return found


def wish_of(live: Live, request: ScoreRequest, tally: Tally, max_window: int | None = None) -> Wish:
    """What a request asks for.

    Args:
        live: the loaded models.
        request: its body is not looked at.
        tally: is told of the model, as soon as there is one.
        max_window: the most records in a window of a stream; None where the body comes whole.

    Raises:
        ProblemError: there is no such model, the body has a form that is not read, or the query is wrong.
    """
    scorer = find_scorer(live, request.name)
    tally.model = request.name
    expect_known_form(request)
    query = parse_query(request.query)
    intent = scorer.decider.intent if query.intent == Intent() else query.intent
    if max_window is None:
        expect_of_whole(query)
    else:
        expect_of_stream(query, intent.fdr, max_window)
    return Wish(scorer, query, intent.fdr, _decided(scorer, intent))


def head(scorer: Scorer, decision: Decision, segments: Iterable[int], state: State | None) -> bytes:
    """The body of an answer up to its results, which short requests that come together have in common.

    Args:
        scorer: of the version that answers.
        decision: that held.
        segments: of which the answer's records are.
        state: of the traffic.
    """
    decided = decision_answer(scorer, decision, set(segments), state)
    return encode(ScoreAnswer(model_of(scorer), decided, ()))[: -len("[]}")]


def body_of(head_: bytes, found: Sequence[Result | FaultyResult]) -> bytes:
    """The body of an answer: its head, and what is said of the records."""
    if len(found) < _MANY:
        return b"%b%b}" % (head_, encode(found))
    body = bytearray()
    encode_into(found, body)
    return b"".join((head_, body, b"}"))


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
    detail = f"model {shown(name)} cannot answer: {live.said(reason)}"
    raise ProblemError("model-not-ready", detail, headers={"retry-after": "5"})


def _decided(scorer: Scorer, intent: Intent) -> Decision:
    try:
        return scorer.decider.decide(intent.rate, intent.confidence)
    except CalibrationError as error:
        raise ProblemError(OF_ERROR[type(error)], str(error), [Fault(str(error), parameter="rate")]) from error


def _by_field(schema: Schema, where: NDArray[np.bool_]) -> dict[str, int]:
    """How many records of each field are so; fields without any are left out, which is most of them."""
    if not where.any():
        return {}
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
