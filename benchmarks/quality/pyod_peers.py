"""Detectors of PyOD, with its defaults; there only where it is installed (`pip install 'nelbo[pyod]'`)."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Scores = NDArray[np.float64]

_NEEDED = ("pyod", "tqdm")  # PyOD's VAE imports tqdm without asking for it


def missing_libraries() -> list[str]:
    """Which of the libraries that these detectors need are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def _scored(model: Any, train: Matrix) -> Callable[[Matrix], Scores]:
    model.fit(train)
    return lambda test: np.asarray(model.decision_function(test), dtype=np.float64)


def _ecod(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    del seed
    from pyod.models.ecod import ECOD  # noqa: PLC0415  # optional

    return _scored(ECOD(), train)


def _auto_encoder(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    from pyod.models.auto_encoder import AutoEncoder  # noqa: PLC0415  # optional

    return _scored(AutoEncoder(random_state=seed, verbose=0), train)


def _vae(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    from pyod.models.vae import VAE  # noqa: PLC0415  # optional

    return _scored(VAE(random_state=seed, verbose=0), train)


FITS: dict[str, Callable[[Matrix, int], Callable[[Matrix], Scores]]] = {
    "PyOD ECOD": _ecod,
    "PyOD AutoEncoder": _auto_encoder,
    "PyOD VAE": _vae,
}
