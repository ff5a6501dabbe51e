"""What is compared: each takes the two halves of a table and says how odd the test rows are."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from benchmarks.quality import pyod_peers
from benchmarks.quality.protocol import Halves
from nelbo.bundle import Bundle
from nelbo.calibration import STATISTICS
from nelbo.errors import TableError
from nelbo.records import Batch
from nelbo.scoring import Scorer, upward
from nelbo.tables import open_table, read_batches
from training.config import Config
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


Detector = Callable[[Halves, int], Ranking]
Fit = Callable[[Matrix, int], Callable[[Matrix], Scores]]


def nelbo(halves: Halves, seed: int, config: Config | None = None, schema: Path | None = None) -> Ranking:
    """`nelbo fit`, through the exported bundle and the ONNX scorer; a name for each statistic.

    Args:
        halves: to fit and to score.
        seed: of the fit.
        config: of the fit; None for the default.
        schema: path of one; None infers it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test = folder / "test.parquet"
        pq.write_table(halves.test, test)
        start = time.perf_counter()
        bundle = fitted(halves.train, folder, seed, config, schema)
        done_fitting = time.perf_counter()
        scores = statistics_of(Scorer(bundle), test)
        done = time.perf_counter()
    return Ranking(scores, done_fitting - start, done - done_fitting)


def fitted(
    normal: pa.Table, folder: Path, seed: int, config: Config | None = None, schema: Path | None = None
) -> Bundle:
    """The bundle that a fit of normal records leaves in a folder's store."""
    train = folder / "train.parquet"
    pq.write_table(normal, train)
    request = Request(train, "quality", folder / "models", schema=schema, config=config or Config(), seed=seed)
    return run(request).bundle


def statistics_of(scorer: Scorer, table: Path) -> dict[str, Scores]:
    """Each statistic of a file's records, higher = more anomalous, as `nelbo:score` and so on."""
    parts = [scorer.score(batch) for batch in batches(scorer, table)]
    return {
        f"nelbo:{name}": np.concatenate([upward(name, part.statistics[name]) for part in parts]) for name in STATISTICS
    }


def batches(scorer: Scorer, table: Path) -> list[Batch]:
    """The records of a file; one that cannot be read is an error."""
    found = list(read_batches(open_table(table), scorer.decoder, 8192))
    errors = [error for batch in found for error in batch.errors]
    if errors:  # without it, the scores of the others would stand beside the wrong labels
        raise TableError(str(errors[0]))
    return found


def _peer(name: str, fit: Fit) -> Detector:
    """A detector of matrices: numbers standardised by the training half, categories one-hot."""

    def rank(halves: Halves, seed: int) -> Ranking:
        train, test = matrices(halves)
        start = time.perf_counter()
        score = fit(train, seed)
        done_fitting = time.perf_counter()
        scores = score(test)
        return Ranking({name: scores}, done_fitting - start, time.perf_counter() - done_fitting)

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


PEERS: dict[str, Detector] = {
    name: _peer(name, fit)
    for name, fit in {
        "DTE-NP": _dte_np,
        "kNN": _knn,
        "LOF": _lof,
        "GMM": _gmm,
        "IForest": _isolation_forest,
        "PCA": _pca,
    }.items()
}
PYOD_PEERS: dict[str, Detector] = {name: _peer(name, fit) for name, fit in pyod_peers.FITS.items()}


def offered() -> list[str]:
    """The detectors that can run here, ours first; PyOD's where it is installed."""
    return ["nelbo", *PEERS, *(PYOD_PEERS if not pyod_peers.missing_libraries() else ())]


def detectors(names: Sequence[str], config: Config | None = None) -> dict[str, Detector]:
    """Detectors by name.

    Args:
        names: of them.
        config: of our own fit.

    Raises:
        TableError: there is none of that name, or its library is not installed.
    """
    known: dict[str, Detector] = {"nelbo": partial(nelbo, config=config), **PEERS, **PYOD_PEERS}
    for name in names:
        if name not in known:
            raise TableError(f"there is no detector '{name}', only {', '.join(known)}")
        missing = pyod_peers.missing_libraries() if name in PYOD_PEERS else []
        if missing:
            raise TableError(f"detector '{name}' needs {' and '.join(missing)}: pip install 'nelbo[pyod]'")
    return {name: known[name] for name in names}
