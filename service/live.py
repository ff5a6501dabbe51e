"""The models that answer: loaded from the store, replayed and warmed before they do."""

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from weakref import WeakSet

from nelbo.bundle import read_manifest
from nelbo.changes import changes, refuse_changes
from nelbo.errors import NelboError, SchemaChangedError
from nelbo.probe import Probe
from nelbo.scoring import Scorer
from nelbo.store import Store
from service import logs
from service.loading import load_scorer
from service.marks import Marks, differ, marks_of
from service.memory import give_memory_back
from service.paths import without_path
from service.watches import Watches

if TYPE_CHECKING:
    from nelbo.trust import Trust

Outcome = Literal["loaded", "unchanged", "failed", "schema-changed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_PATIENCE_S = 10.0  # for what still uses the version before the last; chosen, longer than a request takes
_POLL_S = 0.02


@dataclass(frozen=True)
class ModelState:
    """One model: what serves, and what became of the last load.

    Attributes:
        scorer: of the version that serves; None until a load succeeds.
        failure: why the live version is not what serves; None where it is, or no load was tried yet.
        loaded_at: when the last load succeeded, seconds since 1970; None where none did.
    """

    scorer: Scorer | None = None
    failure: str | None = None
    loaded_at: float | None = None

    @property
    def version(self) -> str | None:
        """The version that serves."""
        return None if self.scorer is None else self.scorer.bundle.version


@dataclass(frozen=True)
class Swap:
    """What a load has come to.

    Attributes:
        name: of the model.
        version: that serves now.
        previous: that served before; None where none did.
        changed: whether it is another one; the same bundle, read and verified again, is not.
    """

    name: str
    version: str
    previous: str | None
    changed: bool


class CrowdedError(NelboError):
    """Two versions of a model are in memory already."""


class Live:
    """Every model of a store, loaded or with the reason why not.

    A state is replaced whole, never changed, so that a request that read it sees one version. One load runs at a time,
    in whichever thread asks for it, and none begins while two versions of its model are in memory: the one before the
    last must be gone.

    Args:
        store: where the bundles are.
        clock: seconds since 1970.
        patience_s: how long a load waits for what still uses the version before the last, and once more after that was
            told to let go.
        trust: whose bundles may be loaded; None for anybody's.
        probe: what a graph must pass first.

    Attributes:
        watches: over the records of the models that answer.
        is_stopping: the process was told to stop; it still answers.
        on_crowded: told of a model whose version before the last is still used; whoever uses it may let go.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.time,
        patience_s: float = _PATIENCE_S,
        trust: "Trust | None" = None,
        probe: Probe | None = None,
    ) -> None:
        self.store, self._trust, self._probe = store, trust, probe or Probe()
        self._clock, self._patience_s = clock, patience_s
        self.is_stopping = False
        self.watches = Watches(clock)
        self.on_crowded: Callable[[str], None] = lambda _: None
        self._states: dict[str, ModelState] = {}
        self._at_first = f"the models in {store.root} are not known yet"
        self._unlisted: str | None = self._at_first
        self._loading = threading.Lock()
        self._in_memory: dict[str, WeakSet[Scorer]] = {}
        self._marks: dict[str, Marks] = {}  # of each model whose load needs no second try
        self._loads: Counter[tuple[str, Outcome]] = Counter()
        self._looked_at: float | None = None

    def names(self) -> list[str]:
        """The models known since the store was last looked through, loaded or not."""
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
        """Why the service is not ready; empty when it is: there is a model, every one answers, and nobody stops it."""
        if self.is_stopping:
            return ["the service is stopping; it answers what still comes, and others are to be asked"]
        if not self._states:
            return [self.said(self._unlisted or f"no model in {self.store.root}")]
        waiting = {name: state for name, state in self._states.items() if state.scorer is None}
        reasons = {name: self.said(state.failure or "is being loaded") for name, state in sorted(waiting.items())}
        return [f"model '{name}': {reason}" for name, reason in reasons.items()]

    def said(self, reason: str) -> str:
        """A reason as clients may read it: without the path of the store."""
        return without_path(reason, self.store.root)

    def n_in_memory(self, name: str) -> int:
        """How many versions of a model are in memory: what serves, and what requests still use of the one before."""
        return len(self._in_memory.get(name, ()))

    def n_loads(self, name: str) -> dict[Outcome, int]:
        """How many loads of a model have come to what."""
        return {outcome: self._loads[name, outcome] for outcome in OUTCOMES}

    def looked_at(self) -> float | None:
        """When the store was last looked through for changes, seconds since 1970; None where it never was."""
        return self._looked_at

    # --- looking through the store --------------------------------------------------------------------

    def load_all(self) -> None:
        """Loads the live version of every model; a model that fails does not stop the others."""
        # What is there by now stays; to look through it again and again would make the event loop pause. What is loaded
        # after it goes some day, and is a few hundred objects.
        gc.freeze()
        self._marks = {}
        names = self._list()
        if self._unlisted is None and not self._states:
            logs.event("no model", level=logging.WARNING, models=str(self.store.root))
        if self._trust is not None and self._unlisted is None:
            for name in sorted(self._trust.models - set(names)):  # misspelt, it would protect nothing
                logs.event("minimum version of no model", level=logging.WARNING, model=name)
        for name in names:
            self.load(name)
        self._probe.close()

    def follow(self) -> None:
        """Loads what has changed in the store since it was last looked through.

        A version that was refused is not tried again before its files, or what is live, have changed; one whose files
        could not be read is tried each time. What serves and is no longer in the store goes on serving.
        """
        for name in self._list():
            marks = self._marks.get(name)
            if marks is None or differ(marks, self.store, name):
                self._catch_up(name)
        if self._unlisted is None:
            self._looked_at = self._clock()

    def _list(self) -> list[str]:
        """The models of the store, which become known; none where it cannot be read."""
        with self._loading:  # or a model that is loaded meanwhile for being new would be taken for one that is gone
            try:
                names = self.store.names()
            except OSError as error:
                self._note_unlisted(f"{self.store.root}: cannot be read: {error.strerror}")
                return []
            if not names and not self.store.is_there:  # not mounted, say: nobody has removed any model
                self._note_unlisted(f"{self.store.root} is not there")
                return []
            self._note_listed()
            gone = {name: state for name, state in self._states.items() if name not in names}
            kept = {name: _orphaned(name, state) for name, state in gone.items() if state.scorer is not None}
            self._states = {name: self._states.get(name, ModelState()) for name in names} | kept
            for name in gone:
                self._marks.pop(name, None)
        for name, state in gone.items():
            if state.failure != _orphaned(name, state).failure:
                logs.event("model removed", level=logging.WARNING, model=name, serving=state.version)
        return names

    def _note_unlisted(self, reason: str) -> None:
        if reason != self._unlisted:
            logs.event("models cannot be read", level=logging.ERROR, reason=reason)
        self._unlisted = reason

    def _note_listed(self) -> None:
        if self._unlisted not in (None, self._at_first):
            logs.event("models can be read again")
        self._unlisted = None

    def _catch_up(self, name: str) -> None:
        """Loads a model of which something has changed, unless that is nothing but its surroundings."""
        state = self._states.get(name, ModelState())
        if state.scorer is not None and state.failure is None:
            marks = marks_of(self.store, name)
            with suppress(NelboError):
                folder = self.store.live(name)
                marks = marks.at(folder)
                served = state.scorer.bundle
                if (folder.name, read_manifest(folder, self._trust).digest) == (served.version, served.digest):
                    self._marks[name] = marks
                    return
        self.load(name)

    # --- loading --------------------------------------------------------------------------------------

    def load(self, name: str) -> None:
        """Loads a model's live version; where that fails, what served goes on serving."""
        with suppress(NelboError):
            self.reload(name)

    def reload(self, name: str, *, force: bool = False) -> Swap:
        """Loads a model's live version, and lets it serve.

        Args:
            name: of the model, which may be new in the store.
            force: also where it reads other records than the version that serves.

        Raises:
            UnknownVersionError: the store has no such model.
            BundleError: the version is damaged, of another model, or scores differently here.
            SchemaChangedError: it reads other records, and is not forced.
            CrowdedError: two versions are in memory, and the older one is still used.
        """
        with self._loading:
            marks = marks_of(self.store, name)
            try:
                folder = self.store.live(name)
                marks = marks.at(folder)
                swap = self._swapped(name, folder, force=force)
            except NelboError as error:
                if self._concerns(name):
                    self._fail(name, error, marks)
                raise
            self._marks[name] = marks
        _clear(swap)
        return swap

    def promote(self, name: str, version: str, *, force: bool = False) -> Swap:
        """Loads a version, makes it the live one in the store, and lets it serve, in this order.

        Where any of that fails, the alias and what serves are as they were.

        Args:
            name: of the model.
            version: or an alias of it: `previous` goes back.
            force: also where it reads other records than the version that serves.

        Raises:
            NelboError: as for `reload`.
            StoreWriteError: the store cannot be changed.
        """
        with self._loading:
            folder = self.store.folder(name, version)  # that there is none concerns nobody but the asker
            try:
                swap = self._swapped(name, folder, force=force, first=partial(self.store.promote, name, folder.name))
            except NelboError as error:
                self._note_refusal(name, folder.name, error)
                raise
            self._marks.pop(name, None)  # the next look sees that what is live serves
        _clear(swap)
        return swap

    def _swapped(self, name: str, folder: Path, *, force: bool, first: Callable[[], None] = lambda: None) -> Swap:
        """Loads a version, and puts it in the place of what serves.

        Args:
            name: of the model.
            folder: of the version.
            force: also where it reads other records.
            first: what must succeed before it serves.
        """
        started = time.perf_counter()
        before = self._states.get(name, ModelState())
        self._make_room(name, before.scorer)
        scorer = load_scorer(folder, name, self._trust, self._probe)
        self._in_memory.setdefault(name, WeakSet()).add(scorer)
        if before.scorer is not None and not force:
            served = before.scorer.bundle
            refuse_changes(scorer.bundle.label, changes(served.schema, scorer.schema), served.label)
        first()
        version = scorer.bundle.version
        if before.scorer is not None and before.scorer.bundle.digest == scorer.bundle.digest:
            self._put(name, replace(before, failure=None, loaded_at=self._clock()))
            self._loads[name, "unchanged"] += 1
            if before.failure is not None:
                logs.event("model serves what is live again", model=name, version=version)
            return Swap(name, version, version, changed=False)
        self.watches.verdict(scorer)  # begins its watch
        self._put(name, ModelState(scorer, None, self._clock()))
        self._loads[name, "loaded"] += 1
        duration_s = round(time.perf_counter() - started, 3)
        logs.event("model loaded", model=name, version=version, previous=before.version, duration_s=duration_s)
        return Swap(name, version, before.version, changed=True)

    def _concerns(self, name: str) -> bool:
        """Whether a failure is a model's: of no model it is the asker's, of a store that is not there that of all."""
        return self.store.is_there and (name in self._states or self.store.has(name))

    def _make_room(self, name: str, serving: Scorer | None) -> None:
        """Waits until no version of a model but the one that serves is in memory."""
        deadline = time.monotonic() + self._patience_s
        asked = False
        while self.n_in_memory(name) > (serving is not None):
            gc.collect()
            if time.monotonic() >= deadline:
                if asked:
                    raise CrowdedError(
                        f"model '{name}': requests still use the version before the last, and a third is not loaded"
                    )
                self.on_crowded(name)
                asked, deadline = True, time.monotonic() + self._patience_s
            time.sleep(_POLL_S)

    def _fail(self, name: str, error: NelboError, marks: Marks) -> None:
        """Says of a model that what is live in the store is not what serves, and why."""
        before = self._states.get(name, ModelState())
        self._put(name, replace(before, failure=str(error)))
        self._loads[name, _outcome(error)] += 1
        if before.failure != str(error):
            reason = str(error)
            logs.event("model failed to load", level=logging.ERROR, model=name, reason=reason, serving=before.version)
        if _is_final(error):
            self._marks[name] = marks
        else:
            self._marks.pop(name, None)

    def _note_refusal(self, name: str, version: str, error: NelboError) -> None:
        """Says of a version that it did not become live; what is live serves as before."""
        self._loads[name, _outcome(error)] += 1
        serving = self._states.get(name, ModelState()).version
        logs.event(
            "version refused", level=logging.WARNING, model=name, version=version, reason=str(error), serving=serving
        )

    def _put(self, name: str, state: ModelState) -> None:
        """Replaces the whole table: whoever is reading it in another thread goes on reading the old one."""
        self._states = {**self._states, name: state}


def _clear(swap: Swap) -> None:
    """Collects what a version leaves behind in cycles, types of records for example, and gives its memory back."""
    if swap.previous is not None:
        gc.collect()
        give_memory_back()


def _orphaned(name: str, state: ModelState) -> ModelState:
    """The state of a model that is no longer in the store."""
    return replace(state, failure=f"model '{name}' is no longer in the store; what was loaded goes on serving")


def _outcome(error: NelboError) -> Outcome:
    return "schema-changed" if isinstance(error, SchemaChangedError) else "failed"


def _is_final(error: NelboError) -> bool:
    """Whether a load that failed would fail again while its files are the same: they could be read."""
    return not isinstance(error, CrowdedError) and not isinstance(error.__cause__, OSError | MemoryError)
