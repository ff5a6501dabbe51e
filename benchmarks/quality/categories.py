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
    """Both halves with a random half of their columns cut into categories, by what the training half shows.

    A column is cut into categories of equal frequency, or of equal width, where far values are rare categories or
    unseen ones; which, is drawn.

    Args:
        halves: of a table of numbers.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 31])
    train, test = halves.train, halves.test
    for j in rng.permutation(train.num_columns)[: max(1, train.num_columns // 2)].tolist():
        known, fresh = (half.column(j).cast(pa.float64()).to_numpy() for half in (train, test))
        name, names = train.column_names[j], _names(known, rng)
        train = train.set_column(j, name, pa.array(names(known).tolist(), pa.string()))
        test = test.set_column(j, name, pa.array(names(fresh).tolist(), pa.string()))
    return replace(halves, train=train, test=test)


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
