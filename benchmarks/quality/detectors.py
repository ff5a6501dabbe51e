"""What is compared: each takes the two halves of a table and says how odd the test rows are."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from benchmarks.quality.protocol import Halves
from nelbo.calibration import STATISTICS
from nelbo.records import RecordDecoder
from nelbo.scoring import Scorer, upward
from nelbo.tables import open_table, read_batches
from training.pipeline import Request, run

Scores = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """What a detector says, and how long it took.

    Attributes:
        scores: shape (n_test,), higher = more anomalous, by detector name.
        fit_s: seconds to fit, export and calibration included.
        score_s: seconds to score the test rows.
    """

    scores: dict[str, Scores]
    fit_s: float
    score_s: float


def nelbo(halves: Halves, seed: int) -> Ranking:
    """The default of `nelbo fit`, through the exported bundle and the ONNX scorer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(halves.train, folder / "train.parquet")
        pq.write_table(halves.test, folder / "test.parquet")
        start = time.perf_counter()
        outcome = run(Request(folder / "train.parquet", "quality", folder / "models", seed=seed))
        fitted = time.perf_counter()
        scorer = Scorer(outcome.bundle)
        decoder = RecordDecoder(scorer.schema)
        parts = [scorer.score(batch) for batch in read_batches(open_table(folder / "test.parquet"), decoder, 8192)]
        done = time.perf_counter()
    scores = {
        f"nelbo:{name}": np.concatenate([upward(name, part.statistics[name]) for part in parts]) for name in STATISTICS
    }
    return Ranking(scores, fitted - start, done - fitted)


def _peer(name: str, fit: Callable[[Matrix, int], Callable[[Matrix], Scores]]) -> Callable[[Halves, int], Ranking]:
    """A detector of matrices: numbers standardised by the training half, categories one-hot."""

    def rank(halves: Halves, seed: int) -> Ranking:
        train, test = matrices(halves)
        start = time.perf_counter()
        score = fit(train, seed)
        fitted = time.perf_counter()
        scores = score(test)
        return Ranking({name: scores}, fitted - start, time.perf_counter() - fitted)

    return rank


def matrices(halves: Halves) -> tuple[Matrix, Matrix]:
    """Both halves as matrices of the same columns."""
    pairs = [_columns(halves.train[name], halves.test[name]) for name in halves.train.column_names]
    return np.column_stack([train for train, _ in pairs]), np.column_stack([test for _, test in pairs])


def _columns(train: pa.ChunkedArray, test: pa.ChunkedArray) -> tuple[Matrix, Matrix]:
    if pa.types.is_string(train.type) or pa.types.is_boolean(train.type):
        known = sorted({str(value) for value in train.to_pylist()})
        hot = [
            np.array([[str(v) == k for k in known] for v in half.to_pylist()], dtype=float) for half in (train, test)
        ]
        return hot[0] / np.sqrt(2), hot[1] / np.sqrt(2)
    numbers = [half.cast(pa.float64()).to_numpy(zero_copy_only=False)[:, None] for half in (train, test)]
    middle, spread = np.nanmean(numbers[0]), np.nanstd(numbers[0]) or 1.0
    filled = [np.nan_to_num((half - middle) / spread) for half in numbers]
    return filled[0], filled[1]


def _neighbours(train: Matrix, k: int) -> Callable[[Matrix], Matrix]:
    index = NearestNeighbors(n_neighbors=min(k, len(train))).fit(train)
    return lambda test: np.asarray(index.kneighbors(test)[0])


def _knn(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    del seed
    distances = _neighbours(train, 5)
    return lambda test: distances(test)[:, -1]


def _dte_np(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    """Livernoche et al., On diffusion modeling for anomaly detection, ICLR 2024: the non-parametric form."""
    del seed
    distances = _neighbours(train, 5)
    return lambda test: np.mean(distances(test) ** 2, axis=1)


def _lof(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    del seed
    model = LocalOutlierFactor(n_neighbors=min(20, len(train) - 1), novelty=True).fit(train)
    return lambda test: -model.score_samples(test)


def _isolation_forest(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    model = IsolationForest(random_state=seed).fit(train)
    return lambda test: -model.score_samples(test)


def _pca(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    n = max(1, min(train.shape) // 2)
    model = PCA(n_components=n, random_state=seed).fit(train)
    return lambda test: np.sum((test - model.inverse_transform(model.transform(test))) ** 2, axis=1)


def _gmm(train: Matrix, seed: int) -> Callable[[Matrix], Scores]:
    n = max(1, min(8, len(train) // 50))
    model = GaussianMixture(n, covariance_type="full", reg_covar=1e-3, random_state=seed).fit(train)
    return lambda test: -model.score_samples(test)


DETECTORS: dict[str, Callable[[Halves, int], Ranking]] = {
    "nelbo": nelbo,
    "DTE-NP": _peer("DTE-NP", _dte_np),
    "kNN": _peer("kNN", _knn),
    "LOF": _peer("LOF", _lof),
    "GMM": _peer("GMM", _gmm),
    "IForest": _peer("IForest", _isolation_forest),
    "PCA": _peer("PCA", _pca),
}
