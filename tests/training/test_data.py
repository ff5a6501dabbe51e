from collections.abc import Sequence
from pathlib import Path

import pytest

from nelbo.errors import CalibrationError, NelboError, SchemaError, TableError
from training.data import Label, load


def table(path: Path, header: str, rows: Sequence[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def rows(n: int = 40, tail: str = "") -> list[str]:
    return [f"{i * i % 17}.5,{i % 5}.25{tail}" for i in range(n)]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return table(tmp_path / "t.csv", "a,b", rows())


def refusal(path: Path, error: type[NelboError] = TableError, **how: object) -> str:
    settings = {"schema_path": None, "label": None, "rate": None, "seed": 0} | how
    with pytest.raises(error) as caught:
        load(path, **settings)  # type: ignore[arg-type]
    return str(caught.value).removeprefix(f"{path}: ")


def test_good_table_is_split_and_decoded(good: Path) -> None:
    data = load(good, None, None, None, 0)
    assert [field.name for field in data.schema.fields] == ["a", "b"]
    assert [len(part) for part in (data.split.fit, data.split.a, data.split.b)] == [32, 4, 4]


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.csv") == "cannot be read: No such file or directory"


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"")
    refusal(path)


def test_header_without_records(tmp_path: Path) -> None:
    assert refusal(table(tmp_path / "t.csv", "a,b", [])) == "holds no record"


def test_one_record(tmp_path: Path) -> None:
    assert refusal(table(tmp_path / "t.csv", "a,b", rows(1))) == "has 1 normal record, a fit needs at least 20"


def test_no_field_left(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "serial,line", [f"s{i},1" for i in range(40)])
    expected = "no column is left to score ('serial': every value differs; 'line': constant)"
    assert refusal(path) == expected


def test_column_without_any_value(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,empty", rows(tail=","))
    assert refusal(path).startswith("column 'empty' holds no value in any record; drop it, or write a schema")


def test_column_without_any_value_is_fine_where_a_schema_ignores_it(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,empty", rows(tail=","))
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"columns": [{"name": "a", "role": "field", "kind": "numeric"}, {"name": "b", "role": "field", '
        '"kind": "numeric"}, {"name": "empty", "role": "ignored", "note": "no value in any record"}]}'
    )
    assert len(load(path, schema, None, None, 0).schema.fields) == 2


def test_label_that_is_the_same_in_every_record(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,ok", rows(tail=",yes"))
    expected = "column 'ok' is 'yes' in every record; leave out --label to fit on all of them"
    assert refusal(path, label=Label("ok", "yes")) == expected


def test_label_without_the_normal_value(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,ok", rows(20, ",yes") + rows(20, ",no"))
    assert refusal(path, label=Label("ok", "fine")) == "column 'ok' holds no 'fine', only 'no', 'yes'"


def test_unknown_label_column(good: Path) -> None:
    assert "'ok'" in refusal(good, SchemaError, label=Label("ok", "yes"))


def test_schema_of_other_columns(good: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"columns": [{"name": "torque", "role": "field", "kind": "numeric"}]}')
    assert "torque" in refusal(good, SchemaError, schema_path=schema)


def test_explicit_rate_that_the_records_do_not_carry(good: Path) -> None:
    expected = (
        "false-alarm rate 0.001 needs at least 999 calibration records, this table leaves 4; its smallest rate is 0.2"
    )
    assert refusal(good, CalibrationError, rate=0.001) == expected


def test_few_calibration_records_are_warned_of(good: Path) -> None:
    assert load(good, None, None, None, 0).warnings[-1] == (
        "4 calibration records do not carry the usual rate of 1 %, which needs 99; the bundle's rate is 20.0%"
    )


def test_dropped_column_is_warned_of(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,line", rows(tail=",7"))
    assert "column 'line' is not a field: constant" in load(path, None, None, None, 0).warnings


def test_repeated_records_are_warned_of(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b", [*rows(30), *(rows(1) * 10)])
    share = [w for w in load(path, None, None, None, 0).warnings if "repeat another one" in w]
    assert len(share) == 1


def test_category_of_calibration_records_only_is_unseen(tmp_path: Path) -> None:
    odd = [f"{row},{'rare' if i == 0 else 'common' if i % 2 else 'usual'}" for i, row in enumerate(rows(200))]
    path = table(tmp_path / "t.csv", "a,b,c", odd)
    for seed in range(20):
        data = load(path, None, None, None, seed)
        column = data.schema.codes[-1]
        in_fit = 0 in data.split.fit
        assert ("rare" in column.rare) == in_fit
        assert (data.normal.codes[0, -1] == column.unseen_code) == (not in_fit)


def test_label_column_is_no_field_and_the_others_are_judged_by_normal_records(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,ok,line", rows(40, ",1,0") + rows(10, ",0,9"))
    data = load(path, None, Label("ok", "1"), None, 0)
    assert [column.name for column in data.schema.columns] == ["a", "b", "ok", "line"]
    assert data.schema.with_role("label")[0].name == "ok"
    assert data.schema.with_role("ignored")[0].note == "constant"
    assert (len(data.normal), len(data.anomalies)) == (40, 10)


def test_table_with_a_time_is_split_by_it(tmp_path: Path) -> None:
    timed = [f"{row},2026-01-{1 + i % 28:02d}T00:00:00" for i, row in enumerate(rows(200))]
    data = load(table(tmp_path / "t.csv", "a,b,at", timed), None, None, None, 0)
    day = data.normal.index % 28
    assert day[data.split.fit].max() <= day[data.split.a].min() <= day[data.split.a].max() <= day[data.split.b].min()


def test_table_beyond_the_limit_is_sampled_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.MOST_CELLS", 2 * 50)
    path = table(tmp_path / "t.csv", "a,b", rows(400))
    data = load(path, None, None, None, 0)
    assert data.warnings[0] == "fitted on a seeded sample of 50 of 400 normal records"
    assert len(data.normal) == 50
    assert sorted(set(data.normal.index)) == data.normal.index.tolist()
    expected = [[float(cell) for cell in rows(400)[i].split(",")] for i in data.normal.index]
    assert data.normal.numbers.tolist() == expected
    assert load(path, None, None, None, 1).normal.index.tolist() != data.normal.index.tolist()


def test_sample_keeps_normal_records_and_anomalies_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.MOST_CELLS", 3 * 100)
    path = table(tmp_path / "t.csv", "a,b,ok", rows(300, ",1") + [f"{row},0" for row in rows(50)])
    data = load(path, None, Label("ok", "1"), None, 0)
    assert (len(data.normal), len(data.anomalies)) == (100, 10)
    assert data.normal.index.max() < 300 <= data.anomalies.index.min()
    assert data.warnings[:2] == (
        "fitted on a seeded sample of 100 of 300 normal records",
        "evaluated on a seeded sample of 10 of 50 anomalies",
    )


def test_unreadable_record_outside_the_sample_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.MOST_CELLS", 2 * 50)
    path = table(tmp_path / "t.csv", "a,b", rows(400))
    inside = load(path, None, None, None, 0).normal.index
    lines = rows(400)
    outside = next(i for i in range(400) if i not in inside)
    lines[outside] = "abc,1"
    assert load(table(tmp_path / "t.csv", "a,b", lines), None, None, None, 0).normal.index.tolist() == inside.tolist()
