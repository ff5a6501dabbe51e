"""Which values of a field are usual beside the record's other fields: intervals that hold nine normal ones of ten.

Conformal: the calibration records, each with the field hidden, say how far values lie from what is expected of them.
"""

from bisect import bisect_right
from math import asinh, ceil, copysign, floor, inf, log10, sinh

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from nelbo.bounds import Many

Numbers = NDArray[np.float64]

COVERAGE = 0.9
FEWEST = 19  # records; of fewer, not even the range of all is an interval for nine of ten
_OUTSIDE = 20  # one of so many may lie below an interval, and one above
# Bins of the expected value, so that a field whose spread grows with its level has narrow intervals where it is low:
# two hundred records make an interval's coverage certain to about four percent points. Chosen.
_MOST_BINS, _FEWEST_IN_BIN = 5, 200
_BENT = 8.0  # median distances from the centre up to which a field's unit is about its own; chosen
# What a graph expects differs between batches and processors, by less than this in bent units. Of values that many
# records share it would cover all or none.
_TOLERANCE = 1e-5
_FINE = 1000  # parts of an interval to which its ends are shown; chosen


class Interval(BaseModel):
    """How far normal values of one numeric field lie from what its record's other fields let expect.

    Distances are taken in a bent unit, asinh((x − centre) / scale): about the field's own in its bulk, a ratio far
    outside, so that a count of bytes is as sure at a thousand as at a million.

    Attributes:
        n: of each bin, the calibration records behind it.
        least, greatest: of the calibration records' values, between which every interval lies.
        centre, scale: of the bent unit, in the field's own.
        edges: expected values that part the bins, ascending.
        middle: of each bin, the median distance: what a graph expects may lie to one side of what is usual.
        low, high: of each bin, the distances from the expected value to both ends; None where the range ends it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n: Many[int]
    least: float
    greatest: float
    centre: float
    scale: float
    edges: Many[float] = ()
    middle: Many[float]
    low: Many[float | None]
    high: Many[float | None]

    @model_validator(mode="after")
    def _has_an_end_for_every_bin(self) -> "Interval":
        if not len(self.n) == len(self.middle) == len(self.low) == len(self.high) == len(self.edges) + 1:
            raise ValueError("an interval needs n, middle, low and high for every bin, one more than edges")
        if not (self.scale > 0 and self.least <= self.greatest):
            raise ValueError("an interval needs a scale above 0, and least at most greatest")
        return self

    def ends(self, expected: float) -> tuple[float, float]:
        """Both ends, not rounded.

        Args:
            expected: in the field's own unit.

        >>> interval = Interval(
        ...     n=(19,), least=0.0, greatest=50.0, centre=40.0, scale=1e9, middle=(1e-9,), low=(-4e-9,), high=(5e-9,)
        ... )
        >>> [round(end, 3) for end in interval.ends(48.0)]
        [44.0, 50.0]
        """
        at, bent = self._place(expected)
        low, high = self.low[at], self.high[at]
        return (
            self.least if low is None else self._unbent(bent + low),
            self.greatest if high is None else self._unbent(bent + high),
        )

    def usual(self, expected: float) -> float:
        """The value that lies in the middle of those usual, in place of the expected one."""
        at, bent = self._place(expected)
        return self._unbent(bent + self.middle[at])

    def _place(self, expected: float) -> tuple[int, float]:
        """The bin of an expected value, and it in the bent unit."""
        return bisect_right(self.edges, expected), asinh((expected - self.centre) / self.scale)

    def _unbent(self, bent: float) -> float:
        """A value of the bent unit, within the range."""
        try:
            value = self.centre + self.scale * sinh(bent)
        except OverflowError:  # beyond the largest number lies the end of the range
            value = copysign(inf, bent)
        return min(max(value, self.least), self.greatest)

    def shown(self, expected: float, step: float | None) -> tuple[float, float, float]:
        """What is usual, and both ends, as a person reads them.

        With a step, the ends are the outermost multiples of it within the interval: these are the values that it
        holds, no more and no fewer. Without one they are rounded outwards. What is usual lies between.

        >>> interval = Interval(
        ...     n=(19,), least=0.0, greatest=50.0, centre=40.0, scale=1e9, middle=(1e-9,), low=(-4e-9,), high=(5e-9,)
        ... )
        >>> interval.shown(42.3, 1.0), interval.shown(42.1234567, None)
        ((43.0, 39.0, 47.0), (43.123, 38.123, 47.124))
        """
        low, high = self.ends(expected)
        within = min(max(self.usual(expected), low), high)
        if step:
            low, high = _on_step(low, high, step)
            unit = step
        else:
            width = min(max(high - low, 1e-9 * max(abs(low), abs(high), self.scale)), 1e300)
            unit = 10.0 ** floor(log10(width / _FINE))
            low, high = _multiple(floor(low / unit), unit), _multiple(ceil(high / unit), unit)
        return min(max(_multiple(round(within / unit), unit), low), high), low, high


def fit_interval(values: Numbers, expected: Numbers) -> Interval | None:
    """The interval of a field, from normal records that nothing was fitted on.

    Beside n such records, the value of one more lies within its interval with a probability of 90 % at least: of the
    distances in its bin it takes those that a twentieth lies below, and a twentieth above. The range is part of that:
    a record that alone holds the least value counts as below its interval, since a new least value will be.

    Args:
        values: shape (n,); NaN where missing.
        expected: shape (n,), what is expected of each by its record's other fields.

    Returns:
        None where fewer than 19 values are there.

    Source: Vovk et al., Mondrian confidence machine, 2003, of the bins.
    """
    there = np.isfinite(values) & np.isfinite(expected)
    values, expected = values[there], expected[there]
    if values.size < FEWEST:
        return None
    centre = float(np.median(values))
    apart = np.abs(values - centre)[values != centre]
    scale = _BENT * float(np.median(apart)) if apart.size else 1.0
    distances = np.arcsinh((values - centre) / scale) - np.arcsinh((expected - centre) / scale)
    edges = _edges(expected)
    bins = np.array(edges).searchsorted(expected, side="right")
    # The record that an edge is of lies in its bin because the edge is its own: a new one is as others there.
    counted = np.ones(values.size, dtype=np.bool_)
    counted[[int(np.argmax(expected == edge)) for edge in edges]] = False
    members = [counted & (bins == i) for i in range(len(edges) + 1)]
    ends = [_both_ends(distances, of_bin, values) for of_bin in members]
    return Interval(
        n=tuple(int(of_bin.sum()) for of_bin in members),
        middle=tuple(float(f"{np.median(distances[of_bin]):.6g}") for of_bin in members),
        least=float(values.min()),
        greatest=float(values.max()),
        centre=centre,
        scale=scale,
        edges=edges,
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
    )


def n_outside(n: int) -> int:
    """How many of n calibration records lie below an interval, and as many above.

    >>> n_outside(19), n_outside(200)
    (1, 10)
    """
    return (n + 1) // _OUTSIDE


def _edges(expected: Numbers) -> tuple[float, ...]:
    """Where bins of about equally many records part; each holds enough of them."""
    ordered = np.sort(expected)
    n_bins = max(1, min(_MOST_BINS, ordered.size // _FEWEST_IN_BIN))
    edges: list[float] = []
    start = 0
    for i in range(1, n_bins):
        edge = float(ordered[i * ordered.size // n_bins])
        at = int(ordered.searchsorted(edge))
        if min(at - start, ordered.size - at - 1) >= _FEWEST_IN_BIN - 1:
            edges.append(edge)
            start = at
    return tuple(edges)


def _both_ends(distances: Numbers, which: NDArray[np.bool_], values: Numbers) -> tuple[float | None, float | None]:
    """The distances that a twentieth of a bin lies below and a twentieth above."""
    k = n_outside(int(which.sum()))
    ends: list[float | None] = []
    for sign in (-1.0, 1.0):
        outermost = sign * values == (sign * values).max()
        outwards = np.where(outermost & (outermost.sum() == 1), np.inf, sign * distances)
        end = np.sort(outwards[which])[-k]
        ends.append(float(f"{sign * (end + _TOLERANCE):.9g}") if np.isfinite(end) else None)
    return ends[0], ends[1]


def _on_step(low: float, high: float, step: float) -> tuple[float, float]:
    """The outermost multiples of a step within an interval; the one nearest to its middle where there is none.

    >>> _on_step(38.2, 41.9, 1.0), _on_step(38.2, 38.4, 1.0), _on_step(0.1, 0.3, 0.1)
    ((39.0, 41.0), (38.0, 38.0), (0.1, 0.3))
    """
    # A multiple may miss the interval by a float's last digit.
    first, last = ceil(low / step - 1e-6), floor(high / step + 1e-6)
    if first > last:
        first = last = round((low + high) / 2 / step)
    return _multiple(first, step), _multiple(last, step)


def _multiple(count: int, unit: float) -> float:
    """A multiple as it is written: 0.3, not 0.30000000000000004."""
    return float(f"{count * unit:.15g}")
