"""From the start of a process to its first answer, and the memory that it holds then."""

import statistics
import time

import msgspec

from benchmarks.report import markdown_table
from benchmarks.serving.bars import Bar, ratio
from benchmarks.serving.bodies import Body
from benchmarks.serving.process import Program, started
from benchmarks.serving.rounds import wait_until_answered
from benchmarks.serving.setup import Setup
from benchmarks.serving.targets import INFER, MLSERVER, OURS, SCORE, Target, programs

TITLE = "Start and memory"
_POLL_S = 0.005
_TARGETS = (Target(OURS, "objects", SCORE), Target(MLSERVER, "v2 JSON", INFER))


class Start(msgspec.Struct, frozen=True):
    """One start.

    Attributes:
        first_answer_s: from the start of the process to the first answer of 200.
        pss_mb: `memory_mb` of the process tree after it.
    """

    first_answer_s: float
    pss_mb: float


class Found(msgspec.Struct, frozen=True):
    """The figures: starts by program, and why one of them has none."""

    starts: dict[str, list[Start]]
    not_measured: dict[str, str]

    def median(self, program: str, of: str) -> float | None:
        """Of one of a start's attributes."""
        starts = self.starts.get(program)
        return statistics.median(getattr(start, of) for start in starts) if starts else None


def measure(setup: Setup) -> Found:
    """Starts one after the other, in turn: no two servers run at once, which would share memory."""
    sent = setup.bodies(1)
    startable, missing = programs(setup.place, [target.program for target in _TARGETS])
    found = Found({name: [] for name in startable}, missing)
    for number in range(setup.rounds + 1):  # the first one fills the file cache
        for target in _TARGETS:
            if target.program in startable:
                start = _start(setup, target, startable[target.program], sent[target.form])
                found.starts[target.program] += [start] if number else []
    return found


def bars(found: Found) -> list[Bar]:
    """What is asked of a start."""
    return [
        Bar(what, ratio(found.median(OURS, of), found.median(MLSERVER, of)), most, at_most=True)
        for what, of, most in (
            ("first answer after start, over MLServer's", "first_answer_s", 0.6),
            ("PSS after it, over MLServer's", "pss_mb", 0.7),
        )
    ]


def section(found: Found) -> str:
    """Its table."""
    rows = [
        (
            name,
            f"{found.median(name, 'first_answer_s'):.2f}",
            f"{min(s.first_answer_s for s in starts):.2f}–{max(s.first_answer_s for s in starts):.2f}",
            f"{found.median(name, 'pss_mb'):.0f}",
        )
        for name, starts in found.starts.items()
    ]
    return markdown_table(["server", "first answer after, s", "lowest–highest", "PSS, MB"], rows)


def _start(setup: Setup, target: Target, program: Program, body: Body) -> Start:
    before = time.perf_counter()
    with started(program, setup.logs / f"{target.program} start.log") as server:
        wait_until_answered(server, target.path, body, _POLL_S)
        first_answer_s = time.perf_counter() - before
        return Start(round(first_answer_s, 3), round(server.pss_mb(), 1))
