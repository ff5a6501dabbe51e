"""Are p-values and false discovery rates what others compute? Beside the plain definition, and beside scipy.

`python -m benchmarks.independent [--cases 1000]`

Scores are drawn with many ties, and some requests have segments with calibration records of their own. A record's
adjusted p-value is the smallest false discovery rate at which it is flagged: scipy computes it, ours is found by
halving.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.stats import false_discovery_control

from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.calibration import Calibration, Scores
from nelbo.discovery import Counts, added, discovered

_MOST = 1e-12  # of a difference; asked for
_N_HALVINGS = 14  # of an interval 2e-12 wide: down to what a float tells apart
_RATES = (0.01, 0.05, 0.1, 0.29, 0.5, 0.9)


@dataclass(frozen=True)
class Case:
    """Scores of calibration records and of others that are held against them.

    Attributes:
        calibration: shape (n,), higher = more anomalous.
        scores: shape (m,), likewise.
    """

    calibration: Scores
    scores: Scores


@dataclass(frozen=True)
class Differences:
    """The largest of one request, or of several.

    Attributes:
        p_value: from the plain definition.
        adjusted: between the smallest false discovery rates at which a record is flagged.
        n_decided: decisions at given false discovery rates, those within 1e-12 of a tie left out.
        n_otherwise: of them, decided otherwise than by scipy.
    """

    p_value: float
    adjusted: float
    n_decided: int
    n_otherwise: int

    @property
    def agree(self) -> bool:
        """To 1e-12, and in every decision."""
        return max(self.p_value, self.adjusted) <= _MOST and self.n_otherwise == 0


def random_case(rng: np.random.Generator) -> Case:
    """Some hundred scores of which many are equal, within a set and between both."""
    n, m = int(rng.integers(1, 200)), int(rng.integers(1, 60))
    calibration = np.round(rng.normal(size=n), int(rng.integers(0, 3)))
    odd = rng.random(m) < 0.3  # so that there is something to discover
    scores = np.round(rng.normal(size=m) + np.where(odd, 3.0, 0.0), int(rng.integers(0, 3)))
    copied = rng.random(m) < 0.3
    return Case(calibration, np.where(copied, rng.choice(calibration, m), scores))


def random_request(rng: np.random.Generator) -> list[Case]:
    """The records of one request: held against one calibration set, or as segments against two or three."""
    return [random_case(rng) for _ in range(int(rng.choice([1, 1, 2, 3])))]


def plain_p_values(case: Case) -> Scores:
    """(1 + calibration scores at least as high) / (n + 1), counted one by one."""
    counts = [sum(float(c) >= float(s) for c in case.calibration) for s in case.scores]
    return np.array([(1 + count) / (len(case.calibration) + 1) for count in counts])


def adjusted_p_value(counts: Counts, p_value: Fraction, guess: float) -> float:
    """The smallest false discovery rate at which a p-value is flagged; infinite if that is not within 1e-12 of a guess.

    Args:
        counts: of the ranks of all records.
        p_value: of the records in question.
        guess: what it should be.
    """
    low, high = max(0.0, guess - _MOST), guess + _MOST
    if discovered(counts, low) >= p_value or discovered(counts, high) < p_value:
        return float("inf")
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if discovered(counts, middle) >= p_value else (middle, high)
    return high


def difference(request: Sequence[Case]) -> Differences:
    """The largest between ours and theirs, of one request."""
    counts: Counts = {}
    exact: list[Fraction] = []
    ours = []
    for case in request:
        calibration = Calibration(case.calibration)
        ranks = calibration.ranks(case.scores)
        counts = added(counts, {calibration.n: np.bincount(ranks, minlength=calibration.n + 2)})
        exact += [Fraction(int(rank), calibration.n + 1) for rank in ranks]
        ours.append(calibration.p_values(case.scores))
    p_values = np.concatenate([plain_p_values(case) for case in request])
    adjusted = false_discovery_control(p_values, method="bh")
    # Records of one p-value are flagged together.
    guesses = dict(zip(exact, adjusted.tolist(), strict=True))
    n_decided = n_otherwise = 0
    for fdr in _RATES:
        largest = discovered(counts, fdr)
        clear = [
            (p <= largest, a <= fdr) for p, a in zip(exact, adjusted.tolist(), strict=True) if abs(a - fdr) > _MOST
        ]
        n_decided += len(clear)
        n_otherwise += sum(our != their for our, their in clear)
    return Differences(
        p_value=float(np.abs(np.concatenate(ours) - p_values).max()),
        adjusted=max(abs(adjusted_p_value(counts, p, guess) - guess) for p, guess in guesses.items()),
        n_decided=n_decided,
        n_otherwise=n_otherwise,
    )


def largest(found: Sequence[Differences]) -> Differences:
    """Of several requests."""
    return Differences(
        p_value=max(one.p_value for one in found),
        adjusted=max(one.adjusted for one in found),
        n_decided=sum(one.n_decided for one in found),
        n_otherwise=sum(one.n_otherwise for one in found),
    )


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the largest differences; 1 where one is above 1e-12."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.independent")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng([options.seed, 92])
    found = largest([difference(random_request(rng)) for _ in range(options.cases)])
    sentence = (
        f"{options.cases:,} random requests with ties, half of them of several segments, beside the definition of a "
        "split-conformal p-value and beside `scipy.stats.false_discovery_control` (Benjamini and Hochberg): they "
        f"{'agree' if found.agree else 'DO NOT AGREE'} (asked for: to {_MOST:g}, and in every decision)."
    )
    rows = [
        ("p-value, largest difference", f"{found.p_value:.2g}"),
        ("smallest false discovery rate that flags a record, largest difference", f"{found.adjusted:.2g}"),
        (f"flagged or not at {', '.join(map(str, _RATES))}", f"{found.n_decided:,} decisions"),
        ("of these, otherwise than by scipy", f"{found.n_otherwise:,}"),
    ]
    body = f"{sentence}\n\n{markdown_table(['what', 'figure'], rows)}"
    print(body)
    figures = asdict(found) | {"agree": found.agree}
    command = f"python -m benchmarks.independent --cases {options.cases} --seed {options.seed}"
    write_report("independent", "p-values and false discovery rates beside scipy", command, figures, body, results)
    return 0 if found.agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
