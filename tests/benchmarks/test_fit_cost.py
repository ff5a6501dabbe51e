import json
import os
import time
from pathlib import Path

import pytest

from benchmarks.fit_cost import correlated_table, main, median_us, one_core


def test_the_clock_starts_after_the_warm_up() -> None:
    calls = iter([0.05, 0.05, 0.001, 0.002, 0.003])
    found = median_us(lambda: time.sleep(next(calls)), n=3, warm_up=2)
    assert 2_000 <= found < 40_000


def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_other_records_follow_the_same_law() -> None:
    one, other = (correlated_table(2_000, seed) for seed in (0, 1))
    assert not one.equals(other)
    for name in one.column_names:
        assert other[name].to_numpy().std() == pytest.approx(one[name].to_numpy().std(), rel=0.1)


def test_two_fits_of_one_seed_agree_and_their_cost_is_written_down(tmp_path: Path) -> None:
    (tmp_path / "quick.toml").write_text("steps = 10\nencoder = [8]\ndecoder = [8]\n")
    options = ["--records", "300", "--calls", "20", "--repeat", "--config", str(tmp_path / "quick.toml")]
    assert main(options, tmp_path) == 0
    figures = json.loads((tmp_path / "fit_cost.json").read_text())["figures"]
    assert figures["bundle_kb"] > figures["score_onnx_kb"] > 10
    assert figures["score_us"] > figures["bare_run_us"] > 0
    assert figures["difference, nelbo:score"] == 0
