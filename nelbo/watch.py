"""A watch over a stream: windows of doubling lengths, judged when someone asks, and the martingale beside them."""

from datetime import datetime

from numpy.random import Generator

from nelbo.judgement import BUDGET_MARTINGALE, MIN_RECORDS, Judgement, judge
from nelbo.martingale import Martingale
from nelbo.scoring import Scored, Scorer
from nelbo.verdict import MAX_AGE_DAYS, Verdict, verdict
from nelbo.window import Window

_N_LENGTHS = 7  # windows of 250, 500, … 16,000 records
_BUDGET_RECORDS = 20_000  # that the error budget is told for


class Watch:
    """Judges a stream again and again, with at most 1 % false alarms in 20,000 records.

    Every 250 records a window of that length is full, every 500 one of 500, and so on, and of each length the newest
    one is judged: a large change is found soon, a small one as soon as records suffice. It is judged when someone asks,
    since a judgement takes as long as scoring a hundred records: windows that came and went between two questions are
    never looked at, and what a window found holds until one of its length is judged again. It keeps at most fifteen
    windows and the scores of 20,000 records, however long the stream is.

    Args:
        scorer: whose records will come.
        rng: breaks ties of p-values.
    """

    def __init__(self, scorer: Scorer, rng: Generator) -> None:
        self._bundle = scorer.bundle
        self._decision = scorer.decider.decide()
        self._martingale = Martingale(scorer.decider.calibrations["score"].scores, rng, BUDGET_MARTINGALE)
        self._partial = self._window()
        self._waiting: list[Window | None] = [None] * _N_LENGTHS  # each for another of its length to join it
        self._newest: list[Window | None] = [None] * _N_LENGTHS
        self._stale = [False] * _N_LENGTHS  # the newest one is not judged yet
        self._judgements: list[Judgement | None] = [None] * _N_LENGTHS

    def add(self, scored: Scored) -> None:
        """Takes in scored records, in the order in which they came."""
        start, n = 0, len(scored.batch)
        while start < n:
            stop = min(n, start + MIN_RECORDS - self._partial.n_records)
            rows = slice(start, stop)
            self._partial.add(scored, rows)
            self._martingale.add(scored.statistics["score"][rows])
            start = stop
            if self._partial.n_records == MIN_RECORDS:
                self._carry(self._partial)
                self._partial = self._window()

    def verdict(self, now: datetime, max_age_days: float = MAX_AGE_DAYS, at_most: int | None = None) -> Verdict:
        """What holds now; a batch more may change it.

        Args:
            now: UTC.
            max_age_days: of a calibration, until it is stale.
            at_most: windows to judge, for whoever cannot wait for all that are full, which None stands for: the longest
                first, since a short one is soon full again.
        """
        self._judge(at_most)
        return verdict(self._bundle, self._telling(), not self._martingale.is_alarmed, now, max_age_days=max_age_days)

    def _window(self) -> Window:
        return Window(self._bundle.schema, self._bundle.reference, self._decision)

    def _carry(self, window: Window) -> None:
        """Keeps a full window, and those that it completes: as a carry runs through a binary number."""
        for length, waiting in enumerate(self._waiting):
            self._newest[length], self._stale[length] = window, True
            if waiting is None:
                self._waiting[length] = window
                return
            self._waiting[length] = None
            window = waiting.merged(window)

    def _judge(self, at_most: int | None) -> None:
        full = ((length, window) for length, window in enumerate(self._newest) if window is not None)
        stale = [(length, window) for length, window in full if self._stale[length]]
        for length, window in stale[::-1][:at_most]:
            self._judgements[length], self._stale[length] = judge(window, _share(length)), False

    def _telling(self) -> Judgement:
        """The judgement to show: one that found something, of the strongest evidence; else the one of most records."""
        judged = [judgement for judgement in self._judgements if judgement is not None]
        if not judged:
            return judge(self._partial)
        found = [judgement for judgement in judged if judgement.is_finding]
        if found or self._martingale.is_alarmed:
            return min(found or judged, key=_evidence)
        return max(judged, key=lambda judgement: judgement.n_records)


def _evidence(judgement: Judgement) -> tuple[bool, float]:
    """To order judgements by: with a changed field first."""
    closest = judgement.most_different
    return not judgement.changed, closest.evidence if closest else 0.0


def _share(length: int) -> float:
    """Of the error budget, for one look: each length has the same part, spread over its looks in 20,000 records."""
    return MIN_RECORDS * (1 << length) / _BUDGET_RECORDS / _N_LENGTHS
