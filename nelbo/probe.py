"""The probe: a bundle's graph is run in a process of its own, under limits, before the one that serves loads it."""

import contextlib
import errno
import hashlib
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo import trial
from nelbo.admission import OUTPUTS
from nelbo.bundle import Bundle
from nelbo.errors import BundleError
from nelbo.records import RecordDecoder
from nelbo.resources import read_resources
from nelbo.scoring import CHUNK, unreadable
from nelbo.trial import Process, Task

_MEMORY = 512 * 2**20  # bytes beside the weights; a chunk of a model with 65,536 exemplars takes some 200 MB
_COPIES = 4  # of the weights: the file, its parsed form, those that are packed for the processor, one more
_LONGEST_ANSWER = 1 << 16  # bytes

# What was probed in this process and held: a reload of it costs nothing. It grows by 32 bytes a graph.
_held: set[bytes] = set()


@dataclass(frozen=True)
class Limits:
    """What a probe may take.

    Attributes:
        memory_bytes: beside what the process has once its libraries are loaded; None for 512 MiB and four times the
            weights, or half of what this machine or container has, whichever is less.
        cpu_s: processor time; a default model takes 0.02 s.
        wall_s: from the moment that the graph is handed over.
    """

    memory_bytes: int | None = None
    cpu_s: int = 10
    wall_s: float = 30.0


class Probe:
    """Refuses what a graph does to the process that loads it.

    Args:
        limits: of the process.
        process: one that was started before, to be used first.
    """

    def __init__(self, limits: Limits | None = None, process: Process | None = None) -> None:
        self._limits = limits or Limits()
        self._process = process
        self._lock = threading.Lock()

    def check(self, bundle: Bundle) -> None:
        """Returns if the graph scores a whole chunk of golden records within the limits.

        No record makes it take more than a whole chunk does: `nelbo.admission` sees to that.

        Raises:
            BundleError: it does not; caused by an `OSError` or `MemoryError` where that could not be found out.
        """
        feed = _feed(bundle)
        seen = _digest(bundle.graph, feed)
        with self._lock:
            if seen in _held:
                return
            where = f"bundle '{bundle.label}': score.onnx: the probe"
            try:
                problem = self._problem(bundle.graph, feed)
            except (MemoryError, TimeoutError) as error:  # which may be another's fault
                raise BundleError(f"{where} {error}") from error
            except OSError as error:  # which says nothing of the bundle
                raise BundleError(f"{where} could not be started: {error.strerror}") from error
            if problem is not None:
                raise BundleError(f"{where} {problem}")
            _held.add(seen)

    def close(self) -> None:
        """Ends a process that was started before and never used."""
        with self._lock:
            if self._process is not None:
                _end(self._process)
                self._process = None

    def _problem(self, graph: bytes, feed: Mapping[str, NDArray[Any]]) -> str | None:
        """What became of the graph, if it was not well."""
        process, self._process = self._process or trial.start(), None
        try:
            with self._limited(process) as is_late:
                _send(process, self._task(graph, feed), feed, graph)
                answer = _answer(process)
                _end(process)
                return _verdict(answer, process.wait(), self._limits, is_late=is_late.is_set())
        finally:
            _end(process)

    @contextlib.contextmanager
    def _limited(self, process: Process) -> Iterator[threading.Event]:
        """Ends the process if this takes too long; the event says whether it came to that."""
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        late = threading.Timer(self._limits.wall_s, end)
        late.daemon = True
        try:
            late.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error  # its time could not be limited
        try:
            yield is_late
        finally:
            late.cancel()

    def _task(self, graph: bytes, feed: Mapping[str, NDArray[Any]]) -> Task:
        memory = self._limits.memory_bytes or _affordable(len(graph))
        shapes = {name: (array.shape[0], array.shape[1]) for name, array in feed.items()}
        return Task(memory, self._limits.cpu_s, shapes, OUTPUTS, len(graph))


def _affordable(n_bytes: int) -> int:
    """Memory for weights of so many bytes, where the machine or container leaves as much."""
    wanted, limit = _MEMORY + _COPIES * n_bytes, read_resources().memory_bytes
    return wanted if limit is None else min(wanted, limit // 2)


def _feed(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The golden records, again and again until there is a chunk of them."""
    batch = RecordDecoder(bundle.schema, bundle.label).objects([entry.record for entry in bundle.golden])
    if batch.errors:
        raise unreadable(bundle, batch.errors[0])
    rows = np.resize(np.arange(len(batch)), CHUNK)
    hidden = np.zeros((CHUNK, len(bundle.schema.fields)), dtype=np.bool_)
    return {"numbers": batch.numbers[rows], "codes": batch.codes[rows], "hidden": hidden}


def _digest(graph: bytes, feed: Mapping[str, NDArray[Any]]) -> bytes:
    digest = hashlib.sha256(graph)
    for array in feed.values():
        digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.digest()


def _send(process: Process, task: Task, feed: Mapping[str, NDArray[Any]], graph: bytes) -> None:
    if process.stdin is None:
        raise TypeError("the process was started without pipes")
    with contextlib.suppress(BrokenPipeError):  # it has ended: its status says why
        # In one piece: after each, whoever waits for other threads of this process waits again.
        process.stdin.write(b"".join([task.line(), *(array.tobytes() for array in feed.values()), graph]))
        process.stdin.close()


def _answer(process: Process) -> bytes:
    """What the process answers; nothing where it ends before."""
    if process.stdout is None:
        raise TypeError("the process was started without pipes")
    return process.stdout.read(_LONGEST_ANSWER)


def _end(process: Process) -> None:
    """Reaps it; it has answered, or it never will."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            if stream is not None:
                stream.close()


def _verdict(answer: bytes, returncode: int, limits: Limits, *, is_late: bool) -> str | None:
    """What was wrong, if anything; what may be otherwise the next time is raised."""
    if answer:
        text = answer.decode(errors="replace")
        return None if text == trial.HELD else f"could not run it: {text}"
    if is_late:
        raise TimeoutError(f"was not done after {limits.wall_s:g} s, as on a machine that is short of processors")
    if returncode == -signal.SIGXCPU:
        return f"took more than {limits.cpu_s} s of a processor"
    if returncode == -signal.SIGKILL:
        raise MemoryError("was killed, as by a machine that is short of memory")
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with code {returncode} and no answer"
