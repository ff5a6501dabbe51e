"""How far off thresholds are for false-alarm rates that calibration records do not certify.

`python -m benchmarks.extremes [--seeds 100]`

Draws calibration scores of known distributions, extrapolates a threshold for a tenth of 1 / n, and reads the realised
rate off the distribution function. Then what the choices in `nelbo.extremes` are worth, each beside its alternatives.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy import stats

from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.extremes import (
    FEWEST,
    FURTHEST,
    PRIOR_SPREAD,
    Scores,
    Tail,
    estimate,
    exceedances,
    extrapolated,
    fit_tail,
    n_in_tail,
)

_WITHIN = 0.90  # share of calibration sets; asked for
_FACTOR = 10.0  # of the rate, either way; asked for
_SIZES = (500, 2_000, 10_000)
_COMPARED = (2_000, 10_000)  # calibration sets on which choices are compared
_N_COMPARED = 5  # times as many of them as seeds: without bands and p-values they cost little

Draw = Callable[[int, np.random.Generator], Scores]
Figures = dict[str, float]


class Known(Protocol):
    """A distribution of scipy's, whose tail is known."""

    def rvs(self, size: int, random_state: np.random.Generator) -> Scores:
        """A sample, shape (size,)."""

    def sf(self, x: float) -> float:
        """P(X > x)."""


OPEN: dict[str, Known] = {
    "exponential": stats.expon(),
    "normal": stats.norm(),
    "lognormal": stats.lognorm(1.0),
    "Student t, 4 df": stats.t(4),
    "Pareto, shape 0.5": stats.genpareto(0.5),
}
ENDING: dict[str, Known] = {"Beta(2, 3), shape −1/3": stats.beta(2, 3)}
# Beside the six that the bars are about.
FURTHER: dict[str, Known] = {
    "logistic": stats.logistic(),
    "Beta(2, 8), shape −1/8": stats.beta(2, 8),
    "Beta(2, 5), shape −1/5": stats.beta(2, 5),
}
KNOWN = {**OPEN, **ENDING, **FURTHER}


def _with_far(share: float, far: Draw) -> Draw:
    """Exponential scores, a share of them replaced."""

    def draw(n: int, rng: np.random.Generator) -> Scores:
        return np.where(rng.random(n) < share, far(n, rng), rng.exponential(size=n))

    return draw


def _one_far_out(n: int, rng: np.random.Generator) -> Scores:
    return np.append(rng.exponential(size=n - 1), 1e6)


def _doubled(n: int, rng: np.random.Generator) -> Scores:
    scores = rng.exponential(size=n)
    return np.append(scores[: n - n // 10], scores[: n // 10])


# Of other kinds: no tail of theirs goes on as it began, or they are full of ties.
BAD: dict[str, Draw] = {
    "2 % beyond a gap": _with_far(0.02, lambda n, rng: 30 + rng.normal(size=n)),
    "0.2 % beyond a gap": _with_far(0.002, lambda n, rng: 30 + rng.normal(size=n)),
    "10 % of another kind, no gap": _with_far(0.1, lambda n, rng: 8 + rng.normal(size=n)),
    "1 % on one point far out": _with_far(0.01, lambda n, _: np.full(n, 50.0)),
    "one record at a million": _one_far_out,
    "rounded to 0.5": lambda n, rng: np.round(2 * rng.exponential(size=n)) / 2,
    "rounded to 0.1": lambda n, rng: np.round(10 * rng.exponential(size=n)) / 10,
    "counts, Poisson of mean 3": lambda n, rng: rng.poisson(3, n).astype(np.float64),
    "each record three times in the mean": lambda n, rng: rng.choice(rng.exponential(size=n // 3), n),
    "one record in ten twice": _doubled,
}


@dataclass(frozen=True)
class Extrapolation:
    """What one calibration set came to.

    Attributes:
        times: the realised rate, as a multiple of the one asked for.
        fits: whether the tail says that it may be extrapolated.
        ends: whether it says that it comes to an end.
        covered: whether the realised rate is within the tail's band.
        highest: the upper end of that band, as a multiple of the rate asked for.
    """

    times: float
    fits: bool
    ends: bool
    covered: bool
    highest: float

    @property
    def is_close(self) -> bool:
        """Whether the realised rate is the one asked for, but for a factor of ten."""
        return 1 / _FACTOR <= self.times <= _FACTOR


def extrapolate(known: Known, n: int, seed: int) -> Extrapolation:
    """A tenth of 1 / n, from n scores of a known distribution."""
    rng = np.random.default_rng([n, seed])
    scores = known.rvs(n, random_state=rng)
    tail = fit_tail(scores, rng, fewest=0)
    assert tail is not None
    rate = 1 / n / FURTHEST
    threshold = extrapolated(tail, float(scores.max()), rate)
    realised = float(known.sf(threshold))
    low, high = tail.band_beyond(threshold)
    return Extrapolation(realised / rate, tail.fits, tail.ends, low <= realised <= high, high / rate)


def figures(found: Sequence[Extrapolation]) -> Figures:
    """Shares of calibration sets, and quantiles over them."""
    times = np.array([each.times for each in found])
    low, middle, high = np.quantile(times, [0.05, 0.5, 0.95])
    return {
        "close": float(np.mean([each.is_close for each in found])),
        "too_low": float((times < 1 / _FACTOR).mean()),
        "too_high": float((times > _FACTOR).mean()),
        "times_05": float(low),
        "times_50": float(middle),
        "times_95": float(high),
        "refused_misfit": float(np.mean([not each.fits and not each.ends for each in found])),
        "refused_end": float(np.mean([each.ends for each in found])),
        "offered_and_off": float(np.mean([each.fits and not each.is_close for each in found])),
        "covered": float(np.mean([each.covered for each in found])),
        "highest": float(np.median([each.highest for each in found])),
    }


def missed(found: dict[str, dict[int, Figures]]) -> list[str]:
    """The bars that are not met, in words; those of sizes that `fit_tail` takes.

    Tails that do not end are held to the bar with and without what is refused, so that refusing does not help; of one
    that ends, too many must not be offered and off.

    Args:
        found: by tail and n.
    """
    words = []
    for name in (*OPEN, *ENDING):
        for n, each in found[name].items():
            if n < FEWEST:
                continue
            if name in OPEN and each["close"] < _WITHIN:
                words.append(f"{name}, n = {n:,}: within a factor of ten in {each['close']:.1%}")
            if 1 - each["offered_and_off"] < _WITHIN:
                words.append(f"{name}, n = {n:,}: offered and off in {each['offered_and_off']:.1%}")
    return words


def refused(draw: Draw, n: int, n_seeds: int) -> float:
    """The share of calibration sets of which no tail is offered."""
    rngs = [np.random.default_rng([n, seed, 1]) for seed in range(n_seeds)]
    tails = [fit_tail(draw(n, rng), rng) for rng in rngs]
    return float(np.mean([tail is None or not tail.fits for tail in tails]))


@dataclass(frozen=True)
class Choice:
    """How a tail is fitted.

    Attributes:
        prior_spread: of the shape; infinite for none.
        share: of records in the tail; None for as many as `fit_tail` takes.
    """

    prior_spread: float = PRIOR_SPREAD
    share: float | None = None

    def __str__(self) -> str:
        """For the page."""
        prior = "no prior" if math.isinf(self.prior_spread) else f"prior ± {self.prior_spread:g}"
        return prior + ("" if self.share is None else f", {self.share:.0%} in the tail")


CHOICES = (
    Choice(),
    Choice(prior_spread=math.inf),
    Choice(prior_spread=0.2),
    Choice(prior_spread=0.07),
    Choice(share=0.05),
    Choice(share=0.1),
    Choice(share=0.3),
)


def close_with(choice: Choice, known: Known, n: int, n_sets: int) -> float:
    """The share of calibration sets with which a choice comes within a factor of ten."""
    close = 0
    for seed in range(n_sets):
        scores = known.rvs(n, random_state=np.random.default_rng([n, seed, 2]))
        start, excess = exceedances(scores, n_in_tail(n) if choice.share is None else int(choice.share * n))
        (scale,), (shape,) = estimate(excess[np.newaxis], choice.prior_spread)
        pair = (float(scale), float(shape))
        tail = Tail(start=start, share=excess.size / n, scale=pair[0], shape=pair[1], p_value=1.0, resampled=(pair,))
        rate = 1 / n / FURTHEST
        close += 1 / _FACTOR <= float(known.sf(extrapolated(tail, float(scores.max()), rate))) / rate <= _FACTOR
    return close / n_sets


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the figures; 1 where one of them misses its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extremes")
    parser.add_argument("--seeds", type=int, default=100, help="calibration sets of each kind; 100 if not given")
    n_seeds = parser.parse_args(arguments).seeds
    found: dict[str, dict[int, Figures]] = {}
    for name, known in KNOWN.items():
        found[name] = {n: figures([extrapolate(known, n, seed) for seed in range(n_seeds)]) for n in _SIZES}
        print(f"{name} done", flush=True)
    bad = {name: {n: refused(draw, n, n_seeds) for n in _COMPARED} for name, draw in BAD.items()}
    compared = {
        str(choice): {
            name: {n: close_with(choice, known, n, _N_COMPARED * n_seeds) for n in _COMPARED}
            for name, known in {**OPEN, **ENDING}.items()
        }
        for choice in CHOICES
    }
    off = missed(found)
    body = _page(n_seeds, found, bad, compared, off)
    print(body)
    everything: dict[str, object] = {"figures": found, "refused": bad, "compared": compared, "missed": off}
    command = f"python -m benchmarks.extremes --seeds {n_seeds}"
    write_report("extremes", "Thresholds beyond the calibration records", command, everything, body, results)
    return 1 if off else 0


def _page(
    n_seeds: int,
    found: dict[str, dict[int, Figures]],
    bad: dict[str, dict[int, float]],
    compared: dict[str, dict[str, dict[int, float]]],
    off: list[str],
) -> str:
    parts = [
        f"Of each distribution {n_seeds} calibration sets of n scores; a threshold for the rate 0.1 / n from each, "
        "never below its largest score; the realised rate from the distribution function. Asked for: within a factor "
        f"of ten in {_WITHIN:.0%}, on each of the first six. Sizes below {FEWEST:,} are not offered.",
        "Missed: " + ("; ".join(off) if off else "nothing") + ".",
        _rates(found),
        '"Too low" flags too little, at worst nothing: the threshold lies beyond the end of the tail. A tail whose '
        "shape is below −1/4 is refused for that. The first six are held to the bar twice: on all sets, refused or not "
        "(not the one that ends), and to at most a tenth of sets that are offered and off.",
        "## The tail's own word",
        "Refused although nothing is wrong with the scores; how often the realised rate lies in the 90 % band; that "
        "band's upper end, as a multiple of the rate asked for:",
        _words(found),
        "## Scores that no tail should be fitted to",
        markdown_table(
            ["scores", *(f"refused, n = {n:,}" for n in _COMPARED)],
            [(name, *(f"{share:.1%}" for share in each.values())) for name, each in bad.items()],
        ),
        "## Alternatives",
        f"Within a factor of ten, of {_N_COMPARED * n_seeds:,} sets of {' / '.join(f'{n:,}' for n in _COMPARED)}:",
        _alternatives(compared),
    ]
    return "\n\n".join(parts)


def _rates(found: dict[str, dict[int, Figures]]) -> str:
    headings = ["scores", "n", "within ×10", "too low", "too high", "offered and off", "realised / asked: 5 %", "50 %"]
    rows = [
        (
            name,
            f"{n:,}",
            *(f"{each[key]:.1%}" for key in ("close", "too_low", "too_high", "offered_and_off")),
            *(f"{each[key]:.2g}" for key in ("times_05", "times_50", "times_95")),
        )
        for name, of_sizes in found.items()
        for n, each in of_sizes.items()
    ]
    return markdown_table([*headings, "95 %"], rows)


def _words(found: dict[str, dict[int, Figures]]) -> str:
    rows = [
        (
            name,
            f"{n:,}",
            *(f"{each[key]:.1%}" for key in ("refused_misfit", "refused_end", "covered")),
            f"{each['highest']:.3g}",
        )
        for name, of_sizes in found.items()
        for n, each in of_sizes.items()
        if n >= FEWEST
    ]
    return markdown_table(["scores", "n", "refused: misfit", "refused: ends", "in the band", "upper end"], rows)


def _alternatives(compared: dict[str, dict[str, dict[int, float]]]) -> str:
    rows = [
        (choice, *(" / ".join(f"{share:.1%}" for share in of_sizes.values()) for of_sizes in of_tails.values()))
        for choice, of_tails in compared.items()
    ]
    return markdown_table(["", *OPEN, *ENDING], rows)


if __name__ == "__main__":
    raise SystemExit(main())
