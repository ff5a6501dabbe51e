"""What is said of the models: which there are, what one is, which versions the store has."""

from typing import Any, Literal

import msgspec

from nelbo.results import Model, model_of
from nelbo.scoring import Scorer
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
    """The rate that holds where a request names none, and what backs it."""

    created: str
    rate: float
    effective_rate: float
    rate_low: float
    rate_high: float
    n_calibration: int


class ModelDescription(msgspec.Struct, frozen=True):
    """All that a client needs to know of a model before its first request."""

    model: Model
    created: str
    record_schema: dict[str, Any] = msgspec.field(name="schema")
    example: dict[str, Any]
    calibration: CalibrationSummary
    metrics: dict[str, Any]
    card: str
    drift: str | None


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
    return Models([_summary(name, state) for name, state in states.items() if state is not None])


def _summary(name: str, state: ModelState) -> Summary:
    if state.scorer is None:
        return Summary(name, "loading" if state.failure is None else "failed", None, None, state.failure)
    return Summary(name, "loaded", state.scorer.bundle.version, state.scorer.bundle.digest, state.failure)


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
        drift=None,
    )


def example_record(scorer: Scorer) -> dict[str, Any]:
    """A record that the model scores: the first of its golden ones."""
    return scorer.bundle.golden[0].record


def _calibration(scorer: Scorer) -> CalibrationSummary:
    decision = scorer.decider.decide()
    return CalibrationSummary(
        created=scorer.bundle.calibration.created,
        rate=decision.rate,
        effective_rate=decision.effective_rate,
        rate_low=decision.rate_low,
        rate_high=decision.rate_high,
        n_calibration=decision.n_calibration,
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
