"""Numeric tables as mixed ones: half of their columns become categories, with the labels that they have."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.quality.protocol import Halves

Numbers = NDArray[np.float64]
Names = Callable[[Numbers], NDArray[np.str_]]

_FEW = 8  # distinct numbers of a column that become its categories as they are; chosen
_FEWEST, _MOST = 4, 12  # categories that a column with more of them is cut into; chosen
_BULK = (0.005, 0.995)  # quantiles between which categories of equal width lie; beyond, they go on and are rare


def with_categories(halves: Halves, seed: int) -> Halves:
    """Both halves with a random half of their numbers cut into categories, by what the training half shows.

    A missing value stays missing. A column is cut into categories of equal frequency, or of equal width, where far
    values are rare categories or unseen ones; which, is drawn.

    Args:
        halves: of a table with numbers.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 31])
    train, test = halves.train, halves.test
    kinds = (pa.types.is_floating, pa.types.is_integer)
    numbers = [j for j, field in enumerate(train.schema) if any(is_kind(field.type) for is_kind in kinds)]
    for j in rng.permutation(numbers)[: max(1, len(numbers) // 2)].tolist():
        known = _numbers(train.column(j))
        names = _names(known[~np.isnan(known)], rng)
        name = train.column_names[j]
        train, test = (half.set_column(j, name, _named(half.column(j), names)) for half in (train, test))
    return replace(halves, train=train, test=test)


def _numbers(column: pa.ChunkedArray) -> Numbers:
    return np.asarray(column.cast(pa.float64()).to_numpy())


def _named(column: pa.ChunkedArray, names: Names) -> pa.Array:
    numbers = _numbers(column)
    is_missing = np.isnan(numbers)
    return pa.array(names(np.where(is_missing, 0.0, numbers)).tolist(), pa.string(), mask=is_missing)


def _names(known: Numbers, rng: np.random.Generator) -> Names:
    """What a number of a column is called."""
    if len(np.unique(known)) <= _FEW:
        return lambda numbers: np.char.add("is ", numbers.astype(str))
    n = int(rng.integers(_FEWEST, _MOST + 1))
    if rng.random() < 0.5:  # a fair coin
        edges = np.unique(np.quantile(known, np.linspace(0, 1, n + 1)[1:-1]))
        return lambda numbers: np.char.add("part ", np.searchsorted(edges, numbers).astype(str))
    low, high = np.quantile(known, _BULK)
    width = (high - low) / n or 1.0
    return lambda numbers: np.char.add("step ", np.clip((numbers - low) // width, -n, 2 * n).astype(int).astype(str))
