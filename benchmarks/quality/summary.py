"""What the rows of many tables say together: means, who beats whom, and how much the seed matters."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import wilcoxon

from benchmarks.quality.results import Row

OURS = "nelbo:score"
_FEWEST = 5  # tables; with fewer the smallest one-sided p-value is above 0.05

Measure = Literal["auroc", "ap", "f1"]
ByTable = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Overall:
    """One detector over all its tables.

    Attributes:
        detector: its name.
        n_tables: that it has rows of.
        auroc, ap, f1: means over tables of the means over seeds.
        fit_s, score_s: medians over rows.
        worst_fit_s: the longest fit.
    """

    detector: str
    n_tables: int
    auroc: float
    ap: float
    f1: float
    fit_s: float
    worst_fit_s: float
    score_s: float


@dataclass(frozen=True)
class Duel:
    """Ours against one peer in one measure, table by table.

    Attributes:
        peer: its name.
        wins, losses, ties: of ours.
        difference: mean over tables, ours minus theirs.
        p_value: of a one-sided Wilcoxon signed-rank test that ours is better; None with too few tables.
    """

    peer: str
    wins: int
    losses: int
    ties: int
    difference: float
    p_value: float | None


@dataclass(frozen=True)
class Spread:
    """How a detector's mean AUROC over tables moves with the seed.

    Attributes:
        detector: its name.
        by_seed: the mean for each seed, over the tables that have every seed.
        deviation: standard deviation of these.
    """

    detector: str
    by_seed: Mapping[int, float]
    deviation: float

    @property
    def range(self) -> float:
        """From the worst seed to the best."""
        return max(self.by_seed.values()) - min(self.by_seed.values())


def names(rows: Sequence[Row]) -> list[str]:
    """The detectors: ours first, then the others as they come."""
    found = dict.fromkeys(row.detector for row in rows)
    return sorted(found, key=lambda name: not name.startswith("nelbo:"))


def by_table(rows: Sequence[Row], measure: Measure) -> ByTable:
    """Of each detector, and each of its tables, the mean over seeds."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row.detector][row.dataset].append(getattr(row, measure))
    # Rounded, so that equal figures of several seeds stay equal whatever the order of the addends.
    return {d: {table: round(float(np.mean(v)), 9) for table, v in found.items()} for d, found in values.items()}


def overall(rows: Sequence[Row]) -> list[Overall]:
    """A line for each detector."""
    measures: tuple[Measure, ...] = ("auroc", "ap", "f1")
    means = {measure: by_table(rows, measure) for measure in measures}
    found = []
    for name in names(rows):
        own = [row for row in rows if row.detector == name]
        auroc, ap, f1 = (float(np.mean(list(means[measure][name].values()))) for measure in measures)
        fits = [row.fit_s for row in own]
        score_s = float(np.median([row.score_s for row in own]))
        found.append(
            Overall(name, len(means["auroc"][name]), auroc, ap, f1, float(np.median(fits)), max(fits), score_s)
        )
    return found


def duels(rows: Sequence[Row], measure: Measure) -> list[Duel]:
    """Ours against each peer, on the tables that both have; our other statistics are no peers."""
    means = by_table(rows, measure)
    ours = means.get(OURS, {})
    peers = [name for name in names(rows) if not name.startswith("nelbo:")]
    return [_duel(peer, ours, means[peer]) for peer in peers if ours.keys() & means[peer].keys()]


def _duel(peer: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> Duel:
    shared = [table for table in ours if table in theirs]
    differences = np.round([ours[table] - theirs[table] for table in shared], 9)
    is_telling = len(shared) >= _FEWEST and bool(differences.any())
    return Duel(
        peer=peer,
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
        difference=float(differences.mean()),
        p_value=float(wilcoxon(differences, alternative="greater").pvalue) if is_telling else None,
    )


def spreads(rows: Sequence[Row]) -> list[Spread]:
    """Of each detector with several seeds, what the seed does."""
    found = [_spread(name, [row for row in rows if row.detector == name]) for name in names(rows)]
    return [spread for spread in found if spread is not None]


def _spread(name: str, rows: Sequence[Row]) -> Spread | None:
    auroc: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        auroc[row.dataset][row.seed] = row.auroc
    seeds = sorted({row.seed for row in rows})
    complete = [table for table in auroc.values() if len(table) == len(seeds)]
    if len(seeds) < 2 or not complete:
        return None
    means = {seed: float(np.mean([table[seed] for table in complete])) for seed in seeds}
    return Spread(name, means, float(np.std(list(means.values()), ddof=1)))
