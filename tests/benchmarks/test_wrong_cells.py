import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.wrong_cells import KINDS, Corrupted, Field, corrupt, field_of, main, verdict
from nelbo.schema import Column
from tests.fits import mixed_table, write_csv

KINDS_OF = {"line": "categorical", "torque [Nm]": "numeric", "leak": "numeric", "guarded": "boolean"}
TABLE = mixed_table(300).select(list(KINDS_OF))


def fields(table: pa.Table = TABLE) -> list[Field]:
    return [
        field_of(Column.model_validate({"name": name, "role": "field", "kind": kind}), table)
        for name, kind in KINDS_OF.items()
    ]


def made(kind: str, n: int = 200) -> Corrupted:
    return corrupt(TABLE, fields(), kind, n, np.random.default_rng(0))


def changes(corrupted: Corrupted) -> list[list[tuple[str, Any, Any]]]:
    """For each copy, the fields that differ from its record, with both values."""
    before, after = TABLE.take(pa.array(corrupted.rows)).to_pylist(), corrupted.table.to_pylist()
    return [
        [(name, one[name], other[name]) for name in one if one[name] != other[name]]
        for one, other in zip(before, after, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_copy_differs_from_its_record_in_the_named_cell_alone(kind: str) -> None:
    corrupted = made(kind)
    assert [[name for name, _, _ in changed] for changed in changes(corrupted)] == [[name] for name in corrupted.names]
    assert len(set(corrupted.rows)) == 200  # another record each
    assert corrupted.table.schema == TABLE.schema


def test_a_shift_is_four_robust_deviations_rounded_like_the_field() -> None:
    torque = next(field for field in fields() if field.name == "torque [Nm]")
    assert torque.step == 0.1
    low, high = np.quantile(TABLE["torque [Nm]"].to_numpy(), [0.25, 0.75])
    moved = [abs(after - before) for ((name, before, after),) in changes(made("shift")) if name == "torque [Nm]"]
    assert len(moved) > 50
    assert moved == pytest.approx([4 * (high - low) / 1.349] * len(moved), abs=0.06)
    assert all(round(after, 1) == after for ((name, _, after),) in changes(made("shift")) if name == "torque [Nm]")


def test_a_field_of_mostly_one_value_is_shifted_by_the_spread_of_the_others() -> None:
    leak = next(field for field in fields() if field.name == "leak")
    other = [value for value in TABLE["leak"].to_pylist() if value]
    low, high = np.quantile(other, [0.25, 0.75])
    assert leak.spread == pytest.approx((high - low) / 1.349)


def test_ten_times_is_never_done_to_zero() -> None:
    assert all(after == pytest.approx(10 * before) and before for ((_, before, after),) in changes(made("× 10")))


def test_a_wrong_category_is_a_known_one_and_an_unseen_one_is_not() -> None:
    assert {name for ((name, _, _),) in changes(made("wrong category"))} == {"line", "guarded"}
    known = {"north", "south", "west"}
    assert {after for ((name, _, after),) in changes(made("wrong category")) if name == "line"} == known
    assert not known & {after for ((_, _, after),) in changes(made("unseen category"))}


def test_an_unseen_integer_is_one_that_no_record_has() -> None:
    table = pa.table({"shells": [0, 1, 0, 5]})
    field = field_of(Column(name="shells", role="field", kind="categorical"), table.slice(0, 3))
    corrupted = corrupt(table, [field], "unseen category", 4, np.random.default_rng(0))
    assert corrupted.table["shells"].to_pylist() == [6, 6, 6, 6]


def test_integers_stay_integers_and_a_small_shift_is_a_whole_step() -> None:
    table = pa.table({"count": [1, 1, 1, 2, 2, 2, 2]})
    field = Field("count", "numeric", (1, 2), spread=0.01, step=1.0)
    found = corrupt(table, [field], "shift", 7, np.random.default_rng(0))
    before = table.take(pa.array(found.rows))["count"].to_numpy()
    assert set(np.abs(found.table["count"].to_numpy() - before)) == {1}


def test_missing_cells_are_left_alone() -> None:
    table = pa.table({"x": [1.0, None, float("nan")]})
    field = field_of(Column(name="x", role="field", kind="numeric"), table.slice(0, 1))
    for kind in ("× 10", "swap"):
        assert set(corrupt(table, [field], kind, 3, np.random.default_rng(0)).rows) <= {0}


@pytest.mark.parametrize(
    ("ours", "theirs", "passes"),
    [((0.9, 0.8), (0.8, 0.79), True), ((0.9, 0.8), (0.85, 0.78), False), ((0.99, 0.7), (0.8, 0.71), False)],
)
def test_ours_must_lead_in_the_mean_and_lose_no_kind(
    ours: tuple[float, float], theirs: tuple[float, float], passes: bool
) -> None:
    figures = {"nelbo:score": ours, "DTE-NP": theirs}
    assert verdict({name: dict(zip(KINDS, pair, strict=False)) for name, pair in figures.items()})[0] is passes


def test_a_run_leaves_auroc_and_power_of_every_kind(tmp_path: Path) -> None:
    table = mixed_table(400).append_column("label", [["ok"] * 380 + ["odd"] * 20])
    path = write_csv(table, tmp_path / "pumps.csv")
    (tmp_path / "quick.toml").write_text("steps = 20\nencoder = [8]\ndecoder = [8]\n")
    options = ["--label", "label", "--normal", "ok", "--seeds", "0", "--per-kind", "30"]
    assert main([str(path), *options, "--config", str(tmp_path / "quick.toml")], tmp_path / "results") in (0, 1)
    found = json.loads((tmp_path / "results" / "wrong_cells_pumps.json").read_text())
    assert set(found["auroc"]["nelbo:score"]) == set(KINDS)
    assert {"nelbo:score", "nelbo:elbo", "nelbo:reconstruction_error", "DTE-NP", "kNN"} <= set(found["power"])
    assert found["seeds"][0]["n_normal"] == 190
    assert found["seeds"][0]["n_per_kind"] == dict.fromkeys(KINDS, 30)
    assert "| DTE-NP |" in (tmp_path / "results" / "wrong_cells_pumps.md").read_text()
