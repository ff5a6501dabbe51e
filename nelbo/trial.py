"""A process of its own that runs a graph once, under limits: `python -m nelbo.trial`.

It takes a line of JSON, arrays and the graph from standard input, and answers `held` or what was wrong. What a graph
makes of the process that loads it, a crash or gigabytes of memory, becomes of this one.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import IO, Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from nelbo.session import open_session

HELD = "held"
_PIPE = 2**20  # bytes; what Linux gives to anybody
_LONGEST = 500  # characters of any other answer; chosen


@dataclass(frozen=True)
class Task:
    """What precedes the arrays and the graph.

    Attributes:
        memory_bytes: that may be added to what the process has once its libraries are loaded.
        cpu_s: processor time.
        shapes: of `numbers` (float64), `codes` (int64) and `hidden` (bool).
        outputs: names.
        graph_bytes: how many follow the arrays.
    """

    memory_bytes: int
    cpu_s: int
    shapes: dict[str, tuple[int, int]]
    outputs: tuple[str, ...]
    graph_bytes: int

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Process(Protocol):
    """What is needed of a process, as `subprocess` has it."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    returncode: int | None

    def kill(self) -> None:
        """Ends it at once."""

    def wait(self) -> int:
        """Its exit status, negative for a signal; it is set too."""


def start() -> Process:
    """A process that starts from nothing, in a quarter of a second.

    Raises:
        OSError: there is no room for another process.
    """
    command = [sys.executable, "-P", "-m", "nelbo.trial"]
    return subprocess.Popen(  # noqa: S603  # no shell, nothing of a bundle's
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def fork() -> "Fork | None":
    """The same in two milliseconds, for a process with the libraries loaded and neither threads nor secrets yet.

    Returns:
        None where there is no room for another process, which is told when a graph is to be tried and there still is
        none.
    """
    ends = [*os.pipe(), *os.pipe()]
    try:
        pid = os.fork()
    except OSError:
        for end in ends:
            os.close(end)
        return None
    task, to_task, answers, to_answers = ends
    if pid == 0:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(task, 0)
            os.dup2(to_answers, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.closerange(3, max(ends) + 2)
            main()
        finally:
            os._exit(1)  # whatever happens, this process never goes on as a copy of the other
    os.close(task)
    os.close(to_answers)
    with contextlib.suppress(OSError):
        fcntl.fcntl(to_task, fcntl.F_SETPIPE_SZ, _PIPE)  # most graphs at once, without waiting for the reader
    return Fork(pid, open(to_task, "wb"), open(answers, "rb"))


@dataclass
class Fork:
    """A process that was forked: a `Process`."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    returncode: int | None = None

    def kill(self) -> None:
        """Ends it at once."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def main() -> NoReturn:
    """Answers one task, and ends the process."""
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries print where they like
    try:
        with open(0, "rb", closefd=False) as stream:  # it stays in use: the limit on files counts on it
            _run(stream)
        answer = HELD
    except Exception as error:  # the edge of the process
        answer = f"{type(error).__name__}: {str(error)[:_LONGEST]}"
    os.write(answers, answer.encode())
    os._exit(0)


def _run(stream: IO[bytes]) -> None:
    given = json.loads(stream.readline())
    task = Task(**given)
    kinds: dict[str, Any] = {"numbers": np.float64, "codes": np.int64, "hidden": np.bool_}
    feed = {name: _array(stream, kinds[name], shape) for name, shape in task.shapes.items()}
    graph = stream.read(task.graph_bytes)
    _limit(task)
    session = open_session(graph)
    wanted = {node.name for node in session.get_inputs()}
    session.run(list(task.outputs), {name: array for name, array in feed.items() if name in wanted})


def _array(stream: IO[bytes], kind: Any, shape: tuple[int, int]) -> NDArray[Any]:
    n_bytes = shape[0] * shape[1] * np.dtype(kind).itemsize
    return np.frombuffer(stream.read(n_bytes), kind).reshape(shape)


def _limit(task: Task) -> None:
    """From here on: so much more memory and time, no file, no core dump; and the first to go if memory is short."""
    import resource  # noqa: PLC0415  # not on every system: there no graph is tried, and none is served

    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: used + task.memory_bytes,
        resource.RLIMIT_CPU: task.cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 4,  # standard input, output and error and the copy of output: all are in use
    }
    os.nice(10)  # it may take its time where others answer
    for name, most in limits.items():
        # A second more until it is killed without a word of why.
        resource.setrlimit(name, (most, most + 1 if name == resource.RLIMIT_CPU else most))


if __name__ == "__main__":
    main()
