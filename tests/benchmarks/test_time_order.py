import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.time_order import Rate, band, drift_of, fitted, held_out, lag_1, main, n_effective, read_runs
from nelbo.errors import TableError
from nelbo.scoring import Scorer
from nelbo.tables import open_table, read_batches
from tests.commands import exit_code
from tests.fits import QUICK

START = datetime(2026, 1, 5)


def write_run(path: Path, n: int, day: int, seed: int, shift: float = 0.0, *, labelled: bool = True) -> None:
    """A run of four numbers of one cause, a record a second; the last twenty of a labelled one are anomalies."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, 4)) + shift
    lines = ["datetime;a;b;c;d" + ";anomaly;changepoint" * labelled]
    for i, values in enumerate(x.tolist()):
        label = f";{float(i >= n - 20)};0.0" * labelled
        lines.append(f"{START + timedelta(days=day, seconds=i)};" + ";".join(f"{v:.6f}" for v in values) + label)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to fit on, one like it, one that is shifted."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "anomaly-free.csv", 3_000, day=0, seed=0, labelled=False)
    write_run(folder / "alike.csv", 620, day=1, seed=1)
    write_run(folder / "shifted.csv", 620, day=2, seed=2, shift=4.0)
    return folder


@pytest.fixture(scope="module")
def found(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark writes about these runs, and its exit code."""
    results = tmp_path_factory.mktemp("results")
    config = results / "quick.toml"
    config.write_text("steps = 60\nbatch_size = 64\nencoder = [16]\ndecoder = [16]\n")
    code = main(["--data", str(runs), "--config", str(config)], results)
    written: dict[str, Any] = json.loads((results / "time_order.json").read_text())
    return {**written, "code": code, "page": (results / "time_order.md").read_text(), "folder": results}


def of(found: dict[str, Any], fit: str, run: str) -> dict[str, Any]:
    (one,) = (one for one in found["runs"][fit] if one["run"] == run)
    return dict(one)


@pytest.mark.parametrize("fit", ["split by time", "time ignored"])
def test_a_run_like_the_fit_keeps_the_promise_and_a_shifted_one_is_called_stale(
    found: dict[str, Any], fit: str
) -> None:
    alike, shifted = of(found, fit, "alike"), of(found, fit, "shifted")
    assert [alike["n"], shifted["n"]] == [600, 600]  # without the anomalies
    assert all(rate["n_flagged"] <= rate["high"] for rate in alike["rates"])
    assert alike["state"] == "fresh"
    assert alike["delay"] is None
    assert all(rate["n_flagged"] > rate["high"] for rate in shifted["rates"])
    assert shifted["state"] == "stale"
    assert shifted["delay"] <= 100


def test_exit_code_is_0_where_drift_speaks_of_every_broken_promise(found: dict[str, Any]) -> None:
    assert (
        found["summary"]["split by time"] | {"broken": 1, "broken_and_not_fresh": 1}
        == found["summary"]["split by time"]
    )
    assert found["code"] == 0


def test_a_shifted_run_keeps_the_promise_once_calibrated_on_its_first_third(found: dict[str, Any]) -> None:
    again = of(found, "split by time", "shifted")["recalibrated"]
    assert [rate["n"] for rate in again] == [400, 400]
    assert all(rate["n_flagged"] <= rate["high"] for rate in again)


def test_page_names_the_machine_shows_the_picture_and_hides_folders(found: dict[str, Any]) -> None:
    assert {"date", "revision", "processor"} <= set(found["machine"])
    assert (found["folder"] / "time_order.png").stat().st_size > 10_000
    assert "(time_order.png)" in found["page"]
    assert str(found["folder"].parent) not in found["page"]


def test_drift_is_what_the_command_says(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = read_runs(runs)
    bundle = fitted(read.fit.slice(0, 600), tmp_path, 0, QUICK, by_time=True)
    table = tmp_path / "shifted.csv"
    lines = [line.rsplit(";", 2)[0] for line in (runs / "shifted.csv").read_text().splitlines()[:-20]]
    table.write_text("\n".join(lines) + "\n")
    exit_code(monkeypatch, "drift", "runs", table, "--models", tmp_path / "models", "--json")
    said = json.loads(capsys.readouterr().out)
    scorer = Scorer(bundle)
    (batch,) = read_batches(open_table(table), scorer.decoder, 8192)
    ours = drift_of(scorer, batch)
    assert [said["state"], said["reason"]] == [ours.state, ours.reason]


def test_records_that_another_run_holds_too_are_not_fitted_on(tmp_path: Path) -> None:
    write_run(tmp_path / "anomaly-free.csv", 500, day=0, seed=0, labelled=False)
    write_run(tmp_path / "other.csv", 520, day=1, seed=1)
    shared = (tmp_path / "anomaly-free.csv").read_text().splitlines()[-100:]
    head, *rest = (tmp_path / "other.csv").read_text().splitlines()
    (tmp_path / "again.csv").write_text("\n".join([head, *(f"{line};0.0;0.0" for line in shared), *rest]) + "\n")
    read = read_runs(tmp_path)
    assert (read.fit.num_rows, read.n_shared) == (400, 100)
    assert read.others["again"].num_rows == 600


def test_runs_are_in_order_of_time(runs: Path) -> None:
    read = read_runs(runs)
    assert list(read.others) == ["alike", "shifted"]
    assert read.fit.column_names == read.others["alike"].column_names == ["datetime", "a", "b", "c", "d"]


def test_a_run_too_short_to_calibrate_on_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "anomaly-free.csv", 500, day=0, seed=0, labelled=False)
    write_run(tmp_path / "long.csv", 400, day=1, seed=1)
    write_run(tmp_path / "short.csv", 100, day=2, seed=2)
    with pytest.raises(TableError, match="run 'short': expected at least 297 normal records, got 80"):
        read_runs(tmp_path)


def test_a_run_to_fit_on_with_too_short_a_tenth_is_refused(runs: Path) -> None:
    with pytest.raises(TableError, match="the run to fit on: expected at least 2970 records, got 600"):
        held_out(read_runs(runs).others["alike"], seed=0)


def test_held_out_tenths_are_not_in_the_rest(runs: Path) -> None:
    fit = read_runs(runs).fit
    rest, parts = held_out(fit, seed=0)
    shuffled, in_order, last = (part["datetime"].to_pylist() for part in parts.values())
    assert rest.num_rows == 2_400
    assert sorted(shuffled) == in_order != shuffled
    assert last == fit["datetime"].to_pylist()[-300:]
    assert not {*in_order, *last} & set(rest["datetime"].to_pylist())


def test_band_holds_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(700, rng.beta(9, 892, 400_000))
    low, high = band(700, k=9, n_calibration=900)
    assert np.mean(counts > high) < 0.0006  # 400,000 draws know it within 0.00004
    assert np.mean(counts >= high) > 0.0004
    assert low == 0


def test_promise_breaks_above_the_band_only() -> None:
    inside, above, below = (Rate(0.05, 0.05, 100, n, low=1, high=15) for n in (15, 16, 0))
    assert [rate.is_broken for rate in (inside, above, below)] == [False, True, False]
    assert [rate.is_below for rate in (inside, above, below)] == [False, False, True]


def test_independent_scores_are_all_worth_something_and_a_slow_one_few() -> None:
    # An autoregressive series of coefficient 0.9 is worth (1 − 0.9)/(1 + 0.9) of its length: 1,053 of 20,000.
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20_000)
    slow = np.empty_like(noise)
    slow[0] = noise[0]
    for i in range(1, noise.size):
        slow[i] = 0.9 * slow[i - 1] + noise[i]
    assert n_effective(noise) == pytest.approx(20_000, rel=0.1)
    assert n_effective(slow) == pytest.approx(1_053, rel=0.2)
    assert lag_1(slow) == pytest.approx(0.9, abs=0.03)
