"""Synthetic records of 30 numeric fields: correlated, as real ones are, and the same for every run."""

import numpy as np
from numpy.typing import NDArray

N_FIELDS, _N_FACTORS = 30, 5
FIELDS = [f"feature_{j:02d}" for j in range(N_FIELDS)]
_NOISE = 0.5  # standard deviation of what a field does not share with the others; chosen
_DIGITS = 6  # significant ones: longer numbers cost every decoder more

Matrix = NDArray[np.float64]


def draw(n: int, seed: int) -> Matrix:
    """Records of one and the same factor model, each field with variance 1.

    Args:
        n: how many.
        seed: of these records; the model itself has its own.

    Returns:
        Shape (n, 30), with six significant digits.
    """
    loadings = np.random.default_rng(0).normal(size=(_N_FACTORS, N_FIELDS))
    loadings /= np.linalg.norm(loadings, axis=0)
    rng = np.random.default_rng([1, seed])
    factors, noise = rng.normal(size=(n, _N_FACTORS)), rng.normal(size=(n, N_FIELDS))
    records = np.sqrt(1 - _NOISE**2) * factors @ loadings + _NOISE * noise
    return np.array([[float(f"{value:.{_DIGITS}g}") for value in record] for record in records])
