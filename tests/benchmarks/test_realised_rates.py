import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import betabinom

from benchmarks.false_alarms import Seed
from benchmarks.realised_rates import Run, band, carried, done, judge, main


def run(table: str, n_flagged: int, duplicated: float = 0.0, seed: int = 0) -> Run:
    count = Seed(seed, n_held_out=1000, n_flagged=n_flagged, n_calibration=99, k=5)
    return Run(table, seed, "v", duplicated, {0.05: count})


# --- bands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "k", "n"), [(50, 1, 19), (1000, 5, 99), (10_000, 10, 999)])
def test_band_of_one_run_is_that_of_the_beta_binomial_distribution(m: int, k: int, n: int) -> None:
    low, high = betabinom.ppf([0.0005, 0.9995], m, k, n + 1 - k)
    assert band([Seed(0, m, 0, n, k)], 0.999) == (low, high)


def test_band_of_several_runs_holds_their_sum_as_often_as_it_says() -> None:
    """200,000 draws: four standard errors are 0.0009."""
    counts = [Seed(0, 300, 0, 49, 2), Seed(1, 300, 0, 49, 2), Seed(2, 500, 0, 199, 10)]
    low, high = band(counts, 0.99)
    rng = np.random.default_rng(0)
    rates = [(c, rng.beta(c.k, c.n_calibration + 1 - c.k, 200_000)) for c in counts]
    sums = sum(rng.binomial(c.n_held_out, rate) for c, rate in rates)
    assert 0.99 - 0.0009 <= np.mean((low <= sums) & (sums <= high)) <= 0.999
    assert np.mean(sums > high) <= 0.005 + 0.0007


def test_counts_of_two_splits_of_one_table_are_independent() -> None:
    """Their calibration and held-out sets overlap; 4,000 tables, four standard errors of a correlation."""
    rng, counts = np.random.default_rng(1), []
    for _ in range(4_000):
        scores = rng.normal(size=130)
        order = [rng.permutation(130) for _ in range(2)]
        counts.append([int((scores[o[30:]] > np.sort(scores[o[:29]])[-2]).sum()) for o in order])
    assert abs(np.corrcoef(np.array(counts).T)[0, 1]) <= 4 / 4_000**0.5
    # k = 2 of 29, so 100 · 2/30 in the mean; 8,000 counts of a standard deviation of 5.
    assert np.mean(counts) == pytest.approx(100 * 2 / 30, abs=4 * 5 / 8_000**0.5)


# --- verdicts ----------------------------------------------------------------------------------------


def test_count_at_the_end_of_its_band_is_within_and_one_more_is_above() -> None:
    low, high = band([run("a", 0).counts[0.05]], 0.999)
    verdicts = [judge([run("a", n)], 0.05)[0].verdict for n in (low - 1, low, high, high + 1)]
    assert verdicts == ["BELOW", "within", "within", "ABOVE"]


def test_too_few_alarms_are_forgiven_where_records_repeat() -> None:
    table, everything, distinct = judge([run("a", 1, duplicated=0.01)], 0.05)
    assert (table.verdict, table.holds, everything.holds, distinct.holds) == ("BELOW", False, False, False)
    table, everything = judge([run("a", 1, duplicated=0.011)], 0.05)
    assert (table.verdict, table.holds, everything.holds) == ("below: ties", True, True)


def test_too_many_alarms_are_never_forgiven() -> None:
    assert [one.holds for one in judge([run("a", 200, duplicated=0.9)], 0.05)] == [False, False]


def test_tables_are_judged_by_their_seeds_together_then_all_then_those_without_duplicates() -> None:
    runs = [run(table, 50, d, seed) for table, d in (("a", 0.0), ("b", 0.5)) for seed in range(3)]
    found = judge(runs, 0.05)
    assert [(one.what, one.n_flagged, one.n_held_out) for one in found] == [
        ("a", 150, 3000),
        ("b", 150, 3000),
        ("all", 300, 6000),
        ("all with at most 1 % duplicated", 150, 3000),
    ]
    assert found[2].duplicated == 0.25


def test_a_rate_is_asked_for_where_a_tenth_of_the_records_carries_it() -> None:
    # round(0.1 · 185) is 18, of which 5 % need 19; at 1 % it is 99.
    assert [carried(n, (0.05, 0.01)) for n in (15, 184, 186, 980, 990)] == [[], [], [0.05], [0.05], [0.05, 0.01]]


# --- runs --------------------------------------------------------------------------------------------


def write_table(folder: Path, name: str, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(n, 4))
    is_anomaly = np.arange(n) % 20 == 0
    np.savez(folder / f"{name}.npz", X=x + 9.0 * is_anomaly[:, None], y=is_anomaly.astype(int))


def test_rates_hold_on_held_out_normals_and_fits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fits of one table; its band of 99.9 % and those of 99 % fail by chance once in some 50 choices of seeds."""
    data = tmp_path / "data"
    data.mkdir()
    write_table(data, "pumps", 1000, 0)
    write_table(data, "tiny", 200, 1)
    (tmp_path / "quick.toml").write_text("steps = 30\nencoder = [8]\ndecoder = [8]\nn_exemplars = 32\n")
    options = ["--data", str(data), "--seeds", "0", "1", "--bundles", str(tmp_path / "fits")]
    options += ["--config", str(tmp_path / "quick.toml")]
    results = tmp_path / "results"
    assert main(options, results) == 0
    found = json.loads((results / "realised_rates.json").read_text())
    # 950 normal records: 475 are fitted, of which 48 calibrate, and 475 are held out.
    assert [(one["what"], one["n_held_out"], one["verdict"]) for one in found["judged"]] == [
        ("pumps", 950, "within"),
        ("all", 950, "within"),
        ("all with at most 1 % duplicated", 950, "within"),
    ]
    assert found["runs"][0]["counts"]["0.05"] | {"n_flagged": 0} == {
        "seed": 0,
        "n_held_out": 475,
        "n_flagged": 0,
        "n_calibration": 48,
        "k": 2,
    }
    assert found["too_small"] == {"tiny": 95}
    page = (results / "realised_rates.md").read_text()
    assert "Not measured: pumps, tiny, with less than 99 calibration records." in page
    assert str(tmp_path) not in page
    monkeypatch.setattr("benchmarks.fitted.fitted", None)  # a second fit would call it
    assert main(options, tmp_path / "again") == 0
    assert json.loads((tmp_path / "again" / "realised_rates.json").read_text())["runs"] == found["runs"]
    monkeypatch.setattr("benchmarks.realised_rates.measure", None)  # lines of a run that was cut off are enough
    assert main(options, results) == 0


def test_lines_of_another_run_are_not_resumed_from(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    count = {"seed": 0, "n_held_out": 1000, "n_flagged": 50, "n_calibration": 99, "k": 5}
    one = {"table": "a", "seed": 0, "version": "v", "duplicated": 0.0, "counts": {"0.05": count}}
    path.write_text(json.dumps({"run": "x", "one": one}) + "\n")
    assert done(path, "x") == {("a", 0): run("a", 50)}
    assert done(path, "y") == {}
