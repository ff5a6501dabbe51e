"""Beyond the calibration records: how the tail of their scores goes on.

n calibration records certify false-alarm rates down to 1 / (n + 1). A smaller rate is an extrapolation: right where the
tail goes on as it began, and no further than a tenth of that.

Chosen by `python -m benchmarks.extremes`, whose page has the alternatives: at a tenth of 1 / n the realised rate is
within a factor of ten, in 90 % of calibration sets and more, on tails from the normal's to a Pareto's of shape 0.5. On
tails that end it is too low more often, down to nothing flagged; those that end soon are refused.
"""

from functools import cached_property
from math import expm1, inf, isqrt, log

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nelbo.bounds import Many

Scores = NDArray[np.float64]  # as in `nelbo.calibration`, which stands on this module

FURTHEST = 10.0  # times below 1 / (n + 1); beyond, a factor of ten either way would be no surprise
# Of 1,000 records the rate was within a factor of ten in 87 % of sets only where the tail is a Pareto's of shape 0.5
# (a run that is not kept).
FEWEST = 2_000
# A tail of 10 √n records: with more, the normal's is not yet straight; with fewer, the shape is not known well enough.
_TAIL_ROOTS = 10
_LARGEST_SHARE = 0.25  # of records in the tail; only for n below `FEWEST`
_FEWEST_DISTINCT = 100  # scores in the tail; of fewer, ties make steps and not a tail. Chosen

# What is believed of the shape before any record is seen: normal around 0, the exponential tail, which scores made of
# surprises have by construction. Within a factor of ten with 2,000 records: 92 to 99 %, without this 87 to 97 %.
PRIOR_SPREAD = 0.1
# The band must not take the word of that prior, nor that a tail is a generalised Pareto's to the letter: with a wider
# prior, and a record as good as 0.4 of one, it covers 88 to 99 %; as good as 1, 60 to 90 % (runs that are not kept).
_BAND_PRIOR_SPREAD = 0.3
_BAND_WEIGHT = 0.4
_N_BAND = 100  # pairs kept for the band; enough for its 5 % points
_N_FIT = 200  # samples that say how well a tail fits; enough for p = 0.01

# Below this p-value a tail does not fit. At 0.05 a fifth of normal tails were refused, which go on well enough (seen
# once).
_WORST_FIT = 0.01
# A tail of such a shape comes to an end soon: its threshold would need to be known within a few percent of the way
# there, and in half of the sets flags a tenth of what is asked for, or nothing. To 2,000 records the normal's tail
# looks like −0.16 ± 0.04.
_ENDING_SHAPE = -0.25

_STRAIGHT = 1e-9  # stands for a shape of 0, which formulas divide by; no record tells them apart


class Tail(BaseModel):
    """A generalised Pareto distribution of how far normal records' scores lie above a start.

    Source: Pickands, Statistical inference using extreme order statistics, Ann. Statist. 3(1), 1975; Siffer et al.,
    Anomaly detection in streams with extreme value theory, KDD 2017.

    Attributes:
        start: score from which on the tail holds.
        share: of calibration records above it.
        scale: of the distribution, unit of the score.
        shape: of the distribution; > 0 is heavier than an exponential tail, < 0 comes to an end.
        p_value: of the fit; how often a sample of the fitted tail fits as badly.
        resampled: scales and shapes that the records allow as well, as likely as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: float
    share: float = Field(gt=0, lt=1)
    scale: float = Field(gt=0)
    shape: float
    p_value: float = Field(ge=0, le=1)
    resampled: Many[tuple[float, float]] = Field(min_length=1)

    @property
    def ends(self) -> bool:
        """Whether the tail comes to an end too soon for a threshold near it."""
        return self.shape < _ENDING_SHAPE

    @property
    def fits(self) -> bool:
        """Whether the tail may be extrapolated: the records look like it, and it does not come to an end soon."""
        return self.p_value >= _WORST_FIT and not self.ends

    def threshold(self, rate: float) -> float:
        """The score that a share `rate` of normal records lies beyond, for 0 < rate ≤ share.

        >>> tail = Tail(start=2.0, share=0.1, scale=1.0, shape=0.0, p_value=0.5, resampled=((1.0, 0.0),))
        >>> round(tail.threshold(0.001), 4)  # 2 + log(0.1 / 0.001)
        6.6052
        """
        shape = float(_bent(self.shape))
        return self.start + self.scale * expm1(shape * log(self.share / rate)) / shape

    def rate(self, threshold: float) -> float:
        """The share of normal records beyond a threshold that is not below the start; 0 where the tail has ended."""
        return self.share * float(np.exp(_log_beyond(np.array(threshold - self.start), self.scale, self.shape)))

    def band(self, rate: float) -> tuple[float, float]:
        """Where the true share beyond `threshold(rate)` lies with 90 %."""
        return self.band_beyond(self.threshold(rate))

    def band_beyond(self, threshold: float) -> tuple[float, float]:
        """Where the true share beyond a threshold lies with 90 %, for one that is not below the start."""
        scale, shape = self._resampled
        beyond = np.exp(_log_beyond(np.array(threshold - self.start), scale, shape))
        low, high = self.share * np.quantile(beyond, [0.05, 0.95])
        return float(low), float(high)

    @cached_property
    def _resampled(self) -> tuple[Scores, Scores]:
        scale, shape = np.array(self.resampled).T
        return scale, shape


def extrapolated(tail: Tail, largest: float, rate: float) -> float:
    """The threshold for a rate below 1 / (n + 1); never below the largest calibration score.

    So a smaller rate never flags what a certified one does not.
    """
    return max(tail.threshold(rate), largest)


def fit_tail(scores: Scores, rng: np.random.Generator, fewest: int = FEWEST) -> Tail | None:
    """The tail of calibration scores.

    Args:
        scores: shape (n,), higher = more anomalous, in any order.
        rng: for the p-value and the band.
        fewest: records needed; another number is for measuring what fewer are worth.

    Returns:
        None for fewer records than that, or where so many are tied that there is no tail to see.
    """
    n = scores.size
    if n < fewest:
        return None
    start, excess = exceedances(scores, n_in_tail(n))
    if np.unique(excess).size < _FEWEST_DISTINCT:
        return None
    scale, shape = estimate(excess[np.newaxis])
    drawn = zip(*_allowed(excess, rng), strict=True)
    return Tail(
        start=start,
        share=excess.size / n,
        scale=float(scale[0]),
        shape=float(shape[0]),
        p_value=_p_value(excess, rng),
        resampled=tuple((_rounded(scale), _rounded(shape)) for scale, shape in drawn),
    )


def n_in_tail(n: int) -> int:
    """How many of n records make the tail.

    >>> n_in_tail(2_000), n_in_tail(10_000)
    (447, 1000)
    """
    return min(isqrt(_TAIL_ROOTS**2 * n), int(_LARGEST_SHARE * n))


def exceedances(scores: Scores, k: int) -> tuple[float, Scores]:
    """Where the tail of the k largest scores starts, and how far they lie above, ascending; fewer where scores tie.

    >>> exceedances(np.array([5.0, 1.0, 3.0, 2.0]), 2)
    (2.0, array([1., 3.]))
    """
    ordered = np.sort(scores)
    start = ordered[ordered.size - k - 1]
    return float(start), ordered[ordered > start] - start


def estimate(excess: Scores, prior_spread: float = PRIOR_SPREAD) -> tuple[Scores, Scores]:
    """Scale and shape of each of several samples: −shape / scale in the mean over its posterior, and what follows.

    Maximum likelihood has no closed form and, for a hundred records, no reliable maximum; this has neither iterations
    nor failures.

    Args:
        excess: shape (m, k), each sample ascending, > 0.
        prior_spread: of the shape around 0; infinite for no prior.

    Returns:
        Scale and shape, (m,) each.

    Source: Zhang and Stephens, A new and efficient estimation method for the generalized Pareto distribution,
    Technometrics 51(3), 2009. The prior of the shape is added, as Vehtari et al. do for tails of another kind: Pareto
    smoothed importance sampling, JMLR 25, 2024.
    """
    fits = np.array([_estimate_one(sample, prior_spread) for sample in excess])
    return fits[:, 0], fits[:, 1]


def _estimate_one(excess: Scores, prior_spread: float) -> tuple[float, float]:
    slopes, shapes, log_likelihood = _profile(excess)
    slope = float(_posterior(log_likelihood, shapes, prior_spread) @ slopes)
    shape = float(np.log1p(-slope * excess).mean())
    return -shape / slope, shape


def _profile(excess: Scores) -> tuple[Scores, Scores, Scores]:
    """Slopes −shape / scale, the likeliest shape for each, and the log likelihood of both; (m,) each."""
    k, largest = excess.size, excess[-1]
    m = 30 + isqrt(k)
    quartile = excess[int(k / 4 + 0.5) - 1]
    # The m quantiles of Zhang and Stephens' prior. None reaches 1 / largest, where the tail would end at that record.
    slopes = 1 / largest + (1 - np.sqrt(m / (np.arange(m) + 0.5))) / (3 * quartile)
    slopes = np.where(np.abs(slopes) * largest < _STRAIGHT, _STRAIGHT / largest, slopes)
    shapes = np.log1p(-slopes[:, np.newaxis] * excess).mean(axis=1)
    return slopes, shapes, k * (np.log(-slopes / shapes) - shapes - 1)


def _posterior(log_likelihood: Scores, shapes: Scores, prior_spread: float) -> Scores:
    """The weights of a profile's slopes, (m,), sum 1."""
    log_weight = log_likelihood - (shapes / prior_spread) ** 2 / 2
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _allowed(excess: Scores, rng: np.random.Generator) -> tuple[Scores, Scores]:
    """Scales and shapes drawn from the posterior that the band goes by, (_N_BAND,) each."""
    slopes, shapes, log_likelihood = _profile(excess)
    weight = _posterior(_BAND_WEIGHT * log_likelihood, shapes, _BAND_PRIOR_SPREAD)
    drawn = rng.choice(slopes.size, _N_BAND, p=weight)
    # Given its slope, the logarithms that a shape is the mean of are exponential: its posterior is an inverse gamma.
    k = _BAND_WEIGHT * excess.size
    shape = shapes[drawn] * k / rng.gamma(k, size=_N_BAND)
    return -shape / slopes[drawn], shape


def _p_value(excess: Scores, rng: np.random.Generator) -> float:
    """How often a sample of the tail that fits best, fitted anew, is as far from its own fit.

    Without a prior of the shape: a heavy tail is to be told from one that is no generalised Pareto's.
    """
    scale, shape = estimate(excess[np.newaxis], inf)
    found = _misfit(excess[np.newaxis], scale, shape)
    bent = _bent(shape)
    samples = np.sort(scale * np.expm1(bent * rng.exponential(size=(_N_FIT, excess.size))) / bent, axis=1)
    by_chance = _misfit(samples, *estimate(samples, inf))
    return (1 + int((by_chance >= found).sum())) / (_N_FIT + 1)


def _misfit(excess: Scores, scale: Scores, shape: Scores) -> Scores:
    """The upper-tail Anderson–Darling statistic of samples (m, k), each ascending, against their tails; (m,).

    Where Cramér and von Mises look at the middle, this looks at the far end, where the extrapolation starts.

    Source: Sinclair, Spurr and Ahmad, Modified Anderson Darling test, Commun. Stat. Theory Methods 19(10), 1990.
    """
    k = excess.shape[1]
    log_beyond = _log_beyond(excess, scale[:, np.newaxis], shape[:, np.newaxis])
    weight = 2 - (2 * np.arange(k) + 1) / k
    return np.asarray(2 * np.exp(log_beyond).sum(axis=1) - 1.5 * k - log_beyond @ weight)


def _log_beyond(above: Scores, scale: Scores | float, shape: Scores | float) -> Scores:
    """Logarithm of the share of a tail that lies further above its start; −inf where it has ended."""
    bent = _bent(shape)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log1p(np.maximum(bent * above / scale, -1.0)) / bent)


def _bent(shape: Scores | float) -> Scores:
    return np.where(np.abs(shape) < _STRAIGHT, _STRAIGHT, shape)


def _rounded(value: float) -> float:
    """To five digits: a bundle keeps hundreds of them, and the band is no more exact."""
    return float(f"{value:.5g}")
