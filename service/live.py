"""The models that answer: loaded from the store, replayed and warmed before they do."""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from nelbo.bundle import read_bundle
from nelbo.errors import BundleError, NelboError
from nelbo.records import take
from nelbo.results import results
from nelbo.scoring import CHUNK, Scorer
from nelbo.store import Store
from service import logs
from service.paths import without_path
from service.watches import Watches


@dataclass(frozen=True)
class ModelState:
    """One model: what serves, and what became of the last load.

    Attributes:
        scorer: of the version that serves; None until a load succeeds.
        failure: why the last load failed; None where it succeeded or none was tried yet.
        loaded_at: when the last load succeeded, seconds since 1970; None where none did.
    """

    scorer: Scorer | None = None
    failure: str | None = None
    loaded_at: float | None = None


class Live:
    """Every model of a store, loaded or with the reason why not.

    A state is replaced whole, never changed, so that a request that read it sees one version.

    Args:
        store: where the bundles are.
        clock: seconds since 1970.

    Attributes:
        watches: over the records of the models that answer.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock
        self.watches = Watches(clock)
        self._states: dict[str, ModelState] = {}
        self._unlisted: str | None = f"the models in {store.root} are not known yet"

    def names(self) -> list[str]:
        """The models known since the last `load_all`, loaded or not."""
        return sorted(self._states)

    def state(self, name: str) -> ModelState | None:
        """A model's state; None for a name that the store did not have."""
        return self._states.get(name)

    def unlisted(self) -> str | None:
        """Why it is not known which models there are; None once it is."""
        return self._unlisted

    def scorers(self) -> dict[str, Scorer]:
        """The models that answer, by name."""
        return {name: state.scorer for name, state in sorted(self._states.items()) if state.scorer is not None}

    def problems(self) -> list[str]:
        """Why the service is not ready; empty when it is: there is a model, and every model answers."""
        if not self._states:
            return [self.said(self._unlisted or f"no model in {self.store.root}")]
        waiting = {name: state for name, state in self._states.items() if state.scorer is None}
        reasons = {name: self.said(state.failure or "is being loaded") for name, state in sorted(waiting.items())}
        return [f"model '{name}': {reason}" for name, reason in reasons.items()]

    def said(self, reason: str) -> str:
        """A reason as clients may read it: without the path of the store."""
        return without_path(reason, self.store.root)

    def load_all(self) -> None:
        """Loads the live version of every model; a model that fails does not stop the others."""
        try:
            names = self.store.names()
        except OSError as error:
            self._unlisted = f"{self.store.root}: cannot be read: {error.strerror}"
            logs.event("models cannot be read", level=logging.ERROR, reason=self._unlisted)
            return
        self._states = {name: self._states.get(name, ModelState()) for name in names}
        self._unlisted = None
        if not names:
            logs.event("no model", level=logging.WARNING, models=str(self.store.root))
        for name in names:
            self.load(name)
        # What is loaded stays; to look through it again and again would make the event loop pause for milliseconds.
        gc.freeze()

    def load(self, name: str) -> None:
        """Loads a model's live version; where that fails, what served goes on serving."""
        started = time.perf_counter()
        before = self._states.get(name, ModelState())
        try:
            scorer = load_scorer(self.store.live(name), name)
        except NelboError as error:
            self._put(name, replace(before, failure=str(error)))
            logs.event("model failed to load", level=logging.ERROR, model=name, reason=str(error))
        except Exception as error:  # the files are a stranger's, and onnxruntime raises what it likes about them
            reason = f"model '{name}' cannot be loaded: {type(error).__name__}: {error}"
            self._put(name, replace(before, failure=reason))
            logs.event("model failed to load", level=logging.ERROR, error=error, model=name, reason=reason)
        else:
            self._put(name, ModelState(scorer, None, self._clock()))
            logs.event(
                "model loaded",
                model=name,
                version=scorer.bundle.version,
                previous=before.scorer.bundle.version if before.scorer else None,
                duration_s=round(time.perf_counter() - started, 3),
            )

    def _put(self, name: str, state: ModelState) -> None:
        """Replaces the whole table: whoever is reading it in another thread goes on reading the old one."""
        self._states = {**self._states, name: state}


def load_scorer(folder: Path, name: str) -> Scorer:
    """A scorer that may serve: read and verified, golden records replayed, warm.

    Args:
        folder: of the bundle.
        name: what the store calls the model.

    Raises:
        BundleError: the bundle is damaged, of another model, or scores differently here.
    """
    bundle = read_bundle(folder)
    if bundle.name != name:
        raise BundleError(f"bundle {folder}: the manifest says it is of model '{bundle.name}', expected '{name}'")
    scorer = Scorer(bundle)
    scorer.replay()
    _warm_up(scorer)
    return scorer


def _warm_up(scorer: Scorer) -> None:
    """Runs what the first request would otherwise be the first to run."""
    body = msgspec.json.encode({"records": [scorer.bundle.golden[0].record]})
    batch, _ = scorer.decoder.together([body, body], max_records=1)
    results(scorer, scorer.score(batch), "all")
    scorer.score(take(batch, np.zeros(CHUNK, dtype=np.intp)))  # the memory of a whole chunk
