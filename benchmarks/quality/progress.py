"""What a long run shows on standard error: a bar, what is done, how long it will still take."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def seconds_left(taken: Mapping[str, Sequence[float]], remaining: Mapping[str, int]) -> float | None:
    """What the remaining units will take if each takes as long as its kind did so far.

    Args:
        taken: seconds of each unit that is done, by kind.
        remaining: how many are left, by kind.

    Returns:
        Seconds; None before the first is done. A kind that has not run yet counts like the mean of all.

    >>> seconds_left({"slow": [8.0, 12.0], "quick": [1.0]}, {"slow": 2, "quick": 3, "new": 1})
    30.0
    """
    everything = [seconds for found in taken.values() for seconds in found]
    if not everything:
        return None
    usual = sum(everything) / len(everything)
    means = {kind: sum(found) / len(found) for kind, found in taken.items() if found}
    return sum(n * means.get(kind, usual) for kind, n in remaining.items())


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(130), duration(5000)
    ('42 s', '2 min', '1 h 23 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Watch:
    """A bar for units of several kinds, and lines above it; without a terminal only the lines.

    Args:
        units: the kind of each unit that is to run.
        n_done: units that an earlier run has done.
        console: to write to.
    """

    def __init__(self, units: Sequence[str], n_done: int = 0, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._remaining = Counter(units)
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._n_done, self._n = n_done, n_done + len(units)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # Without a terminal the bar would be drawn once, at the end.
        self._bar = Progress(
            *columns, TextColumn("{task.fields[left]}"), console=self._console, disable=not self._console.is_terminal
        )
        self._task = self._bar.add_task("", total=self._n, completed=n_done, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def unit(self, kind: str, what: str, work: Callable[[], Sequence[str]]) -> None:
        """Runs a unit and shows the lines that it returns, with what is done and left."""
        self._bar.update(self._task, description=what)
        start = time.perf_counter()
        lines = work()
        self._taken[kind].append(time.perf_counter() - start)
        self._finish([kind], lines)

    def skip(self, kinds: Sequence[str], line: str) -> None:
        """Leaves out units that cannot run."""
        self._finish(kinds, [line])

    def _finish(self, kinds: Sequence[str], lines: Sequence[str]) -> None:
        self._remaining.subtract(kinds)
        self._n_done += len(kinds)
        left = seconds_left(self._taken, self._remaining)
        shown = "" if left is None else f"about {duration(left)} left"
        self._bar.update(self._task, completed=self._n_done, left=shown)
        for line in lines:
            self.say(f"[{self._n_done}/{self._n}{', ' if shown else ''}{shown}] {line}")
