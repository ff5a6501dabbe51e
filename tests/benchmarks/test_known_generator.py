import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from benchmarks.false_alarms import Seed
from benchmarks.known_generator import PROMISES, Promise, done, main, outcome, source


def seeds(n_flagged: Sequence[int], k: int = 10) -> list[Seed]:
    return [Seed(seed, n_held_out=1000, n_flagged=n, n_calibration=999, k=k) for seed, n in enumerate(n_flagged)]


def test_source_has_what_it_says() -> None:
    table = source(20_000, np.random.default_rng(0))
    torque, line = table["torque"].combine_chunks(), table["line"].to_numpy(zero_copy_only=False)
    by_line = {
        name: pc.mean(torque.filter(pc.equal(table["line"].combine_chunks(), name))).as_py() for name in set(line)
    }
    assert by_line == pytest.approx({"north": 40.0, "south": 44.0, "west": 50.0}, abs=0.3)
    assert table["x5"].null_count / 20_000 == pytest.approx(0.05, abs=0.01)
    assert torque.null_count / 20_000 == pytest.approx(0.2 * 0.2, abs=0.01)
    delay = table["delay"].to_numpy()
    assert np.abs(delay).max() > 10 * delay.std()
    numbers = np.column_stack([table[f"x{j}"].to_numpy() for j in range(5)])
    assert np.abs(np.corrcoef(numbers.T) - np.eye(5)).max() > 0.7


def test_records_of_one_source_are_those_of_their_generator() -> None:
    assert source(50, np.random.default_rng(1)).equals(source(50, np.random.default_rng(1)))
    assert not source(50, np.random.default_rng(1)).equals(source(50, np.random.default_rng(2)))


def test_default_calibration_set_carries_every_promise() -> None:
    assert [promise.k(2999) for promise in PROMISES[:3]] == [150, 30, 3]
    assert [promise.k(2301) > 0 for promise in PROMISES] == [True, True, True, True, True, False]
    assert all(promise.k(2302) for promise in PROMISES)


def test_rate_holds_within_three_standard_errors_of_all_runs_together() -> None:
    # Of one run: m·p·(1 − p)·(m + n + 1)/(n + 2) with p = 0.01, m = 1000, n = 999; of twenty: 19.9 records.
    even = seeds([10] * 20)
    error = (20 * 1000 * 0.01 * 0.99 * 2000 / 1001) ** 0.5
    assert outcome(Promise(0.01), even).pooled.standard_error == pytest.approx(error / 20_000)
    assert outcome(Promise(0.01), seeds([10] * 19 + [10 + int(3 * error)])).holds
    assert not outcome(Promise(0.01), seeds([10] * 19 + [11 + int(3 * error)])).holds
    assert not outcome(Promise(0.01), seeds([7] * 20)).holds


@pytest.mark.parametrize(("n_above", "holds"), [(4, True), (5, False)])
def test_with_a_confidence_runs_above_the_rate_are_counted(n_above: int, holds: bool) -> None:
    """At 0.9 a tenth of 20 runs and two standard errors of 0.067 are 4.7 runs."""
    found = outcome(Promise(0.01, 0.9), seeds([11] * n_above + [10] * (20 - n_above), k=6))
    assert (found.n_above, found.holds) == (n_above, holds)
    assert found.most_above == pytest.approx(0.1 + 2 * (0.09 / 20) ** 0.5)


def test_expected_share_of_runs_above_is_that_of_beta_binomial_counts() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(1000, rng.beta(6, 994, 200_000))
    assert outcome(Promise(0.01, 0.9), seeds([6], k=6)).expected_above == pytest.approx((counts > 10).mean(), abs=0.005)


def test_seeds_of_another_run_are_not_resumed_from(tmp_path: Path) -> None:
    line = {"seed": 3, "n_held_out": 10, "n_flagged": 1, "n_calibration": 99, "k": 1}
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"run": "a", "seed": 3, "promises": [line]}) + "\n")
    assert done(path, "a") == {3: [Seed(**line)]}
    assert done(path, "b") == {}


def test_rates_hold_among_fresh_records_and_a_run_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two fits; of the two rates in three standard errors, one fails by chance once in some 200 choices of seeds."""
    (tmp_path / "quick.toml").write_text("steps = 50\nencoder = [8]\ndecoder = [8]\nn_exemplars = 64\n")
    options = ["--seeds", "2", "--records", "2990", "--fresh", "4000", "--config", str(tmp_path / "quick.toml")]
    assert main(options, tmp_path) == 0
    found = json.loads((tmp_path / "known_generator.json").read_text())
    asked = [(one["promise"]["rate"], one["promise"]["confidence"]) for one in found["promises"]]
    assert asked == [(0.05, None), (0.01, None), (0.05, 0.9), (0.01, 0.9)]
    assert [one["seeds"][0]["k"] for one in found["promises"]][:2] == [15, 3]
    assert all(one["holds"] and one["seeds"][0]["n_calibration"] == 299 for one in found["promises"])
    page = (tmp_path / "known_generator.md").read_text()
    assert "0.1 % needs 999 calibration records and was not measured." in page
    assert str(tmp_path) not in page
    monkeypatch.setattr("benchmarks.known_generator.measure", None)  # a second fit would call it
    before = capsys.readouterr().out
    assert main(options, tmp_path) == 0
    assert capsys.readouterr().out == before
