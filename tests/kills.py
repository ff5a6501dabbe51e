"""What is left of a store, and of a file of results, when the work on it dies at its Nth file operation.

`python -m tests.kills GROUP [FAILURE...]` runs loops and prints a line of JSON for each. A process of its own, which
starts no threads: each step is a fork of it.
"""

import argparse
import gc
import io
import json
import logging
import os
import pickle
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

# Not all of it is used here: what a step would import is imported once.
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv
import pyarrow.json
import pyarrow.parquet as pq
import rich.progress

from nelbo import archive, cli, parts
from nelbo.bundle import read_bundle, write_bundle
from nelbo.errors import NelboError
from nelbo.probe import Probe
from nelbo.store import Store
from service.live import Live
from service.loading import load_scorer
from tests.bundles import normal_records, write_tiny_bundle
from tests.shim import KILLS, REFUSALS, Kill, Operation, Refusal, Shim, counting

OLD, NEW = "20260101T000000Z-aaaa", "20260201T000000Z-bbbb"
_IMPORTED = (archive, pyarrow.compute, pyarrow.json, rich.progress)
_N_RECORDS = 60
_MOST_STEPS = 2_000  # a loop that does not end is a mistake of ours
_MUCH = 10_000  # characters of what a child has to say


@dataclass(frozen=True)
class Work:
    """Something that is done to a folder, step by step.

    Attributes:
        prepare: fills an empty folder with what is there before.
        run: does it.
        check: raises where anybody would see something half-done in the folder, or not what was there before.
        is_done: raises unless a folder is as after undisturbed work.
        is_killed_twice: the second run is killed too, half as far.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    check: Callable[[Path], object]
    is_done: Callable[[Path], object]
    is_killed_twice: bool = False


@dataclass
class Found:
    """What a loop came to.

    Attributes:
        loop: its name.
        steps: file operations that failed, one after the other, by way of failing.
        half_visible: what was seen that should not be, with its step.
        not_healed: where a second run did not end as an undisturbed one.
    """

    loop: str
    steps: dict[str, int] = field(default_factory=dict)
    half_visible: list[str] = field(default_factory=list)
    not_healed: list[str] = field(default_factory=list)
    not_told: list[str] = field(default_factory=list)  # errors of the system that were not turned into a sentence

    @property
    def holds(self) -> bool:
        """Nothing was seen that should not be."""
        return not (self.half_visible or self.not_healed or self.not_told)


# --- a step in a process of its own ------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        is_killed: by a signal.
        error: what it raised; None where it ended well.
        is_told: a person would read one sentence about it.
        done: the file operations, where it ended well.
    """

    is_killed: bool = False
    error: str | None = None
    is_told: bool = True
    done: Sequence[Operation] = ()


def in_child(work: Callable[[], object], shim: Shim | None = None) -> Ended:
    """Runs work in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said = pickle.dumps(_said(work, shim or Shim(Path())))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return Ended(is_killed=True)
    found: Ended = pickle.loads(text)  # noqa: S301 - our own
    return found


def _said(work: Callable[[], object], shim: Shim) -> Ended:
    try:
        with counting(shim):
            work()
    except (NelboError, OSError) as error:  # the command line makes a sentence of both
        return Ended(error=str(error))
    except BaseException as error:
        return Ended(error="".join(traceback.format_exception(error))[-_MUCH:], is_told=False)
    return Ended(done=shim.done)


# --- loops -------------------------------------------------------------------------------------------


def loop(name: str, work: Work, failures: Sequence[Kill | Refusal], *, reads: bool = True) -> Found:
    """Lets each file operation of some work fail, in each way.

    Args:
        name: of the loop.
        work: that is done.
        failures: the ways.
        reads: also operations that change nothing.
    """
    found = Found(name)
    for failure in failures:
        for at in range(1, _MOST_STEPS):
            with prepared(work) as folder:
                shim = partial(Shim, folder, failure=failure, counts_reading=reads)
                ended = in_child(partial(work.run, folder), shim(at))
                if not ended.is_killed and len(ended.done) < at and ended.error is None:
                    break  # it is done before
                found.steps[failure] = at
                step = f"{failure} at {at}"
                if not ended.is_told:
                    found.not_told.append(f"{step}: {ended.error}")
                if work.is_killed_twice:
                    look(found.half_visible, step, partial(work.check, folder))
                    in_child(partial(work.run, folder), shim(max(1, at // 2)))
                look(found.half_visible, step, partial(work.check, folder))
                look(found.not_healed, step, partial(run_again, work, folder))
        else:
            raise AssertionError(f"{name} with {failure} has no end")
    return found


def look(problems: list[str], step: str, at: Callable[[], object]) -> None:
    ended = in_child(at)
    if ended.error is not None:
        problems.append(f"{step}: {ended.error}")


def run_again(work: Work, folder: Path) -> None:
    work.run(folder)
    work.is_done(folder)


@contextmanager
def prepared(work: Work) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nelbo-kills-") as place:
        folder = Path(place).resolve()
        work.prepare(folder)
        yield folder


def operations(work: Work) -> list[Operation]:
    """What undisturbed work does to files."""
    with prepared(work) as folder:
        ended = in_child(partial(work.run, folder), Shim(folder))
    assert ended.error is None, ended.error
    return list(ended.done)


# --- the store ---------------------------------------------------------------------------------------


class Stores:
    """Work on a store with a bundle or two, which are made once.

    Args:
        kept: a folder for them.
    """

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        for version, seed in ((OLD, 0), (NEW, 1)):
            write_tiny_bundle(kept, version=version, seed=seed)
        bundles = [read_bundle(kept / "pumps" / version) for version in (OLD, NEW)]
        for bundle in bundles:
            Probe().check(bundle)  # here, or each fork would start a process to do so
        self._digests = {bundle.digest for bundle in bundles}
        new = kept / "pumps" / NEW
        self._manifest = read_bundle(new).manifest
        self._files = {name: (new / name).read_bytes() for name in self._manifest.files}

    def works(self) -> dict[str, Work]:
        """By name."""
        return {
            "export": Work(self._old, self._export, self._check_old, self._is_new),
            "first-export": Work(lambda _: None, self._export, self._check_whole, self._is_new),
            "promote": Work(self._both, self._promote, self._check_old, self._is_new),
            "rollback": Work(self._promoted, self._roll_back, self._check_whole, self._is_old),
            "prune": Work(self._only_live, self._prune, self._check_whole, self._is_pruned),
            "load": Work(self._both, self._load, self._check_old, self._is_untouched),
        }

    def _old(self, root: Path) -> None:
        shutil.copytree(self.kept / "pumps" / OLD, root / "models" / "pumps" / OLD)
        (root / "models" / "pumps" / "aliases.json").write_text(json.dumps({"live": OLD}))

    def _both(self, root: Path) -> None:
        self._old(root)
        shutil.copytree(self.kept / "pumps" / NEW, root / "models" / "pumps" / NEW)

    def _export(self, root: Path) -> None:
        store, manifest = Store(root / "models"), self._manifest
        if manifest.version not in store.versions("pumps"):
            write_bundle(store.root, manifest, self._files)
        store.promote("pumps", manifest.version)

    def _promote(self, root: Path) -> None:
        Store(root / "models").promote("pumps", NEW)

    def _promoted(self, root: Path) -> None:
        self._both(root)
        (root / "models" / "pumps" / "aliases.json").write_text(json.dumps({"live": NEW, "previous": OLD}))

    def _only_live(self, root: Path) -> None:
        self._both(root)
        (root / "models" / "pumps" / "aliases.json").write_text(json.dumps({"live": NEW}))

    def _roll_back(self, root: Path) -> None:
        store = Store(root / "models")
        if store.live("pumps").name != OLD:
            store.promote("pumps", "previous")

    def _is_old(self, root: Path) -> None:
        self._check_whole(root)
        assert Store(root / "models").aliases("pumps") == {"live": OLD, "previous": NEW}

    def _prune(self, root: Path) -> None:
        Store(root / "models").prune("pumps", 1)

    def _is_pruned(self, root: Path) -> None:
        self._check_whole(root)
        assert set(names(root / "models" / "pumps")) == {NEW, "aliases.json", ".lock"}

    def _load(self, root: Path) -> None:
        load_scorer(Store(root / "models").live("pumps"), "pumps")

    def _check_whole(self, root: Path) -> None:
        """Whatever the store shows can be served, and the service takes it."""
        store = Store(root / "models")
        for name in store.names():
            for version in store.versions(name):
                assert read_bundle(store.root / name / version).digest in self._digests
            assert store.find(name) == store.live(name)
        serve(store)

    def _check_old(self, root: Path) -> None:
        assert OLD in Store(root / "models").versions("pumps")
        self._check_whole(root)

    def _is_new(self, root: Path) -> None:
        self._check_whole(root)
        folder = root / "models" / "pumps"
        assert Store(root / "models").live("pumps").name == NEW
        assert names(folder / NEW) == sorted([*self._files, "manifest.json"])
        assert set(names(folder)) <= {OLD, NEW, "aliases.json", ".lock"}, names(folder)

    def _is_untouched(self, root: Path) -> None:
        self._check_old(root)
        assert names(root / "models" / "pumps") == [OLD, NEW, "aliases.json"]


def serve(store: Store) -> None:
    """Loads every model as the service does."""
    logging.disable()
    live = Live(store)
    live.load_all()
    states = {name: live.state(name) for name in live.names()}
    failures = {name: state.failure for name, state in states.items() if state is not None and state.failure}
    assert not failures, failures


def names(folder: Path) -> list[str]:
    """Of all that is in a folder."""
    return sorted(path.name for path in folder.iterdir())


class Calibrations:
    """`nelbo calibrate`: a new version is written, read back, and made the live one.

    Args:
        kept: a folder for what is made once.
    """

    def __init__(self, kept: Path) -> None:
        from training import pipeline  # noqa: PLC0415 - it takes seconds, and only this loop needs it

        self._pipeline = pipeline
        self._kept = kept
        bundle = read_bundle(write_tiny_bundle(kept / "models", version=OLD))
        Probe().check(bundle)
        # What a fit would have left, and the new version's card tells again.
        data = dict.fromkeys(("source", "digest", "n_fit", "n_calibration_a"), 0)
        metrics = {"loss": 0.0, "latents": {"n_active": 1, "n_latents": 1}}
        self._bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"data": data, "metrics": metrics}))
        write_lines(kept / "t.ndjson", normal_records(120, seed=5))

    def works(self) -> dict[str, Work]:
        """By name."""
        return {"calibrate": Work(self._old, self._calibrate, self._check, self._is_done)}

    def _old(self, root: Path) -> None:
        shutil.copytree(self._kept / "models", root / "models")
        shutil.copy2(self._kept / "t.ndjson", root)
        (root / "models" / "pumps" / "aliases.json").write_text(json.dumps({"live": OLD}))

    def _calibrate(self, root: Path) -> None:
        n = len(Store(root / "models").versions("pumps"))
        version = f"2026020{n}T000000Z-bbbb"
        vars(self._pipeline)["new_version"] = lambda _: version  # two runs may be in one second
        self._pipeline.recalibrate(self._bundle, root / "t.ndjson", None, None, root / "models")

    def _check(self, root: Path) -> None:
        store = Store(root / "models")
        assert OLD in store.versions("pumps")
        for version in store.versions("pumps"):
            assert read_bundle(store.root / "pumps" / version).version == version
        serve(store)

    def _is_done(self, root: Path) -> None:
        self._check(root)
        assert Store(root / "models").live("pumps").name != OLD
        assert not [name for name in names(root / "models" / "pumps") if name.startswith(".partial-")]


# --- files of results --------------------------------------------------------------------------------


class Results:
    """`nelbo score` on a file of some parts.

    Args:
        kept: a folder for what is made once.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        write_tiny_bundle(kept / "models")
        records = normal_records(_N_RECORDS, seed=8)
        write_lines(kept / "t.ndjson", records)
        pq.write_table(pa.Table.from_pylist(records), kept / "t.parquet", row_group_size=_N_RECORDS // 3)
        pa_csv.write_csv(pa.Table.from_pylist(records), kept / "t.csv")
        parts._RECORDS = _N_RECORDS // 3

    def works(self) -> dict[str, Work]:
        """By name."""
        return {f"score-{suffix}": self._work(suffix) for suffix in ("csv", "ndjson", "parquet")}

    def _work(self, suffix: str) -> Work:
        def prepare(root: Path) -> None:
            shutil.copytree(self._kept / "models", root / "models")
            shutil.copy2(self._kept / f"t.{suffix}", root)
            (root / f"out.{suffix}").write_text("earlier")

        def run(root: Path) -> None:
            parts._BYTES = size // 3
            with redirect_stderr(io.StringIO()):
                table, output = root / f"t.{suffix}", root / f"out.{suffix}"
                cli.score("pumps", [table], output, jobs=1, models=root / "models")

        def check(root: Path) -> None:
            assert (root / f"out.{suffix}").read_bytes() in (b"earlier", expected)

        def is_done(root: Path) -> None:
            assert (root / f"out.{suffix}").read_bytes() == expected
            assert names(root) == ["models", f"out.{suffix}", f"t.{suffix}"]

        size = (self._kept / f"t.{suffix}").stat().st_size
        with tempfile.TemporaryDirectory(prefix="nelbo-kills-") as place:
            prepare(Path(place))
            ended = in_child(partial(run, Path(place)))
            assert ended.error is None, ended.error
            expected = Path(place, f"out.{suffix}").read_bytes()
        return Work(prepare, run, check, is_done, is_killed_twice=True)


def write_lines(path: Path, records: Sequence[object]) -> None:
    """Writes a table of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def works(kept: Path) -> dict[str, Callable[[], dict[str, Work]]]:
    """What can be looped over, by the group that prepares it.

    Args:
        kept: an empty folder.
    """
    return {
        "store": lambda: Stores(kept / "store").works(),
        "score": lambda: Results(kept / "score").works(),
        "calibrate": lambda: Calibrations(kept / "calibrate").works(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Loops over all works of a group, a line of JSON for each; 1 where something is seen that should not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills")
    parser.add_argument("group", choices=["store", "score", "calibrate"])
    parser.add_argument("failures", nargs="*", default=[*KILLS, *REFUSALS])
    parser.add_argument("--only", default="", help="those whose name ends so")
    parser.add_argument("--changes", action="store_true", help="only operations that change something")
    asked = parser.parse_args(arguments)
    holds = True
    with tempfile.TemporaryDirectory(prefix="nelbo-kills-") as kept:
        chosen = works(Path(kept))[asked.group]()
        gc.disable()  # it would write to every object, and a fork copies what is written
        for name, work in chosen.items():
            if not name.endswith(asked.only):
                continue
            found = loop(name, work, asked.failures, reads=not asked.changes)
            print(json.dumps(asdict(found)), flush=True)  # noqa: T201
            holds = holds and found.holds
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
