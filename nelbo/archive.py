"""Files of records into files of results: part by part, by several processes, going on where a killed run stopped."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice
from multiprocessing.connection import wait
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import IO, Any, Protocol, TypeVar

import msgspec

from nelbo.bundle import Bundle
from nelbo.decision import Decision
from nelbo.discovery import Counts, added
from nelbo.errors import TableError
from nelbo.intent import Intent
from nelbo.partial import Identity, Partial, Tally, finished, naming, stamp, tally_of
from nelbo.parts import Part
from nelbo.results import Explain
from nelbo.scoring import Scored, Scorer
from nelbo.tables import NdjsonTable, Table, check_columns, read_batches
from nelbo.writing import Opener, format_of, lines

_BATCH = 8192  # records that are scored at once: some MB. Chosen
_AHEAD = 2  # parts a process that may wait for an earlier one; chosen

Key = TypeVar("Key")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Wish:
    """What is wished of a run.

    Attributes:
        intent: about false alarms.
        window: records among which a false discovery rate is to hold; None for all of a file.
        explain: which records are explained.
    """

    intent: Intent
    window: int | None
    explain: Explain


@dataclass(frozen=True)
class Order:
    """How records are scored.

    Attributes:
        wish: that led to it.
        decision: what holds for all; None where it is taken anew in each window.
    """

    wish: Wish
    decision: Decision | None


class Watcher(Protocol):
    """Who is told how a run goes on."""

    def report(self, table: Table, fraction: float, n_records: int) -> None:
        """A part is done.

        Args:
            table: that it is of.
            fraction: of the table that is done by now.
            n_records: of the part; 0 where it is not known.
        """

    def say(self, text: str) -> None:
        """Something to read."""


class Worker:
    """Scores parts of files with one bundle.

    Args:
        scorer: of the bundle.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def scored(self, table: Table, part: Part, order: Order) -> Iterator[Scored]:
        """The records of a part, scored batch by batch, or window by window."""
        window, fdr = order.wish.window, order.wish.intent.fdr
        for batch in read_batches(table, self.scorer.decoder, window or _BATCH, part=part):
            if window is None or fdr is None:
                yield self.scorer.score(batch, order.decision)
            else:
                yield self.scorer.discover(batch, fdr)

    def count(self, table: Table, part: Part, order: Order) -> Counts:
        """How many of its records have each rank."""
        counts: Counts = {}
        for scored in self.scored(table, part, order):
            judges = scored.decision.judges(scored.segments)
            counts = added(counts, self.scorer.decider.count_ranks(scored.statistics["score"], judges))
        return counts

    def write(self, table: Table, part: Part, order: Order, output: IO[bytes], opened: Opener = lines) -> Tally:
        """Writes the results of a part.

        Args:
            table: to read.
            part: of it.
            order: how to score it.
            output: where to.
            opened: of the output's format.
        """
        tally = Tally()
        with opened(output, self.scorer, order.wish.explain) as put:
            for scored in self.scored(table, part, order):
                put(scored)
                tally += tally_of(scored)
        # Where the parts of a file do not meet, records would be lost or scored twice.
        if part.n_records not in (None, tally.n):
            raise AssertionError(f"{table.path}: expected {part.n_records} records from {part.first} on, got {tally.n}")
        return tally

    def write_file(self, table: Table, part: Part, order: Order, output: Path) -> Tally:
        """Writes the results of a part to a file of its own, in the format of the folder's output."""
        with naming(output), output.open("wb") as file:
            return self.write(table, part, order, file, format_of(output).part)


class Crew:
    """Workers that share out the parts of files; a context, at the end of which they are gone.

    Args:
        scorer: whose bundle they score with.
        n_jobs: how many processes; with 1, or a single part, this one does the work.
    """

    def __init__(self, scorer: Scorer, n_jobs: int) -> None:
        self.worker, self.n_jobs = Worker(scorer), n_jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._pool is None:
            return
        if kind is not None:  # nobody waits for parts that are not wanted any more
            for child in multiprocessing.active_children():
                child.terminate()
        self._pool.shutdown(cancel_futures=True)

    def in_order(
        self, work: Callable[..., Found], asked: Iterable[tuple[Key, tuple[Any, ...] | None]]
    ) -> Iterator[tuple[Key, Found | None]]:
        """What a worker finds, for each thing asked, in their order.

        Args:
            work: a method of `Worker`.
            asked: a key, which comes back beside what was found, and the arguments; None asks nothing.
        """
        asked = iter(asked)
        first = list(islice(asked, 3))  # a part, the end of its file, and another part
        asked = chain(first, asked)
        if self.n_jobs == 1 or len(first) < 3:
            yield from ((key, None if given is None else work(self.worker, *given)) for key, given in asked)
            return
        waiting: deque[tuple[Key, Future[Found] | None]] = deque()
        try:
            for key, given in asked:
                waiting.append((key, None if given is None else self._started().submit(_do, work, given)))
                if len(waiting) > _AHEAD * self.n_jobs:
                    yield _awaited(waiting.popleft())
            while waiting:
                yield _awaited(waiting.popleft())
        except BrokenProcessPool as error:
            detail = "a process that scored was killed; where memory is short, fewer --jobs take less"
            raise TableError(detail) from error

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would take over threads that do not run in it
            self._pool = ProcessPoolExecutor(self.n_jobs, context, _start, (self.worker.scorer.bundle,))
        return self._pool


def _awaited(one: tuple[Key, Future[Any] | None]) -> tuple[Key, Any]:
    key, future = one
    return key, None if future is None else future.result()


_worker: Worker  # of a process that was started for this


def _start(bundle: Bundle) -> None:
    global _worker  # noqa: PLW0603 - a process has no other place for what all its tasks share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(Scorer(bundle))


def _end_with_parent() -> None:
    """A parent that is killed tells its children nothing, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _do(work: Callable[..., Found], given: tuple[Any, ...]) -> Found:
    return work(_worker, *given)


# --- files -------------------------------------------------------------------------------------------


def check(scorer: Scorer, table: Table) -> None:
    """Refuses a table whose columns do not fit, before anything is written.

    Raises:
        SchemaError: as `tables.check_columns`.
    """
    if not isinstance(table, NdjsonTable):
        check_columns(table, scorer.schema, scorer.decoder.name)


def score_tables(
    crew: Crew, tables: Sequence[Table], outputs: Sequence[Path], wish: Wish, watcher: Watcher, *, is_remembered: bool
) -> Iterator[tuple[Path, Tally, Decision | None]]:
    """Scores tables into files, each going on where an earlier run was killed.

    Args:
        crew: that works.
        tables: whose columns fit.
        outputs: a file for each.
        wish: what is wished.
        watcher: is told how it goes on.
        is_remembered: a file that this finishes is left by a later run that would write the same.

    Yields:
        Each file when it is in its place, its counts, and what held.
    """
    options = msgspec.to_builtins(wish) | {"nelbo": version("nelbo")}
    files = [
        _File(table, output, Identity(stamp(table.path), crew.worker.scorer.bundle.digest, options), is_remembered)
        for table, output in zip(tables, outputs, strict=True)
    ]
    missing = [file for file in files if not _is_finished(file, watcher)]
    is_each_apart = wish.intent.fdr is not None and wish.window is None
    for group in [[file] for file in missing] if is_each_apart else [missing]:
        order = order_of(crew, group[0].table, wish, watcher) if group else Order(wish, None)
        yield from ((output, tally, order.decision) for output, tally in _written(crew, group, order, watcher))


def score_to(
    crew: Crew, table: Table, output: IO[bytes], wish: Wish, watcher: Watcher
) -> tuple[Tally, Decision | None]:
    """Writes JSON lines of a table's results to a stream, in order: batch by batch, or with many jobs part by part."""
    order, tally = order_of(crew, table, wish, watcher), Tally()
    parts = parts_of(table, order)
    if crew.n_jobs == 1:
        for part in parts:
            found = crew.worker.write(table, part, order, output)
            watcher.report(table, part.fraction, found.n)
            tally += found
        return tally, order.decision
    with TemporaryDirectory(prefix="nelbo-") as folder:
        asked = (((part, spool), (table, part, order, spool)) for part, spool in _spooled(parts, folder, ".ndjson"))
        for (part, spool), found_ in crew.in_order(Worker.write_file, asked):
            with spool.open("rb") as written:
                copyfileobj(written, output)
            spool.unlink()
            tally += found_ or Tally()
            watcher.report(table, part.fraction, part.n_records or 0)
    return tally, order.decision


def order_of(crew: Crew, table: Table, wish: Wish, watcher: Watcher) -> Order:
    """What a wish comes to; a false discovery rate of a whole file needs all of its scores first."""
    decider, intent = crew.worker.scorer.decider, wish.intent
    if intent.fdr is None:
        return Order(wish, decider.decide(intent.rate, intent.confidence))
    if wish.window is not None:
        return Order(wish, None)
    counts: Counts = {}
    before = Order(wish, decider.decide())
    asked = ((part, (table, part, before)) for part in parts_of(table, before))
    for part, found in crew.in_order(Worker.count, asked):
        counts = added(counts, found or {})
        watcher.report(table, part.fraction, 0)
    return Order(wish, decider.discover(counts, intent.fdr))


def parts_of(table: Table, order: Order) -> Iterator[Part]:
    """The parts of a table, at least one; where windows count through it, it is one."""
    parts = iter(()) if order.wish.window else table.parts()
    first = next(parts, None)
    return iter((table.whole(),)) if first is None else chain((first,), parts)


@dataclass(frozen=True)
class _File:
    """A file of results, and what it is made of."""

    table: Table
    output: Path
    identity: Identity
    is_remembered: bool


def _is_finished(file: _File, watcher: Watcher) -> bool:
    tally = finished(file.output, file.identity) if file.is_remembered else None
    if tally is not None:
        watcher.say(f"{file.output}: finished by an earlier run, {tally.n:,} records")
    return tally is not None


def _written(crew: Crew, files: Iterable[_File], order: Order, watcher: Watcher) -> Iterator[tuple[Path, Tally]]:
    opened: list[Partial] = []
    try:
        asked = _asked(crew.worker.scorer, files, order, opened, watcher)
        for (file, partial, part, spool), tally in crew.in_order(Worker.write_file, asked):
            if part is None or tally is None:
                partial.finish(is_remembered=file.is_remembered)
                partial.close()
                opened.remove(partial)
                yield file.output, partial.tally
                continue
            with spool.open("rb") as written:
                partial.add(written, tally)
            spool.unlink()
            watcher.report(file.table, part.fraction, tally.n)
    finally:
        for partial in opened:
            partial.close()


_Key = tuple[_File, Partial, Part | None, Path]


def _asked(
    scorer: Scorer, files: Iterable[_File], order: Order, opened: list[Partial], watcher: Watcher
) -> Iterator[tuple[_Key, tuple[Any, ...] | None]]:
    """The parts of each file that are not there yet, and its end."""
    for file in files:
        partial = Partial(file.output, format_of(file.output), scorer.schema, file.identity)
        opened.append(partial)
        if partial.anew:
            watcher.say(f"{file.output}: starts anew, not where an earlier run stopped: {partial.anew}")
        if partial.n_parts:
            watcher.say(f"{file.output}: goes on after {partial.tally.n:,} records of an earlier run")
        missing = islice(parts_of(file.table, order), partial.n_parts, None)
        for part, spool in _spooled(missing, partial.folder, file.output.suffix):
            yield (file, partial, part, spool), (file.table, part, order, spool)
        yield (file, partial, None, partial.folder), None


def _spooled(parts: Iterable[Part], folder: Path | str, suffix: str) -> Iterator[tuple[Part, Path]]:
    """Parts, and files for their results until these are put behind those of the earlier ones."""
    return ((part, Path(folder) / f"part-{part.first}{suffix}") for part in parts)
