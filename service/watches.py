"""Whether the records of each served model still look like those of its fit."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

import numpy as np

from nelbo.judgement import MIN_RECORDS
from nelbo.scoring import Scored, Scorer
from nelbo.verdict import Verdict
from nelbo.watch import Watch

_MOST_AT_ONCE = 256  # a window's worth; chosen
_PAUSE = 500  # of a judgement's own duration; chosen, so that less than one request in a hundred waits for one


@dataclass
class _Watched:
    """One version that serves."""

    watch: Watch
    n_records: int
    n_judged: int
    verdict: Verdict
    judge_again_at: float


class Watches:
    """A watch over each model's records; the event loop's thread adds to it, any thread may read a verdict.

    A version is watched from its first record on, by a reference of its own; when nothing holds its scorer any more,
    its watch goes too. To judge a window takes some milliseconds of the event loop, so the next one is judged when new
    records fill it and 500 times as long has gone by.

    Args:
        clock: seconds since 1970, for the age of a calibration.
        timer: seconds from any start, for how long a judgement takes.
    """

    def __init__(self, clock: Callable[[], float] = time.time, timer: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._timer = clock, timer
        self._watched: WeakKeyDictionary[Scorer, _Watched] = WeakKeyDictionary()

    def add(self, scorer: Scorer, scored: Scored) -> None:
        """Takes in the records of one request; of a large one some 256, spread over it.

        To watch a record takes 3 µs, a tenth of what it takes to score it, and so many tell of a change as well.
        """
        watched = self._of(scorer)
        step = len(scored.batch) // _MOST_AT_ONCE
        if step > 1:
            scored = scored.part(slice(None, None, step))
        watched.watch.add(scored)
        watched.n_records += len(scored.batch)
        # Between two judgements nothing changes but the number of records.
        is_full = watched.n_records // MIN_RECORDS > watched.n_judged // MIN_RECORDS
        if is_full and self._timer() >= watched.judge_again_at:
            self._judge(watched, at_most=1)

    def verdict(self, scorer: Scorer) -> Verdict:
        """What the last judgement of a model's records said."""
        return self._of(scorer).verdict

    def refresh(self, scorer: Scorer) -> Verdict:
        """The same, judged by the clock as well: a calibration gets too old without any record."""
        return self._judge(self._of(scorer))

    def _judge(self, watched: _Watched, at_most: int | None = None) -> Verdict:
        """Judges the windows that are full, or so many of them."""
        started, now = self._timer(), self._now()
        watched.verdict, watched.n_judged = watched.watch.verdict(now, at_most=at_most), watched.n_records
        ended = self._timer()
        watched.judge_again_at = ended + _PAUSE * (ended - started)
        return watched.verdict

    def _of(self, scorer: Scorer) -> _Watched:
        watched = self._watched.get(scorer)
        if watched is None:
            # Its chance only breaks ties of p-values; seeded, so that the same traffic gets the same verdict.
            watch = Watch(scorer, np.random.default_rng(0))
            watched = self._watched[scorer] = _Watched(watch, 0, 0, watch.verdict(self._now()), 0.0)
        return watched

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
