"""What is said of each record, as it stands in an answer and in a line of `nelbo score`.

The names are a contract. What no part of nelbo fills yet is null.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET

from nelbo.calibration import StatisticName
from nelbo.decision import Decision
from nelbo.errors import RecordError
from nelbo.schema import Category, Column
from nelbo.scoring import Explanation, Scored, Scorer, upward

Explain = Literal["flagged", "all", "none"]

# An explanation holds fields × fields numbers a record: thousands of records at once took gigabytes.
_EXPLAINED_AT_ONCE = 256


class Model(msgspec.Struct, frozen=True):
    """The version that answered."""

    name: str
    version: str
    digest: str


class DecisionAnswer(msgspec.Struct, frozen=True):
    """What held for every record of the answer."""

    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    mode: str
    n_calibration: int
    threshold: float | None  # null: at this rate nothing is ever flagged
    state: str | None
    confidence: float | None  # with which the true rate is below `rate`; null where none was asked for
    fdr: float | None  # false discovery rate asked for; null where a rate was


class Deciding(msgspec.Struct, frozen=True):
    """The statistic that decides."""

    value: float
    p_value: float
    threshold: float | None


class Statistic(msgspec.Struct, frozen=True):
    """A statistic that does not decide."""

    value: float
    p_value: float
    threshold: float | None
    beyond: bool


class Contribution(msgspec.Struct, frozen=True):
    """One field's part in a record's oddness."""

    field: str
    contribution: float  # nats of the negative ELBO
    attribution: float | None  # how much the score falls when the field is hidden, a category's part in full; unitless
    value: Any
    expected: Any
    low: float | None
    high: float | None


class Result(msgspec.Struct, frozen=True):
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
    repair: Any
    missing: list[str]
    unseen: list[str]


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


def decision_answer(decision: Decision) -> DecisionAnswer:
    """How an answer states its decision."""
    return DecisionAnswer(
        decision.rate,
        decision.effective_rate,
        decision.rate_low,
        decision.rate_high,
        decision.mode,
        decision.n_calibration,
        _finite(decision.thresholds["score"]),
        None,
        decision.confidence,
        decision.fdr,
    )


def results(scorer: Scorer, scored: Scored, explain: Explain = "flagged") -> list[Result | FaultyResult]:
    """One result a record, in the order of the records, those that could not be scored included."""
    explained = _contributions(scorer, scored, explain)
    good = [_result(scorer, scored, row, explained.get(row)) for row in range(len(scored.batch))]
    faulty = [fault_of(error) for error in scored.batch.errors]
    return sorted([*good, *faulty], key=lambda result: result.index)


def fault_of(error: RecordError) -> FaultyResult:
    """The result of a record that could not be scored."""
    return FaultyResult(error.index, None, Fault(error.field, error.expected, error.found, str(error)))


def _result(scorer: Scorer, scored: Scored, row: int, contributions: list[Contribution] | None) -> Result:
    names = [field.name for field in scorer.schema.fields]
    p_value = float(scored.p_values["score"][row])
    return Result(
        index=int(scored.batch.index[row]),
        id=scored.batch.ids[row],
        flagged=bool(scored.flagged[row]),
        p_value=p_value,
        score=Deciding(float(scored.statistics["score"][row]), p_value, _finite(scored.decision.thresholds["score"])),
        reconstruction_error=_statistic(scored, "reconstruction_error", row),
        elbo=_statistic(scored, "elbo", row),
        kl=float(scored.kl[row]),
        contributions=contributions,
        reason=None,
        repair=None,
        missing=[names[j] for j in np.flatnonzero(scored.missing[row])],
        unseen=[names[j] for j in np.flatnonzero(scored.unseen[row])],
    )


def _statistic(scored: Scored, name: StatisticName, row: int) -> Statistic:
    """A statistic in its own direction: the ELBO's threshold lies below the normal records."""
    p_value = float(scored.p_values[name][row])
    threshold = _finite(float(upward(name, np.array(scored.decision.thresholds[name]))))
    beyond = p_value <= scored.decision.effective_rate
    return Statistic(float(scored.statistics[name][row]), p_value, threshold, beyond)


def _contributions(scorer: Scorer, scored: Scored, explain: Explain) -> dict[int, list[Contribution]]:
    """Contributions of the records that want them, the largest attribution first."""
    wanted = {"flagged": scored.flagged, "all": np.ones_like(scored.flagged), "none": np.zeros_like(scored.flagged)}
    rows = np.flatnonzero(wanted[explain])
    found: dict[int, list[Contribution]] = {}
    for start in range(0, rows.size, _EXPLAINED_AT_ONCE):
        explanation = scorer.explain(scored, rows[start : start + _EXPLAINED_AT_ONCE])
        found |= {
            int(row): list(_of_record(scorer, scored, explanation, at)) for at, row in enumerate(explanation.rows)
        }
    return found


def _of_record(scorer: Scorer, scored: Scored, explanation: Explanation, at: int) -> Iterator[Contribution]:
    row = int(explanation.rows[at])
    fields = scorer.schema.fields
    for j in np.argsort(-explanation.attribution[at], kind="stable"):
        field = fields[j]
        yield Contribution(
            field=field.name,
            contribution=float(scored.contributions[row, j]),
            attribution=float(explanation.attribution[at, j]),
            value=shown_value(scored.batch.values[field.name], row),
            expected=_expected(scorer, explanation, at, int(j)),
            low=None,
            high=None,
        )


def _expected(scorer: Scorer, explanation: Explanation, at: int, j: int) -> float | str | Category:
    """The value that the other fields make likely, in the field's own unit and to its own step."""
    field = scorer.schema.fields[j]
    if field.is_coded:
        code = int(explanation.expected_codes[at, j, scorer.schema.codes.index(field)])
        return _category(field, code)
    number = float(explanation.expected_numbers[at, j, scorer.schema.numbers.index(field)])
    if field.kind == "timestamp":
        return _moment(number)
    return _rounded(number, field)


def _moment(seconds: float) -> float | str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError):
        return seconds  # a calendar ends with the year 9999, a field's values need not


def _category(field: Column, code: int) -> Category:
    return field.known[code] if code < len(field.known) else "a rare value"


def _rounded(number: float, field: Column) -> float:
    if field.step:
        number = round(number / field.step) * field.step
    return float(f"{number:.6g}")


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
