import json
from pathlib import Path

import numpy as np

from benchmarks.labelled import Records, for_peers, main, one_table, read_records, two_tables, without_labels
from benchmarks.quality.protocol import Halves
from nelbo.schema import Column, Schema
from tests.fits import mixed_table, numeric_table, write_csv


def test_one_table_is_halved_anew_by_each_seed() -> None:
    table = numeric_table(100)
    split = one_table(Records(table, np.arange(100) >= 90))
    first, second = split(0), split(1)
    anomalies = table["x0"].to_pylist()[90:]
    assert (first.train.num_rows, first.test.num_rows, int(first.is_anomaly.sum())) == (45, 55, 10)
    assert sorted(first.train["x0"].to_pylist() + first.test["x0"].to_pylist()) == sorted(table["x0"].to_pylist())
    assert first.test["x0"].to_numpy()[first.is_anomaly].tolist() == anomalies
    assert first.train["x0"].to_pylist() != second.train["x0"].to_pylist()
    assert split(0).train.equals(first.train)


def test_of_two_tables_the_second_is_ranked_whole(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("n,label\n1,normal\n2,attack\n3,normal\n4,\n")
    (tmp_path / "test.csv").write_text("n,label\n1.5,normal\n2.5,other\n")
    parts = two_tables(*(read_records(tmp_path / f"{name}.csv", "label", "normal") for name in ("train", "test")))(0)
    assert parts.train.to_pydict() == {"n": [1.0, 3.0]}
    assert parts.test.to_pydict() == {"n": [1.5, 2.5]}
    assert parts.is_anomaly.tolist() == [False, True]


def test_peers_see_the_fields_of_a_schema_and_nobody_sees_its_labels() -> None:
    table = mixed_table(30).select(["serial", "line", "leak", "guarded"])
    schema = Schema(
        columns=(
            Column(name="serial", role="id"),
            Column(name="line", role="field", kind="categorical"),
            Column(name="leak", role="field", kind="numeric"),
            Column(name="guarded", role="label"),
        )
    )
    parts = without_labels(Halves(table, table, np.zeros(30, dtype=bool)), schema)
    assert parts.test.column_names == ["serial", "line", "leak"]
    assert for_peers(parts, schema).train.column_names == ["line", "leak"]


def test_peers_see_a_constant_change_where_no_schema_forbids_it() -> None:
    table = mixed_table(60).select(["serial", "leak"]).append_column("urgent", [[0] * 60])
    assert for_peers(Halves(table, table, np.zeros(60, dtype=bool)), None).train.column_names == ["leak", "urgent"]


def test_a_run_leaves_mean_and_deviation_of_every_detector(tmp_path: Path) -> None:
    table = numeric_table(200)
    table = table.set_column(0, "x0", [table["x0"].to_numpy() + 9.0 * (np.arange(200) % 10 == 0)])
    table = table.append_column("label", [["odd" if i % 10 == 0 else "ok" for i in range(200)]])
    path = write_csv(table, tmp_path / "pumps.csv")
    (tmp_path / "quick.toml").write_text("steps = 20\nencoder = [8]\ndecoder = [8]\n")
    options = ["--label", "label", "--normal", "ok", "--seeds", "0", "--config", str(tmp_path / "quick.toml")]
    assert main(["--train", str(path), *options], tmp_path / "results") == 0
    found = json.loads((tmp_path / "results" / "labelled_pumps.json").read_text())
    ours = ["nelbo:score", "nelbo:elbo", "nelbo:reconstruction_error"]
    assert list(found["detectors"]) == [*ours, "DTE-NP", "PCA", "IForest"]
    assert all(found["detectors"][name]["auroc"] > 0.9 for name in ("nelbo:score", "DTE-NP"))
    assert str(tmp_path) not in (tmp_path / "results" / "labelled_pumps.md").read_text()
