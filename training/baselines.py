"""What usual detectors say of the same records: a model that loses to them should be known to."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from nelbo.calibration import Scores
from nelbo.records import Batch, take
from nelbo.structs import MISSING
from training.layout import Layout, bend

MAX_FIT = 10_000  # records to fit on: neighbours of 10,000 queries among them take seconds; chosen
_N_NEIGHBOURS = 5  # DTE-NP and most benchmarks of tables use 5
_KEPT_VARIANCE = 0.9  # by the components of the PCA; chosen
_MOST_CATEGORIES = 128  # columns of one field; the seldom ones beyond share one. Chosen, for memory
_DAY_S, _WEEK_S = 86_400.0, 604_800.0

Features = NDArray[np.float32]


def encoded(layout: Layout, batch: Batch) -> Features:
    """Records as points, in which a distance means something.

    Numbers in robust standard deviations, bent beyond 5 of them like the model's own input; the median for a
    missing one, and a mark; timestamps as sine and cosine of hour and weekday; categories one-hot by √½, so that
    two of them lie 1 apart.

    Args:
        layout: of the records to fit on.
        batch: n records.

    Returns:
        Shape (n, n_columns).
    """
    numbers = batch.numbers[:, layout.numeric]
    missing = np.isnan(numbers)
    with np.errstate(over="ignore"):
        units = np.where(missing, 0.0, (numbers - layout.location) / layout.scale)
    columns = [bend(np.clip(units, -1e30, 1e30)), np.where(missing, np.sqrt(0.5), 0.0)]
    columns += [_cyclic(batch.numbers[:, j]) for j in layout.timestamps]
    columns += [_one_hot(batch.codes[:, j], n) * np.sqrt(0.5) for j, n in enumerate(layout.n_codes)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _cyclic(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    phases = [2 * np.pi * np.mod(seconds, period) / period for period in (_DAY_S, _WEEK_S)]
    stacked = np.stack([f(phase) for phase in phases for f in (np.sin, np.cos)], axis=1)
    return np.asarray(np.nan_to_num(stacked), dtype=np.float64)


def _one_hot(codes: NDArray[np.int64], n_codes: int) -> NDArray[np.float64]:
    """The last column is "unseen"; missing is no column at all."""
    width = min(n_codes, _MOST_CATEGORIES)
    columns = np.where(codes == n_codes - 1, width - 1, np.minimum(codes, width - 2))
    return np.asarray((columns[:, None] == np.arange(width)) & (codes != MISSING)[:, None], dtype=np.float64)


# --- detectors: points to fit on and points to score in, scores out; higher = more anomalous -----------


def isolation_forest(known: Features, queries: Features, seed: int) -> Scores:
    """How early random cuts part a point from the others (100 trees of 256 points)."""
    forest = IsolationForest(random_state=seed).fit(known)
    return np.asarray(-forest.score_samples(queries), dtype=np.float64)


def nearest_neighbours(known: Features, queries: Features, seed: int) -> Scores:  # noqa: ARG001  # as the others
    """Distance to the fifth neighbour."""
    neighbours = NearestNeighbors(n_neighbors=min(_N_NEIGHBOURS, len(known))).fit(known)
    return np.asarray(neighbours.kneighbors(queries)[0][:, -1], dtype=np.float64)


def principal_components(known: Features, queries: Features, seed: int) -> Scores:  # noqa: ARG001  # as the others
    """Squared distance to the plane of the components that keep 90 % of the variance, never all of them."""
    pca = PCA(svd_solver="full").fit(known)
    enough = int(np.searchsorted(np.cumsum(pca.explained_variance_ratio_), _KEPT_VARIANCE)) + 1
    components = pca.components_[: min(enough, known.shape[1] - 1)]
    centred = queries - pca.mean_
    residual = centred - centred @ components.T @ components
    return np.asarray((residual.astype(np.float64) ** 2).sum(axis=1))


BASELINES: dict[str, Callable[[Features, Features, int], Scores]] = {
    "Isolation Forest": isolation_forest,
    "kNN": nearest_neighbours,
    "PCA": principal_components,
}


def baseline_scores(layout: Layout, fit_part: Batch, queries: Batch, seed: int) -> dict[str, Scores]:
    """Scores of every baseline, fitted on up to 10,000 of the records that the model was fitted on.

    Args:
        layout: of `fit_part`.
        fit_part: what the model was fitted on.
        queries: n records to score.
        seed: of the sample and the forest.

    Returns:
        Of each baseline, shape (n,), higher = more anomalous.
    """
    rows = np.sort(np.random.default_rng([seed, 11]).permutation(len(fit_part))[:MAX_FIT])
    known, points = encoded(layout, take(fit_part, rows)), encoded(layout, queries)
    # Most marks of missing values and "unseen" columns never move; without them a distance costs half.
    moving = np.flatnonzero((known != known[:1]).any(axis=0) | (points != known[:1]).any(axis=0))
    if moving.size == 0:
        moving = np.zeros(1, dtype=np.intp)
    return {name: detect(known[:, moving], points[:, moving], seed) for name, detect in BASELINES.items()}
