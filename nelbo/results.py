"""What is said of each record, as it stands in an answer and in a line of `nelbo score`.

The names are a contract. What no part of nelbo fills yet is null.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from nelbo.calibration import StatisticName
from nelbo.decision import Decision
from nelbo.errors import RecordError
from nelbo.expectation import Expected
from nelbo.explanation import Causes, Explanation, Repairs, causes, expected_of, explain, repair
from nelbo.reason import Cause, sentence
from nelbo.schema import Category
from nelbo.scoring import Scored, Scorer, upward
from nelbo.segments import Segments
from nelbo.verdict import State

Explain = Literal["flagged", "all", "none"]
# Records that are explained between two looks at whether somebody still waits: of 30 fields some 50 ms. Chosen
_EXPLAINED_AT_ONCE = 64


class Model(msgspec.Struct, frozen=True):
    """The version that answered."""

    name: str
    version: str
    digest: str


class SegmentAnswer(msgspec.Struct, frozen=True):
    """What held instead for the records of one segment, judged by calibration records of their own."""

    segment: bool | Category
    effective_rate: float
    rate_low: float
    rate_high: float
    n_calibration: int
    threshold: float | None


class DecisionAnswer(msgspec.Struct, frozen=True):
    """What held for every record of the answer."""

    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    mode: str
    n_calibration: int
    threshold: float | None  # null: at this rate nothing is ever flagged
    state: State | None  # whether records are still like those of the fit; null where nobody watches, as of a file
    confidence: float | None  # with which the true rate is below `rate`; null where none was asked for
    fdr: float | None  # false discovery rate asked for; null where a rate was
    segments: list[SegmentAnswer] | None  # of the answer's records, those judged apart; null where the bundle has none


class Deciding(msgspec.Struct, frozen=True, gc=False):
    """The statistic that decides."""

    value: float
    p_value: float
    threshold: float | None


class Statistic(msgspec.Struct, frozen=True, gc=False):
    """A statistic that does not decide."""

    value: float
    p_value: float
    threshold: float | None
    beyond: bool


class Contribution(msgspec.Struct, frozen=True, gc=False):
    """One field's part in a record's oddness."""

    field: str
    contribution: float  # nats of the negative ELBO
    attribution: float | None  # how much the score falls when the field is hidden, a category's part in full; unitless
    value: Any
    expected: Any  # by the other fields; of a field that `repair` changes, by those that it does not
    low: float | None  # nine normal values of ten lie between; null where that is not known
    high: float | None


class Repair(msgspec.Struct, frozen=True):
    """A normal record close to a flagged one."""

    changes: dict[str, Any]  # what the fields that explain the alarm are expected to be; null to leave one out
    p_value: float  # of the record with them
    flagged: bool


class Explained(msgspec.Struct, frozen=True, gc=False):
    """Why a record is odd: nothing where nobody asked, the last two of flagged records alone."""

    contributions: list[Contribution] | None  # the largest attribution first
    reason: str | None
    repair: Repair | None


_UNEXPLAINED = Explained(None, None, None)


class Result(msgspec.Struct, frozen=True, gc=False):
    """A scored record."""

    index: int
    id: Any
    flagged: bool
    p_value: float
    score: Deciding
    reconstruction_error: Statistic
    elbo: Statistic
    kl: float
    contributions: list[Contribution] | None
    reason: str | None
    repair: Repair | None
    missing: Sequence[str]
    unseen: Sequence[str]
    segment: bool | Category | None  # by whose calibration records it is judged; null for all records


class Fault(msgspec.Struct, frozen=True):
    """What was wrong with a record."""

    field: str | None
    expected: str
    found: str
    detail: str


class FaultyResult(msgspec.Struct, frozen=True):
    """A record that could not be scored."""

    index: int
    id: Any
    error: Fault


def model_of(scorer: Scorer) -> Model:
    """How an answer names its model."""
    bundle = scorer.bundle
    return Model(bundle.name, bundle.version, bundle.digest)


def decision_answer(
    scorer: Scorer, decision: Decision, there: Iterable[int] = (), state: State | None = None
) -> DecisionAnswer:
    """How an answer states its decision.

    Args:
        scorer: whose decision it is.
        decision: what held.
        there: numbers of the segments that the answer's records are of.
        state: of the traffic, where it is watched.
    """
    return DecisionAnswer(
        decision.rate,
        decision.effective_rate,
        decision.rate_low,
        decision.rate_high,
        decision.mode,
        decision.n_calibration,
        _finite(decision.thresholds["score"]),
        state,
        decision.confidence,
        decision.fdr,
        segment_answers(scorer.bundle.calibration.segments, decision, there),
    )


def segment_answers(segments: Segments | None, decision: Decision, there: Iterable[int]) -> list[SegmentAnswer] | None:
    """What holds in the segments of some numbers; of those that all records judge, nothing else does."""
    if segments is None:
        return None
    numbers = [number for number in sorted(there) if number in decision.segments]
    return [_segment_answer(segments.values[number], decision.segments[number]) for number in numbers]


def _segment_answer(segment: bool | Category, decision: Decision) -> SegmentAnswer:
    return SegmentAnswer(
        segment,
        decision.effective_rate,
        decision.rate_low,
        decision.rate_high,
        decision.n_calibration,
        _finite(decision.thresholds["score"]),
    )


def _go_on() -> None:
    pass


def results(
    scorer: Scorer, scored: Scored, explain: Explain = "flagged", go_on: Callable[[], None] = _go_on
) -> list[Result | FaultyResult]:
    """One result a record, in the order of the records, those that could not be scored included.

    Args:
        scorer: that scored.
        scored: the records.
        explain: which of them.
        go_on: is called again and again while records are explained, which may take long; what it raises ends that.
    """
    wanted = {"flagged": scored.flagged, "all": np.ones_like(scored.flagged), "none": np.zeros_like(scored.flagged)}
    good = _results(scorer, scored, _explanations(scorer, scored, np.flatnonzero(wanted[explain]), go_on))
    if not scored.batch.errors:
        return good
    faulty = [fault_of(error) for error in scored.batch.errors]
    return sorted([*good, *faulty], key=lambda result: result.index)


def fault_of(error: RecordError) -> FaultyResult:
    """The result of a record that could not be scored."""
    return FaultyResult(error.index, None, Fault(error.field, error.expected, error.found, str(error)))


def _results(scorer: Scorer, scored: Scored, explained: Mapping[int, Explained]) -> list[Result | FaultyResult]:
    """One result a scored record, made column by column: record by record they would take eight times as long."""
    p_values = scored.p_values["score"].tolist()
    contributions: Iterable[list[Contribution] | None] = repeat(None)
    reasons: Iterable[str | None] = repeat(None)
    repairs: Iterable[Repair | None] = repeat(None)
    if explained:
        of_each = [explained.get(row, _UNEXPLAINED) for row in range(len(scored.batch))]
        contributions = [found.contributions for found in of_each]
        reasons, repairs = [found.reason for found in of_each], [found.repair for found in of_each]
    made = map(
        Result,
        scored.batch.index.tolist(),
        scored.batch.ids,
        scored.flagged.tolist(),
        p_values,
        map(Deciding, scored.statistics["score"].tolist(), p_values, _thresholds(scored, "score")),
        _statistics(scored, "reconstruction_error"),
        _statistics(scored, "elbo"),
        scored.kl.tolist(),
        contributions,
        reasons,
        repairs,
        _named(scorer, scored.missing),
        _named(scorer, scored.unseen),
        _segments(scorer, scored),
    )
    return list(made)


def _statistics(scored: Scored, name: StatisticName) -> Iterator[Statistic]:
    """A statistic in its own direction: the ELBO's threshold lies below the normal records."""
    values = scored.statistics[name]
    beyond = upward(name, values) > scored.decision.threshold(name, scored.segments)
    return map(Statistic, values.tolist(), scored.p_values[name].tolist(), _thresholds(scored, name), beyond.tolist())


def _thresholds(scored: Scored, name: StatisticName) -> Iterable[float | None]:
    """What each record's statistic is held against, in its own direction."""
    found = upward(name, np.asarray(scored.decision.threshold(name, scored.segments)))
    return map(_finite, found.tolist()) if found.ndim else repeat(_finite(float(found)))


def _named(scorer: Scorer, where: NDArray[np.bool_]) -> Iterable[Sequence[str]]:
    """The names of the fields at which each record is so."""
    if not where.any():
        return repeat(())
    names = [field.name for field in scorer.schema.fields]
    found: list[Sequence[str]] = [()] * len(where)
    for row in np.flatnonzero(where.any(axis=1)).tolist():
        found[row] = [names[j] for j in np.flatnonzero(where[row]).tolist()]
    return found


def _segments(scorer: Scorer, scored: Scored) -> Iterable[bool | Category | None]:
    if not scored.decision.segments:
        return repeat(None)
    return map(scorer.segment_named, scored.decision.judges(scored.segments).tolist())


def explained_alarms(scorer: Scorer, scored: Scored, go_on: Callable[[], None] = _go_on) -> dict[int, Explained]:
    """Why each flagged record is odd, by row; `go_on` as for `results`."""
    return _explanations(scorer, scored, np.flatnonzero(scored.flagged), go_on)


def _explanations(
    scorer: Scorer, scored: Scored, rows: NDArray[np.intp], go_on: Callable[[], None]
) -> dict[int, Explained]:
    found: dict[int, Explained] = {}
    for start in range(0, rows.size, _EXPLAINED_AT_ONCE):
        go_on()
        found |= _explanations_of_some(scorer, scored, rows[start : start + _EXPLAINED_AT_ONCE])
    return found


def _explanations_of_some(scorer: Scorer, scored: Scored, rows: NDArray[np.intp]) -> dict[int, Explained]:
    explanation = explain(scorer, scored, rows)
    flagged = np.flatnonzero(scored.flagged[rows])
    alarms: dict[int, tuple[Causes, Repairs, int]] = {}
    if flagged.size:
        found = causes(scorer, scored, explanation.some(flagged))
        repairs = repair(scorer, scored, found)
        alarms = {at: (found, repairs, i) for i, at in enumerate(flagged.tolist())}
    return {row: _explained(scorer, scored, explanation, at, alarms.get(at)) for at, row in enumerate(rows.tolist())}


def _explained(
    scorer: Scorer, scored: Scored, explanation: Explanation, at: int, alarm: tuple[Causes, Repairs, int] | None
) -> Explained:
    """Of one record, and of its alarm where it is flagged."""
    row = int(explanation.rows[at])
    n_fields = len(scorer.schema.fields)
    numbers, codes = explanation.expected_numbers[at], explanation.expected_codes[at]
    expected = [expected_of(scorer, numbers, codes, j) for j in range(n_fields)]
    reason = repaired = None
    if alarm is not None:
        found, repairs, i = alarm
        numbers, codes = found.expected_numbers[i], found.expected_codes[i]
        for j in found.fields[i]:
            expected[j] = expected_of(scorer, numbers, codes, j)
        p_value, flagged = repairs.scored.p_values["score"][i], bool(repairs.scored.flagged[i])
        repaired = Repair(repairs.changes[i], float(p_value), flagged) if found.fields[i] else None
        are_enough = bool(found.are_enough[i]) and not flagged
        reason = _reason(scorer, scored, row, expected, found.fields[i], are_enough=are_enough)
    attribution = explanation.attribution[at]
    contributions = [
        Contribution(
            field=scorer.schema.fields[j].name,
            contribution=float(scored.contributions[row, j]),
            attribution=float(attribution[j]),
            value=_value(scorer, scored, row, j),
            expected=expected[j].value,
            low=expected[j].low,
            high=expected[j].high,
        )
        for j in np.argsort(-attribution, kind="stable").tolist()
    ]
    return Explained(contributions, reason, repaired)


def _reason(
    scorer: Scorer, scored: Scored, row: int, expected: Sequence[Expected], found: Sequence[int], *, are_enough: bool
) -> str:
    fields = scorer.schema.fields
    unseen, missing = (np.flatnonzero(of[row]).tolist() for of in (scored.unseen, scored.missing))
    return sentence(
        [Cause(fields[j], _value(scorer, scored, row, j), expected[j], is_unseen=j in unseen) for j in found],
        [fields[j] for j in missing],
        [(fields[j], _value(scorer, scored, row, j)) for j in unseen if j not in found],
        are_enough=are_enough,
    )


def _value(scorer: Scorer, scored: Scored, row: int, position: int) -> Any:
    return shown_value(scored.batch.values[scorer.schema.fields[position].name], row)


def shown_value(values: Sequence[Any], row: int) -> Any:
    """A record's own value: an integer as it was sent, a value left out as null."""
    value = values[row]
    if value is UNSET:
        return None
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    return value


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
