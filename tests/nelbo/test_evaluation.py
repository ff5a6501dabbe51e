import numpy as np
import pytest

from nelbo.calibration import STATISTICS
from nelbo.errors import TableError
from nelbo.evaluation import evaluate, f1_at_k
from nelbo.scoring import Scorer
from nelbo.segments import ALL
from tests.bundles import normal_records, odd_record, tiny_scorer


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


def test_quality_is_that_of_the_ranking_and_of_the_rate(scorer: Scorer) -> None:
    n = 40
    scored = scorer.score(scorer.decoder.objects([*normal_records(n, seed=4), odd_record(), odd_record(rpm=None)]))
    is_anomaly = np.arange(n + 2) >= n
    found = evaluate(scored.statistics, scored.decision, scored.segments, is_anomaly)
    assert (found["n"], found["n_anomalies"], found["rate"]) == (42, 2, 0.05)
    assert list(found["statistics"]) == list(STATISTICS)
    for name in STATISTICS:
        quality = found["statistics"][name]
        assert (quality["auroc"], quality["average_precision"], quality["f1"], quality["power"]) == (1.0, 1.0, 1.0, 1.0)
    realised = found["statistics"]["score"]["realised_rate"]
    assert realised == pytest.approx(scored.flagged[:n].sum() / n)


def test_elbo_ranks_from_below(scorer: Scorer) -> None:
    statistics = dict.fromkeys(STATISTICS, np.array([-1.0, -2.0, -9.0]))
    found = evaluate(statistics, scorer.decider.decide(), np.full(3, ALL), np.array([False, False, True]))
    assert found["statistics"]["elbo"]["auroc"] == 1.0
    assert found["statistics"]["reconstruction_error"]["auroc"] == 0.0


@pytest.mark.parametrize(("label", "only"), [(True, "anomalies"), (False, "normal records")])
def test_records_of_one_kind_cannot_be_evaluated(scorer: Scorer, label: bool, only: str) -> None:
    statistics = dict.fromkeys(STATISTICS, np.array([1.0, 2.0]))
    with pytest.raises(TableError) as info:
        evaluate(statistics, scorer.decider.decide(), np.full(2, ALL), np.array([label, label]))
    assert str(info.value) == f"an evaluation needs normal records and anomalies; all 2 records are {only}"


def test_f1_shares_the_hits_of_records_tied_at_the_cut() -> None:
    anomalies = np.array([True, False, True, False])
    assert f1_at_k(np.array([4.0, 3.0, 2.0, 1.0]), anomalies) == 0.5
    assert f1_at_k(np.array([4.0, 3.0, 3.0, 1.0]), anomalies) == 0.75  # one hit, and half of the next place
    assert f1_at_k(np.zeros(4), anomalies) == 0.5
