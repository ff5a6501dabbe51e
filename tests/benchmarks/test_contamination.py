"""Anomalies planted among training records, and the list that is to find them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import contamination
from benchmarks.contamination import contaminated, main, with_wrong_values
from benchmarks.quality.protocol import Dataset
from tests.fits import QUICK
from training.pipeline import Outcome, Request, run


def dataset(n: int = 400, n_odd: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(n, 3)), rng.normal(6, 3, size=(n_odd, 3))])
    # The fourth column tells each record from the others.
    x = np.column_stack([x, np.arange(n + n_odd)])
    return Dataset("made", pa.table({f"x{j}": x[:, j] for j in range(4)}), np.arange(n + n_odd) >= n)


@pytest.mark.parametrize(("share", "n_planted"), [(0.01, 2), (0.05, 11), (0.5, 20)])
def test_share_of_the_training_records_is_planted_and_at_most_half_of_the_anomalies(
    share: float, n_planted: int
) -> None:
    records = contaminated(dataset(), share, seed=0)
    assert (len(records.is_planted), int(records.is_planted.sum())) == (200 + n_planted, n_planted)
    np.testing.assert_array_equal(records.is_planted, records.train["x3"].to_numpy() >= 400)
    np.testing.assert_array_equal(records.is_anomaly, records.test["x3"].to_numpy() >= 400)


def test_no_record_is_trained_on_and_ranked_and_every_share_has_one_test() -> None:
    few, many = (contaminated(dataset(), share, seed=0) for share in (0.01, 0.05))
    assert few.test.equals(many.test)
    assert not set(many.train["x3"].to_pylist()) & set(many.test["x3"].to_pylist())


def test_wrong_value_is_one_number_of_a_normal_record_eight_deviations_off() -> None:
    made = dataset()
    records, normal = with_wrong_values(made, 0.05, seed=0), contaminated(made, 0.05, seed=0)
    before = normal.train.filter(pa.array(~normal.is_planted))
    changed = np.array([(records.train[name].to_numpy() != before[name].to_numpy()) for name in before.column_names])
    assert (int(records.is_planted.sum()), len(records.is_planted)) == (10, 200)
    assert changed.sum(axis=0).tolist() == records.is_planted.astype(int).tolist()


def test_run_writes_what_was_found_beside_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def quick(request: Request) -> Outcome:
        return run(Request(request.table, request.name, request.models, config=QUICK, exclude=request.exclude))

    monkeypatch.setattr(contamination, "run", quick)  # a fit by default takes minutes in all
    made = dataset()
    x = np.column_stack([made.fields[f"x{j}"].to_numpy() for j in range(3)])
    np.savez(tmp_path / "made.npz", X=x, y=made.is_anomaly.astype(int))
    assert main(["--data", str(tmp_path / "made.npz"), "--shares", "0.05"], tmp_path) == 0
    found = json.loads((tmp_path / "contamination.json").read_text())["found"]
    assert [(one["kind"], one["n_train"], one["n_planted"]) for one in found] == [
        ("wrong values", 200, 2),
        ("anomalies", 211, 11),
    ]
    assert found[1]["found"] > 0.5
    assert found[1]["n_excluded"] <= 11
    assert found[0]["auroc_clean"] is None
    page = (tmp_path / "contamination.md").read_text()
    assert "| made | anomalies | 11 of 211 |" in page
    assert "5.2% at random" in page
    assert str(tmp_path) not in page
