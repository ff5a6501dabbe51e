import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.agreement import largest_difference
from benchmarks.drift import CHANGES, Alarm, figures, limits
from benchmarks.false_alarms import Pooled, Seed, done, main, pooled
from tests.fits import numeric_table, write_csv


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a label, and quick settings beside it."""
    folder = tmp_path_factory.mktemp("benchmarks")
    table = numeric_table(500)
    table = table.append_column("label", [["odd" if i % 10 == 0 else "normal" for i in range(500)]])
    (folder / "quick.toml").write_text("steps = 50\nencoder = [8]\ndecoder = [8]\n")
    return write_csv(table, folder / "pumps.csv")


def run(table: Path, results: Path) -> int:
    options = ["--label", "label", "--normal", "normal", "--seeds", "1", "--rate", "0.1"]
    return main([str(table), *options, "--config", str(table.with_name("quick.toml"))], results)


def test_a_run_leaves_its_figures_with_the_machine_and_is_not_repeated(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(labelled, tmp_path) in (0, 1)
    found = json.loads((tmp_path / "false_alarms_pumps.json").read_text())
    seed = Seed(**found["seeds"][0])
    # 450 normal records: 90 are held out, 360 are left, a tenth of which calibrates.
    assert (seed.n_held_out, seed.n_calibration, seed.k) == (90, 36, 3)
    assert {"date", "processor", "cores"} <= set(found["machine"])
    assert "Pooled over 1 seeds" in (tmp_path / "false_alarms_pumps.md").read_text()
    monkeypatch.setattr("benchmarks.false_alarms.measure", None)  # a second fit would call it
    before = capsys.readouterr().out
    run(labelled, tmp_path)
    assert capsys.readouterr().out == before


def test_seeds_of_another_run_are_not_resumed_from(tmp_path: Path) -> None:
    line = {"seed": 3, "n_held_out": 10, "n_flagged": 1, "n_calibration": 99, "k": 1}
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"run": "a", "seed": line}) + "\n")
    assert done(path, "a") == {3: Seed(**line)}
    assert done(path, "b") == {}


def test_the_error_of_a_seed_is_that_of_a_beta_binomial_count() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(200, rng.beta(5, 95, 200_000))
    seed = Seed(0, n_held_out=200, n_flagged=0, n_calibration=99, k=5)
    assert seed.n_held_out * seed.expected == pytest.approx(counts.mean(), rel=0.01)
    assert seed.variance == pytest.approx(counts.var(), rel=0.02)


def test_a_rate_far_from_its_expectation_does_not_hold() -> None:
    even = pooled([Seed(seed, n_held_out=1000, n_flagged=10, n_calibration=999, k=10) for seed in range(20)])
    assert even.holds
    assert not Pooled(even.expected + 3.1 * even.standard_error, even.expected, even.standard_error).holds


def test_a_difference_is_relative_above_1_and_absolute_below() -> None:
    found = largest_difference(np.array([[200.0, 0.5]]), np.array([[100.0, 0.25]]))
    assert found.tolist() == [0.5, 0.25]


def test_limits_of_a_share_are_clopper_and_pearsons() -> None:
    # Without an alarm: (1 − high)ⁿ = 2.5 %, the "rule of three".
    assert limits(0, 200) == pytest.approx((0.0, 1 - 0.025 ** (1 / 200)))
    assert limits(200, 200) == pytest.approx((0.025 ** (1 / 200), 1.0))


def test_figures_of_drift_count_alarms_and_take_what_was_not_found_as_last() -> None:
    none = [Alarm(0, 0, "stale", 250, "x"), *(Alarm(0, i, "fresh", None, "") for i in range(1, 4))]
    changed = {
        name: [
            Alarm(0, 0, "drifting", 100, f"field '{field}' has changed most: …"),
            Alarm(0, 1, "stale", 300, "field 'x9' has changed most: …"),
            Alarm(0, 2, "fresh", None, ""),
        ]
        for name, (_, field) in CHANGES.items()
    }
    found = figures({"none": none, **changed})
    assert (found["none"]["alarms"], found["none"]["share"]) == (1, 0.25)
    for name in CHANGES:
        assert found[name] == {
            "streams": 3,
            "found": pytest.approx(2 / 3),
            "median_delay": 300.0,
            "delay_95": float("inf"),
            "named_first": pytest.approx(1 / 3),
        }
