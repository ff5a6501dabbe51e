"""What is said of the models: which there are, what one is, which versions the store has."""

from typing import Any, Literal

import msgspec

from nelbo.judgement import MIN_RECORDS
from nelbo.results import Model, SegmentAnswer, model_of, segment_answers
from nelbo.scoring import Scorer
from nelbo.verdict import State as DriftState
from nelbo.verdict import Verdict
from service.answer import find_scorer
from service.live import Live, ModelState

State = Literal["loaded", "loading", "failed"]


class Summary(msgspec.Struct, frozen=True):
    """A model in the list: what serves, and why a load failed."""

    name: str
    state: State
    version: str | None
    digest: str | None
    reason: str | None


class Models(msgspec.Struct, frozen=True):
    """The list of models."""

    models: list[Summary]


class CalibrationSummary(msgspec.Struct, frozen=True):
    """What holds where a request names nothing, and what backs it."""

    created: str
    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    n_calibration: int
    confidence: float | None
    fdr: float | None  # holds instead of the rate
    segment_field: str | None  # whose categories are judged apart
    segments: list[SegmentAnswer] | None  # those of them that have enough calibration records of their own


class DriftOfField(msgspec.Struct, frozen=True):
    """How far one field's values are from those of the fit."""

    field: str
    psi: float
    js: float
    p_value: float
    missing: float
    unseen: float
    changes: tuple[str, ...]


class Drift(msgspec.Struct, frozen=True):
    """What the last judgement of the records that came in says."""

    state: DriftState
    reason: str
    next_command: str | None
    n_records: int  # that it was about
    fields: list[DriftOfField]  # none before the first judgement


class ModelDescription(msgspec.Struct, frozen=True):
    """All that a client needs to know of a model before its first request."""

    model: Model
    created: str
    record_schema: dict[str, Any] = msgspec.field(name="schema")
    example: dict[str, Any]
    calibration: CalibrationSummary
    metrics: dict[str, Any]
    card: str
    drift: Drift


class Version(msgspec.Struct, frozen=True):
    """A version in the store."""

    version: str
    aliases: list[str]
    serving: bool


class Versions(msgspec.Struct, frozen=True):
    """A model's versions, oldest first."""

    name: str
    versions: list[Version]


def models(live: Live) -> Models:
    """The models that are served, and those that failed to load."""
    states = {name: live.state(name) for name in live.names()}
    return Models([_summary(live, name, state) for name, state in states.items() if state is not None])


def _summary(live: Live, name: str, state: ModelState) -> Summary:
    why = state.failure or live.unlisted()
    reason = None if why is None else live.said(why)
    if state.scorer is None:
        return Summary(name, "loading" if reason is None else "failed", None, None, reason)
    return Summary(name, "loaded", state.scorer.bundle.version, state.scorer.bundle.digest, reason)


def describe(live: Live, name: str) -> ModelDescription:
    """One model.

    Raises:
        ProblemError: there is no such model, or it is not ready.
    """
    scorer = find_scorer(live, name)
    bundle = scorer.bundle
    return ModelDescription(
        model=model_of(scorer),
        created=bundle.manifest.created,
        record_schema=bundle.schema.model_dump(mode="json", exclude_defaults=True),
        example=example_record(scorer),
        calibration=_calibration(scorer),
        metrics=bundle.manifest.metrics,
        card=bundle.card,
        drift=_drift(live.watches.refresh(scorer)),
    )


def _drift(verdict: Verdict) -> Drift:
    judgement = verdict.judgement
    judged = judgement.fields if judgement.n_records >= MIN_RECORDS else ()
    fields = [DriftOfField(f.field, f.psi, f.js, f.p_value, f.missing, f.unseen, f.changes) for f in judged]
    return Drift(verdict.state, verdict.reason, verdict.next_command, judgement.n_records, fields)


def example_record(scorer: Scorer) -> dict[str, Any]:
    """A record that the model scores: the first of its golden ones."""
    return scorer.bundle.golden[0].record


def _calibration(scorer: Scorer) -> CalibrationSummary:
    calibration, decision = scorer.bundle.calibration, scorer.decider.decide()
    return CalibrationSummary(
        created=calibration.created,
        rate=decision.rate,
        effective_rate=decision.effective_rate,
        rate_low=decision.rate_low,
        rate_high=decision.rate_high,
        n_calibration=decision.n_calibration,
        confidence=decision.confidence,
        fdr=calibration.fdr,
        segment_field=None if calibration.segments is None else calibration.segments.field,
        segments=segment_answers(calibration.segments, decision, decision.segments),
    )


def versions(live: Live, name: str) -> Versions:
    """A model's versions; reads the store, so not for the event loop's thread.

    Raises:
        ProblemError: there is no such model, or it is not ready.
        StoreError: the aliases cannot be read.
    """
    serving = find_scorer(live, name).bundle.version
    aliases = live.store.aliases(name)
    found = [
        Version(version, sorted(alias for alias, of in aliases.items() if of == version), version == serving)
        for version in live.store.versions(name)
    ]
    return Versions(name, found)
