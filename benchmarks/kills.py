"""What is left when the work on a store, or on a file of results, dies at its Nth step, for every N; steps counted.

python -m benchmarks.kills [--calls]

Steps are the file operations of Python, failing in up to seven ways, and with --calls the system calls, at which strace
kills the process (Debian: apt-get install strace).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.report import RESULTS, markdown_table, write_report
from tests.kills import Found, Work, look, prepared, run_again, works
from tests.shim import KILLS, REFUSALS

# The store in every way; the others, which take longer, in those that are not told by it.
_GROUPS: dict[str, Sequence[str]] = {
    "store": [*KILLS, *REFUSALS],
    "calibrate": ["kill", "power", "ENOSPC"],
    "score": ["kill", "power", "ENOSPC"],
}
_CALLS = ["openat", "write", "fsync", "ftruncate", "close", "mkdir", "rename", "unlink", "unlinkat", "rmdir", "flock"]
_PATIENCE_S = 30.0


def by_operation() -> list[Found]:
    """Loops over the operations of Python, the groups beside each other in processes of their own."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    runs = []
    for group, ways in _GROUPS.items():
        command = [sys.executable, "-m", "tests.kills", group, *ways]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment))
    found = []
    for run in runs:
        with run:
            assert run.stdout is not None
            for line in run.stdout:
                found.append(Found(**json.loads(line)))
                _show(found[-1])
        assert run.returncode in (0, 1), "a loop broke off"
    return found


def by_call(name: str, work: Work) -> Found:
    """Kills the work at the Nth of each of its system calls."""
    found = Found(name)
    for call in _CALLS:
        for at in range(1, 5_000):
            with prepared(work) as folder:
                if not _is_killed(partial(work.run, folder), call, at):
                    break
                found.steps[call] = at
                look(found.half_visible, f"{call} {at}", partial(work.check, folder))
                look(found.not_healed, f"{call} {at}", partial(run_again, work, folder))
    _show(found)
    return found


def _is_killed(work: Callable[[], object], call: str, at: int) -> bool:
    """Runs work in a fork that waits until strace watches it; whether it has so many calls."""
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    trace = [
        "strace",
        "-p",
        str(child),
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:signal=KILL:when={at}",
    ]
    with subprocess.Popen(trace, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as tracing:
        assert tracing.stderr is not None
        assert b"attached" in tracing.stderr.readline()
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        tracing.wait(_PATIENCE_S)
    return os.WIFSIGNALED(status)


def _show(found: Found) -> None:
    steps = sum(found.steps.values())
    print(
        f"{found.loop}: {steps} steps, {len(found.half_visible)} half visible, {len(found.not_healed)} not healed, "
        f"{len(found.not_told)} not told",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a loop, and a verdict; 1 where something was seen that should not be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("--calls", action="store_true", help="system calls instead, by strace")
    asked = parser.parse_args(arguments)
    started, found = time.monotonic(), list[Found]()
    if asked.calls:
        with tempfile.TemporaryDirectory() as kept:
            made = works(Path(kept))
            found = [by_call(name, work) for name, work in made["store"]().items()]
    else:
        found = by_operation()
    ways = _CALLS if asked.calls else [*KILLS, *REFUSALS]
    rows = [
        (one.loop, *(one.steps.get(way, 0) for way in ways), len(one.half_visible), len(one.not_healed))
        for one in found
    ]
    n, holds = sum(sum(one.steps.values()) for one in found), all(one.holds for one in found)
    sentence = (
        f"{n:,} steps, {sum(len(one.half_visible) for one in found)} half-visible: {'holds' if holds else 'FAILS'}."
    )
    print(sentence, f"It took {time.monotonic() - started:.0f} s.")
    table = markdown_table(["loop", *ways, "half visible", "not healed"], rows)
    name, options = ("kills_calls", " --calls") if asked.calls else ("kills", "")
    command = f"python -m benchmarks.kills{options}"
    report = {"steps": n, "holds": holds, "loops": [asdict(one) for one in found]}
    write_report(name, "Killed at every step", command, report, f"{sentence}\n\n{table}", results)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
