"""How well a bundle tells labelled anomalies from normal records."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nelbo.calibration import STATISTICS, Scores, StatisticName
from nelbo.decision import Decision
from nelbo.errors import TableError
from nelbo.scoring import upward
from nelbo.segments import Numbers


class StatisticQuality(TypedDict):
    """One statistic's quality.

    Keys:
        auroc, average_precision: over all thresholds.
        f1: where as many records are taken as there are anomalies.
        realised_rate: share of normal records beyond the threshold.
        power: share of anomalies beyond it.
    """

    auroc: float
    average_precision: float
    f1: float
    realised_rate: float
    power: float


class Evaluation(TypedDict):
    """The quality of all three statistics at one rate."""

    n: int
    n_anomalies: int
    rate: float
    statistics: dict[StatisticName, StatisticQuality]


def evaluate(
    statistics: Mapping[StatisticName, Scores], decision: Decision, segments: Numbers, is_anomaly: NDArray[np.bool_]
) -> Evaluation:
    """The quality of scored records against their labels.

    Args:
        statistics: of n records, each shape (n,), as the scorer gives them.
        decision: of the same bundle's decider.
        segments: shape (n,), of which each record is, as `Scored.segments`.
        is_anomaly: shape (n,).

    Raises:
        TableError: there are no anomalies, or nothing else.
    """
    if is_anomaly.all() or not is_anomaly.any():
        only = "anomalies" if is_anomaly.all() else "normal records"
        raise TableError(f"an evaluation needs normal records and anomalies; all {len(is_anomaly)} records are {only}")
    qualities: dict[StatisticName, StatisticQuality] = {}
    for name in STATISTICS:
        scores = upward(name, statistics[name])
        beyond = scores > decision.threshold(name, segments)
        qualities[name] = _quality(scores, beyond, is_anomaly)
    return Evaluation(
        n=len(is_anomaly),
        n_anomalies=int(is_anomaly.sum()),
        rate=decision.rate,
        statistics=qualities,
    )


def _quality(scores: Scores, beyond: NDArray[np.bool_], is_anomaly: NDArray[np.bool_]) -> StatisticQuality:
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415  # heavy; only here

    return StatisticQuality(
        auroc=float(roc_auc_score(is_anomaly, scores)),
        average_precision=float(average_precision_score(is_anomaly, scores)),
        f1=f1_at_k(scores, is_anomaly),
        realised_rate=float(beyond[~is_anomaly].mean()),
        power=float(beyond[is_anomaly].mean()),
    )


def f1_at_k(scores: Scores, is_anomaly: NDArray[np.bool_]) -> float:
    """F1 where the k highest scores are taken, k = number of anomalies; records tied at the cut share their hits.

    >>> f1_at_k(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False]))
    0.5
    """
    k = int(is_anomaly.sum())
    cut = np.sort(scores)[-k]
    above, tied = scores > cut, scores == cut
    hits = is_anomaly[above].sum() + (k - above.sum()) * is_anomaly[tied].mean()
    return float(hits / k)
