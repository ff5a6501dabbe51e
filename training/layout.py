"""What the network must know of a table: where each field's numbers lie and how they spread."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nelbo.records import Batch
from nelbo.schema import Column, Schema
from nelbo.structs import MISSING

Codes = NDArray[np.int64]

# Beyond this many robust standard deviations the transform is logarithmic. At 1 it bends ordinary values and
# costs quality (kNN on AI4I, AUROC .824 -> .761); with none, squares overflow and heavy tails rule.
BEND = 5.0
FURTHEST = 1e30  # |u| is clipped here, in double, before float32 takes over

# Below this share of a unit of spread no numeric field is believed to be predictable. A decoder that restores fitted
# records to a thousandth does not restore fresh ones so, and float32 noise is divided by the scale. On 29 tables
# average precision was .660, .668, .666, .658 at 0.01, 0.05, 0.1, 0.2.
MIN_SCALE = 0.05


@dataclass(frozen=True)
class Layout:
    """The table's fields as columns of the network's arrays.

    A numeric field is one feature. A timestamp is four: sine and cosine of the hour and of the weekday.

    Attributes:
        schema: with `fields` in the order of the mask.
        location: shape (n_numeric,), float64, in the field's unit.
        scale: shape (n_numeric,), float64, one robust standard deviation, in the field's unit.
        centre: shape (n_numeric,), mean of the transformed values.
        width: shape (n_numeric,), standard deviation of the transformed values.
        unseen: shape (n_coded,), probability that a fresh record has a category which no record here has.
    """

    schema: Schema
    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    unseen: NDArray[np.float64]

    @property
    def numeric(self) -> list[int]:
        """Columns of `Batch.numbers` that are numeric, not timestamps."""
        return [j for j, column in enumerate(self.schema.numbers) if column.kind == "numeric"]

    @property
    def timestamps(self) -> list[int]:
        """Columns of `Batch.numbers` that are timestamps."""
        return [j for j, column in enumerate(self.schema.numbers) if column.kind == "timestamp"]

    @property
    def feature_owner(self) -> list[int]:
        """For each numeric feature, the column of `Batch.numbers` that it comes from."""
        return self.numeric + [j for j in self.timestamps for _ in range(4)]

    @property
    def n_codes(self) -> list[int]:
        """Codes of each coded field."""
        return [column.n_codes for column in self.schema.codes]

    @property
    def n_features(self) -> int:
        """Numeric features, those of timestamps included."""
        return len(self.feature_owner)


def lay_out(schema: Schema, batch: Batch) -> Layout:
    """The layout of a table, from the records that the model is fitted on."""
    numeric = [(j, column) for j, column in enumerate(schema.numbers) if column.kind == "numeric"]
    present, beside = [], []  # beside its spike, if a field has one: else half of the values would say how all spread
    for j, column in numeric:
        values = batch.numbers[:, j]
        values = values[np.isfinite(values)]
        present.append(values if values.size else np.zeros(1))
        others = values if column.spike is None else values[values != column.spike]
        beside.append(others if others.size else np.zeros(1))
    location = np.array([np.median(values) for values in beside])
    scale = np.array([_robust_spread(values) for values in beside])
    with np.errstate(over="ignore"):  # what overflows is clipped
        units = [np.clip((v - m) / s, -FURTHEST, FURTHEST) for v, m, s in zip(present, location, scale, strict=True)]
    bent = [bend(u) for u in units]
    width = np.array([max(float(np.std(values)), 1e-3) for values in bent])
    return Layout(
        schema=schema,
        location=location,
        scale=scale,
        centre=np.array([float(np.mean(values)) for values in bent]),
        width=width,
        unseen=np.array([_unseen_probability(column, batch.codes[:, j]) for j, column in enumerate(schema.codes)]),
    )


def _unseen_probability(column: Column, codes: Codes) -> float:
    """How likely the next record's category is one that none of these has: the share of those that were seen once.

    Rare categories share a code; of r of them in m records, r²/m are taken to have been seen once. Half a category is
    added, so that nothing is impossible.

    Source: Good, The population frequencies of species and the estimation of population parameters, Biometrika 1953.
    """
    n_rare, n_records = len(column.rare), int((codes == column.rare_code).sum())
    n_once = min(n_rare, n_records, n_rare**2 / max(1, n_records))
    return float(n_once + 0.5) / float((codes != MISSING).sum() + 1)


def bend(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear over the bulk, logarithmic beyond: 3e38 stays further out than 1e3, and neither overflows.

    >>> bend(np.array([-2.0, 5.0, 5.0 * np.e]))
    array([-2.,  5., 10.])
    """
    size = np.abs(u)
    return np.where(size <= BEND, u, np.sign(u) * BEND * (1 + np.log(np.maximum(size, BEND) / BEND)))


def _robust_spread(values: NDArray[np.float64]) -> float:
    """A standard deviation that a few wild values do not move; positive, and small enough to be squared."""
    tame = np.clip(values, -1e150, 1e150)
    low, high, lowest, highest = np.quantile(tame, [0.25, 0.75, 0.005, 0.995])
    candidates = [
        float(high - low) / 1.349,  # the interquartile range of a standard normal
        float(np.std(np.clip(tame, lowest, highest))),
        float(np.std(tame)),
        abs(float(tame[0])),
        1.0,
    ]
    return next(spread for spread in candidates if spread > 1e-290)
