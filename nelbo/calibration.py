"""From statistics to p-values: what the calibration records say a normal record looks like.

Three statistics are calibrated: `score`, `elbo` and `reconstruction_error`. Here all three point the same
way, higher = more anomalous; whoever hands over an ELBO hands over its negative.
"""

from datetime import datetime
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import floor
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nelbo.bounds import Many, first_fault
from nelbo.errors import BundleError, CalibrationError
from nelbo.extremes import Tail
from nelbo.intervals import Interval
from nelbo.segments import Segments

Scores = NDArray[np.float64]
StatisticName = Literal["score", "elbo", "reconstruction_error"]
STATISTICS: tuple[StatisticName, ...] = ("score", "elbo", "reconstruction_error")

# The same record in another batch or on another processor scores within this relative distance
# (float32 arithmetic; the contract suite holds it). Calibration scores are raised by as much, so that a
# record equal to a calibration record ties with it instead of passing it by a rounding error: on tables
# full of duplicates that would turn one tie into a flood of alarms. It only ever makes p-values larger.
SCORE_TOLERANCE = 1e-5


def raised(scores: Scores) -> Scores:
    """Calibration scores as they are kept: sorted, and raised by the tolerance of the scorer.

    >>> raised(np.array([200.0, -3.0]))
    array([ -2.99997, 200.002  ])
    """
    return np.sort(scores + SCORE_TOLERANCE * np.maximum(1.0, np.abs(scores)))


def n_flagged_allowed(rate: float, n: int) -> int:
    """How many of `n` calibration records and one new one may lie at or above the new one, for it to be flagged.

    k = ⌊rate·(n + 1)⌋ of the decimal that a person wrote: in floats, 0.29 · 100 is below 29.

    >>> n_flagged_allowed(0.29, 99)
    29
    """
    return floor(Fraction(repr(float(rate))) * (n + 1))


class Calibration:
    """One statistic's calibration set.

    Args:
        scores: shape (n,), higher = more anomalous; of normal records that the fit has not seen.

    Source: Bates et al., Testing for outliers with conformal p-values, Ann. Statist. 51(1), 2023.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = np.sort(np.asarray(scores, dtype=np.float64))
        if not np.all(np.isfinite(self.scores)):
            raise CalibrationError("a calibration score is NaN or infinite; the bundle was calibrated wrongly")

    @property
    def n(self) -> int:
        """The number of calibration records."""
        return self.scores.size

    def p_values(self, scores: Scores) -> Scores:
        """How often a normal record would look at least this odd.

        Args:
            scores: shape (m,), higher = more anomalous.

        Returns:
            Shape (m,), within [1 / (n + 1), 1]. Ties count against the alarm.

        Raises:
            CalibrationError: a score is NaN; the text names its position.

        >>> Calibration(np.array([1.0, 2.0, 3.0, 4.0])).p_values(np.array([2.5, 9.0]))
        array([0.6, 0.2])
        """
        return self.ranks(scores) / (self.n + 1)

    def ranks(self, scores: Scores) -> NDArray[np.intp]:
        """One more than the calibration scores that are at least as high, shape (m,): (n + 1) times the p-value.

        Raises:
            CalibrationError: as `p_values`.
        """
        if scores.size and np.isnan(scores.max()):
            raise CalibrationError(f"score {int(np.isnan(scores).argmax())} is NaN, which has no p-value")
        return self.n + 1 - self.scores.searchsorted(scores, side="left")

    def threshold(self, k: int) -> float:
        """The score beyond which a record is suspicious: exactly then p ≤ k / (n + 1).

        Returns:
            The k-th largest calibration score; infinite for k = 0, when nothing is ever flagged.

        >>> Calibration(np.array([1.0, 2.0, 3.0, 4.0])).threshold(2)
        3.0
        """
        return float(self.scores[self.n - k]) if k else float("inf")


class IncreasingMap(BaseModel):
    """A continuous, strictly increasing function: linear between knots, and beyond them.

    It maps a part of the score to the surprise -log P(a normal record's part is at least this high): the
    empirical bulk, then an exponential tail. So parts of any unit can be added, and no record is so odd
    that it ties with another: ranks would saturate at 1/(n + 1), which cost average precision .652 → .628
    on 29 tables.

    Attributes:
        x: the knots, increasing.
        y: their surprise in nats, increasing.
        slope: nats per unit beyond the last knot (the exponential tail), and below the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    x: Many[float]
    y: Many[float]
    slope: float

    @model_validator(mode="after")
    def _is_increasing(self) -> "IncreasingMap":
        if not self.x or len(self.x) != len(self.y):
            raise ValueError(f"a map needs as many x as y, at least one; it has {len(self.x)} and {len(self.y)}")
        if not (_increases(self.x) and _increases(self.y) and self.slope > 0):
            raise ValueError("a map must increase strictly: x, y and slope")
        return self

    def __call__(self, values: Scores) -> Scores:
        """The surprise of each value.

        >>> IncreasingMap(x=(0.0, 2.0), y=(0.0, 1.0), slope=3.0)(np.array([-1.0, 1.0, 4.0]))
        array([-3. ,  0.5,  7. ])
        """
        x, y = self._knots
        beyond: Scores = self.slope * (values - np.minimum(np.maximum(values, x[0]), x[-1]))
        return np.interp(values, x, y) + beyond

    def times(self, factor: float) -> "IncreasingMap":
        """The map whose surprise is `factor` times as large."""
        return IncreasingMap(x=self.x, y=tuple(factor * y for y in self.y), slope=factor * self.slope)

    @cached_property
    def _knots(self) -> tuple[Scores, Scores]:
        return np.array(self.x), np.array(self.y)


def _increases(values: tuple[float, ...]) -> bool:
    return all(low < high for low, high in pairwise(values))


# What a graph says of a record beside its nats, in the order of its columns.
EvidenceName = Literal["residual", "rarity"]
EVIDENCE: tuple[EvidenceName, ...] = ("residual", "rarity")


class Combination(BaseModel):
    """How the parts of a record's evidence become one score.

    score = energy(−ELBO) + residual(…) + rarity(…) + oddest_category(…), of

    - residual: logarithm of the mean distance of the record's values from what the decoder restores: every field
      counts alike there, however well it is usually restored.
    - rarity: −log density of the record itself around the exemplars, where the decoder has no say; nats.
    - oddest_category: largest standardised contribution of a categorical field. A number can be as surprising as it
      is far out; a category at most as its rarity. Where many numbers carry the variance of −ELBO, an impossible
      category would move it by less than their noise.

    Attributes:
        fields: names of the fields, in the order of the lists below.
        typical: mean contribution of each field, nats; what a missing value is charged, so that a record
            with fewer observed fields is not normal for that alone.
        location: 90th percentile of each field's contribution, nats.
        spread: mean excess above it, nats, at least 1: in nats an excess of 1 is a factor e in probability,
            and a smaller one would let a rare but normal category outshine everything.
        categorical: whether each field is one of categories.
        energy: map of −ELBO.
        evidence: maps of what the graph says beside; a model without exemplars knows no rarity.
        oddest_category: map of the largest standardised contribution of a categorical field; None without any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fields: Many[str]
    typical: Many[float]
    location: Many[float]
    spread: Many[float]
    categorical: Many[bool]
    energy: IncreasingMap
    evidence: dict[EvidenceName, IncreasingMap]
    oddest_category: IncreasingMap | None

    @model_validator(mode="after")
    def _is_about_each_field(self) -> "Combination":
        if tuple(self.evidence) != EVIDENCE[: len(self.evidence)]:
            raise ValueError(f"evidence comes in the order {', '.join(EVIDENCE)}, got {', '.join(self.evidence)}")
        for name in ("typical", "location", "spread", "categorical"):
            if len(getattr(self, name)) != len(self.fields):
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {len(self.fields)} fields")
        if not all(spread > 0 for spread in self.spread):
            raise ValueError("a spread must be above 0")
        if any(self.categorical) != (self.oddest_category is not None):
            raise ValueError("a map of the oddest category belongs to categorical fields, and to nothing else")
        return self

    def score(self, contributions: Scores, kl: Scores, evidence: Scores) -> Scores:
        """The combined statistic that decides, unitless, higher = more anomalous.

        Args:
            contributions: shape (n, n_fields), nats.
            kl: shape (n,), nats.
            evidence: shape (n, len(self.evidence)).
        """
        score = self.energy(contributions.sum(axis=1) + kl)
        for part, values in zip(self.evidence.values(), evidence.T, strict=True):
            score = score + part(values)
        if self.oddest_category is None:
            return score
        which, location, spread = self._of_categories
        return score + self.oddest_category(_standardised_maximum(contributions[:, which], location, spread))

    @cached_property
    def typical_contributions(self) -> Scores:
        """`typical` as an array, (n_fields,)."""
        return np.array(self.typical)

    @cached_property
    def _of_categories(self) -> tuple[NDArray[np.intp], Scores, Scores]:
        which = np.flatnonzero(self.categorical)
        return which, np.array(self.location)[which], np.array(self.spread)[which]


def _standardised_maximum(contributions: Scores, location: Scores, spread: Scores) -> Scores:
    """The largest of each record's contributions, each in its field's own measure; shape (n,), unitless."""
    return np.asarray(((contributions - location) / spread).max(axis=1))


class CalibrationFile(BaseModel):
    """`calibration.json`: replaceable without a new fit.

    Attributes:
        created: UTC, ISO 8601.
        rate: the false-alarm rate that holds where a request names none.
        confidence: with which the true rate is below it; None where the rate holds in the mean.
        combination: fitted on calibration-a.
        fdr: false discovery rate that holds instead of the rate where a request names none; None for the rate.
        scores: of calibration-b, per statistic, higher = more anomalous, ascending, raised by the scorer's
            tolerance.
        tails: of each statistic, how its scores go on beyond those; none where they are too few.
        segments: which of them belong to which segment; None where all records are judged by all.
        intervals: of each numeric field by name, where enough of them have it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[4] = 4
    created: str
    rate: float
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    fdr: Annotated[float, Field(gt=0, lt=1)] | None = None
    combination: Combination
    scores: dict[StatisticName, Many[float]]
    tails: dict[StatisticName, Tail] = {}
    segments: Segments | None = None
    intervals: dict[str, Interval] = {}

    @field_validator("created")
    @classmethod
    def _is_a_moment(cls, created: str) -> str:
        if datetime.fromisoformat(created).tzinfo is None:  # its age could not be told
            raise ValueError(f"'{created}' is a time without an offset from UTC")
        return created

    @model_validator(mode="after")
    def _has_every_statistic(self) -> "CalibrationFile":
        absent = [name for name in STATISTICS if name not in self.scores]
        if absent:
            raise ValueError(f"scores of {', '.join(absent)} are missing")
        if len({len(scores) for scores in self.scores.values()}) != 1 or self.n == 0:
            raise ValueError("every statistic needs equally many scores, at least one")
        if self.segments is not None and {name: len(of) for name, of in self.segments.members.items()} != dict.fromkeys(
            STATISTICS, self.n
        ):
            raise ValueError("segments need a member for every score of every statistic")
        return self

    @property
    def n(self) -> int:
        """The number of calibration records."""
        return len(self.scores["score"])


def parse_calibration(text: bytes, source: str) -> CalibrationFile:
    """A calibration from the bytes of its file.

    Raises:
        BundleError: naming the source and the place.
    """
    try:
        return CalibrationFile.model_validate_json(text)
    except ValidationError as error:
        place, detail = first_fault(error)
        raise BundleError(f"{source}: calibration.json: {place}: {detail}") from error


# --- fitting a combination ---------------------------------------------------------------------------

_N_KNOTS = 33  # chosen; enough for the shape of a bulk, few enough to read
_TAIL = 0.05  # share of calibration-a that sets the exponential tail; chosen
_MIN_SLOPE = 1e-3  # nats per unit; keeps a map strictly increasing where a part hardly varies
# A steeper map would turn float32 noise of the graph into differences of the score beyond its tolerance: on tables
# of few distinct records the bulk is a handful of ties that differ by rounding. A calibrated −ELBO has about 1.
_MAX_SLOPE = 4.0

# Weights in the sum, beside 1 of the energy. docs/decisions/0001 has the tables that they come from.
_EVIDENCE_WEIGHTS: dict[EvidenceName, float] = {"residual": 0.5, "rarity": 1.0}
ODDEST_WEIGHT = 0.125
_STEEPEST_CATEGORY = 1.0  # its surprise is in nats already: of one of them, no more than one can be believed


def fit_map(values: Scores, weight: float = 1.0, steepest: float = _MAX_SLOPE) -> IncreasingMap:
    """The map of one part, from its values on calibration-a.

    Args:
        values: shape (n,), n ≥ 1.
        weight: of the part in the sum; it scales the surprise.
        steepest: surprise per unit at most, before the weight.
    """
    ordered = np.sort(values)
    n = ordered.size
    ranks = np.unique(np.linspace(0, (1 - _TAIL) * (n - 1), _N_KNOTS).astype(int))
    x = ordered[ranks]
    # Several ranks on one value (ties) become one knot with the smallest surprise among them.
    x, first = np.unique(x, return_index=True)
    surprise = -np.log((n - ranks[first] - 0.5 + 0.5 / n) / n)
    rises = np.minimum(np.diff(surprise), steepest * np.diff(x))
    y = surprise[0] + np.concatenate([[0.0], np.cumsum(rises)])
    # Knots so close that a float does not tell their surprises apart become one.
    y, first = np.unique(weight * y, return_index=True)
    x = x[first]
    excess = ordered[ordered > x[-1]] - x[-1]
    slope = 1.0 / max(float(excess.mean()), 1e-9) if excess.size else steepest
    slope = min(max(slope, _MIN_SLOPE), steepest)
    return IncreasingMap(x=tuple(x.tolist()), y=tuple(y.tolist()), slope=weight * slope)


def fit_combination(
    fields: tuple[str, ...],
    categorical: tuple[bool, ...],
    contributions: Scores,
    missing: NDArray[np.bool_],
    kl: Scores,
    evidence: Scores,
) -> Combination:
    """The combination, from calibration-a.

    Args:
        fields: names, in the order of the contributions' columns.
        categorical: which of them are of categories.
        contributions: shape (n, n_fields), nats; those of missing values are not looked at.
        missing: shape (n, n_fields).
        kl: shape (n,), nats.
        evidence: shape (n, 1 or 2), what the graph says beside: residual and, with exemplars, rarity.
    """
    seen = np.where(missing, np.nan, contributions)
    columns = [column[np.isfinite(column)] for column in seen.T]
    typical = np.array([column.mean() if column.size else 0.0 for column in columns])
    location = np.array([np.quantile(column, 0.9) if column.size else 0.0 for column in columns])
    excess = [column[column > at] - at for column, at in zip(columns, location, strict=True)]
    spread = np.array([max(1.0, float(part.mean())) if part.size else 1.0 for part in excess])
    filled = np.where(missing, typical, contributions)
    which = np.array(categorical)
    return Combination(
        fields=fields,
        typical=tuple(typical.tolist()),
        location=tuple(location.tolist()),
        spread=tuple(spread.tolist()),
        categorical=categorical,
        energy=fit_map(filled.sum(axis=1) + kl),
        evidence={
            name: fit_map(values, _EVIDENCE_WEIGHTS[name]) for name, values in zip(EVIDENCE, evidence.T, strict=False)
        },
        oddest_category=fit_map(
            _standardised_maximum(filled[:, which], location[which], spread[which]), ODDEST_WEIGHT, _STEEPEST_CATEGORY
        )
        if any(categorical)
        else None,
    )
