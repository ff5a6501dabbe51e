"""A server as a tree of processes: started on a core of its own, its CPU time and memory read, stopped."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.memory import memory_mb

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 8.0
_CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, SERVER_CORE = _CORES[0], _CORES[-1]


@dataclass(frozen=True)
class Program:
    """A server that can be started.

    Attributes:
        command: without a shell.
        port: that it will listen on.
        environment: besides this process's own.
        folder: to start it in; None for this process's own.
    """

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Server:
    """A server that was started."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_s(self) -> float:
        """CPU time of the tree so far, in steps of a clock tick."""
        return sum(map(_cpu_s, tree(self.process.pid)))

    def pss_mb(self) -> float:
        """Memory of the tree, MB of 10⁶ bytes."""
        return memory_mb([_text(Path(f"/proc/{pid}/smaps")) for pid in tree(self.process.pid)])


@contextmanager
def started(program: Program, log: Path) -> Iterator[Server]:
    """Starts a program on the servers' core and stops its whole tree in the end.

    Args:
        program: to start.
        log: file that its output goes to.
    """
    command = ["taskset", "-c", str(SERVER_CORE), *program.command]
    environment = os.environ | program.environment
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=program.folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield Server(process, f"http://127.0.0.1:{program.port}")
    finally:
        _stop(process)


def tree(pid: int) -> list[int]:
    """A process and all that descend from it and are still alive."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, _text(children).split())
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    pids = tree(process.pid)
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in pids[1:]:
        # Some servers leave workers behind; those are in the session that was started for them.
        if _session(pid) == process.pid:
            os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _cpu_s(pid: int) -> float:
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS_PER_S


def _text(path: Path) -> str:
    """What a file of /proc holds; nothing once its process has ended."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
