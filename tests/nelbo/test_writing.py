import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.bundle import Bundle, read_bundle
from nelbo.errors import TableError
from nelbo.results import Result, results
from nelbo.schema import Column, Schema
from nelbo.scoring import Scored, Scorer
from nelbo.writing import format_of, lines, rows_of
from tests.bundles import PUMPS, normal_records, odd_record, write_tiny_bundle

RECORDS = [*normal_records(3, seed=2), odd_record(rpm="fast"), odd_record(rpm=None, valve="ajar")]
COLUMNS = [
    *("index", "serial", "flagged", "p_value", "score", "score_p_value", "elbo", "elbo_p_value"),
    *("reconstruction_error", "reconstruction_error_p_value", "kl", "top_field_1", "top_field_2", "top_field_3"),
    *("missing", "unseen", "reason", "error"),
]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models")))


def with_ids(bundle: Bundle, *names: str) -> Scorer:
    ids = tuple(Column(name=name, role="id") for name in names)
    return Scorer(replace(bundle, schema=Schema(columns=(*ids, *PUMPS.columns[1:]))))


def scored_by(scorer: Scorer, records: list[dict[str, Any]] = RECORDS) -> Scored:
    return scorer.score(scorer.decoder.objects(records))


def write(path: Path, scorer: Scorer, *parts: list[dict[str, Any]]) -> None:
    """A file of a part for each list of records."""
    form = format_of(path)
    with path.open("wb") as file:
        file.write(form.head(scorer.schema))
        notes = [form.append(file, part_of(path, scorer, records)) for records in parts or (RECORDS,)]
        file.write(form.tail(notes))


def part_of(path: Path, scorer: Scorer, records: list[dict[str, Any]]) -> io.BytesIO:
    part = io.BytesIO()
    with format_of(path).part(part, scorer, "flagged") as put:
        put(scored_by(scorer, records))
    return io.BytesIO(part.getvalue())


def test_lines_are_the_results(bundle: Bundle, tmp_path: Path) -> None:
    scorer = Scorer(bundle)
    write(tmp_path / "out.ndjson", scorer)
    lines = [json.loads(line) for line in (tmp_path / "out.ndjson").read_bytes().splitlines()]
    assert len(lines) == len(results(scorer, scored_by(scorer)))
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert "error" in lines[3]


def test_lines_of_several_batches_follow_each_other(bundle: Bundle) -> None:
    scorer, output = Scorer(bundle), io.BytesIO()
    with lines(output, scorer, "none") as put:
        put(scored_by(scorer))
        put(scored_by(scorer, RECORDS[:1]))
    assert [json.loads(line)["index"] for line in output.getvalue().splitlines()] == [0, 1, 2, 3, 4, 0]


def test_csv_and_parquet_hold_the_same_table(bundle: Bundle, tmp_path: Path) -> None:
    scorer = Scorer(bundle)
    write(tmp_path / "out.csv", scorer, RECORDS, RECORDS[:2])
    write(tmp_path / "out.parquet", scorer, RECORDS, RECORDS[:2])
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    table = pq.read_table(tmp_path / "out.parquet")
    assert header == table.column_names == COLUMNS
    assert [[as_read(cell) for cell in row] for row in rows] == [list(row.values()) for row in table.to_pylist()]


def as_read(cell: str) -> object:
    """A cell of a CSV file as its type has it."""
    try:
        return json.loads(cell)
    except ValueError:
        return cell or None


def test_parts_of_parquet_join_to_the_table_of_all_records(bundle: Bundle, tmp_path: Path) -> None:
    scorer, path = Scorer(bundle), tmp_path / "out.parquet"
    write(path, scorer, RECORDS, [], RECORDS[:2])
    expected = pa.concat_tables([rows_of(scorer, scored_by(scorer, part)) for part in (RECORDS, RECORDS[:2])])
    assert pq.read_table(path).equals(expected)
    assert [pq.ParquetFile(path).read_row_group(i).num_rows for i in (0, 1)] == [5, 2]


def test_table_says_of_each_record_what_the_results_say(bundle: Bundle) -> None:
    scorer = Scorer(bundle)
    scored = scored_by(scorer)
    *_, faulty, odd = rows_of(scorer, scored).to_pylist()
    assert (odd["index"], odd["serial"], odd["flagged"]) == (4, "P-odd", True)
    assert (odd["missing"], odd["unseen"], odd["error"]) == ("rpm", "valve", None)
    assert {odd["top_field_1"], odd["top_field_2"]} == {"pressure", "in/out [l/s]"}
    (result,) = [result for result in results(scorer, scored) if result.index == 4]
    assert isinstance(result, Result)
    assert result.repair is not None
    assert odd["reason"] == result.reason
    assert odd["top_field_1"] == next(iter(result.repair.changes))
    assert odd["elbo"] == pytest.approx(-odd["reconstruction_error"] - odd["kl"], rel=1e-12)
    assert faulty["error"] == "record 3, field 'rpm': expected a number, got 'fast'"
    assert {name for name, value in faulty.items() if value is not None} == {"index", "error"}


def test_table_gives_no_reason_of_a_record_that_is_not_flagged(bundle: Bundle) -> None:
    _, second, *_ = rows_of(Scorer(bundle), scored_by(Scorer(bundle))).to_pylist()
    assert (second["flagged"], second["reason"]) == (False, None)


def test_table_names_the_fields_that_explain_an_alarm_before_others(bundle: Bundle) -> None:
    scorer = Scorer(bundle)
    wrong = [{**odd_record(heated=False, valve="open"), "pressure": 5.0, "in/out [l/s]": 60.0, "rpm": -3000.0}]
    (row,) = rows_of(scorer, scored_by(scorer, wrong)).to_pylist()
    assert {row["top_field_1"], row["top_field_2"]} == {"in/out [l/s]", "rpm"}


def test_batch_of_faulty_records_alone_is_a_table_of_errors(bundle: Bundle, tmp_path: Path) -> None:
    scorer = Scorer(bundle)
    for name in ("out.parquet", "out.csv", "out.ndjson"):
        write(tmp_path / name, scorer, [odd_record(rpm="x"), odd_record(rpm="y")], [])
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["error"][:22] for row in rows] == ["record 0, field 'rpm':", "record 1, field 'rpm':"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_several_ids_have_a_column_each(bundle: Bundle) -> None:
    scorer = with_ids(bundle, "plant", "number")
    records = [{**RECORDS[0], "plant": "A", "number": 7}, {**RECORDS[1], "number": None}, RECORDS[2]]
    records = [{k: v for k, v in record.items() if k != "serial"} for record in records]
    table = rows_of(scorer, scored_by(scorer, records))
    assert table.column_names[:4] == ["index", "plant", "number", "flagged"]
    assert table["plant"].to_pylist() == ["A", None, None]
    assert table["number"].to_pylist() == ["7", None, None]


def test_id_that_is_no_text_is_written_as_json(bundle: Bundle) -> None:
    records = [{**RECORDS[0], "serial": value} for value in (7, True, 1.5, "7", None)]
    table = rows_of(Scorer(bundle), scored_by(Scorer(bundle), records))
    assert table["serial"].to_pylist() == ["7", "true", "1.5", "7", None]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_id_named_like_a_result_gives_way(bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    scorer = with_ids(bundle, "score")
    records = [{k: v for k, v in RECORDS[0].items() if k != "serial"} | {"score": "mine"}]
    write(tmp_path / f"out.{suffix}", scorer, records)
    assert rows_of(scorer, scored_by(scorer, records))["id_score"].to_pylist() == ["mine"]


def test_other_suffix_is_refused_with_those_that_are_known(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TableError) as info:
        write(tmp_path / "out.xlsx", Scorer(bundle))
    assert str(info.value) == f"{tmp_path}/out.xlsx: expected a name that ends in .ndjson, .jsonl, .csv, .parquet"


def test_without_explanations_a_table_has_no_reasons_and_names_fields_by_oddness(bundle: Bundle) -> None:
    scorer = Scorer(bundle)
    (row,) = rows_of(scorer, scored_by(scorer, [odd_record(heated=False)]), "none").to_pylist()
    assert (row["flagged"], row["reason"]) == (True, None)
    scored = scored_by(scorer, [odd_record(heated=False)])
    combination = bundle.calibration.combination
    oddness = (scored.contributions[0] - np.array(combination.location)) / np.array(combination.spread)
    names = np.array([field.name for field in PUMPS.fields])[np.argsort(-oddness)]
    assert [row[f"top_field_{i}"] for i in (1, 2, 3)] == names[:3].tolist()


def test_each_record_lists_its_own_missing_fields(bundle: Bundle) -> None:
    scorer = Scorer(bundle)
    values: list[dict[str, Any]] = [{}, {"rpm": None}, {"valve": None, "rpm": None}, {"rpm": None}]
    table = rows_of(scorer, scored_by(scorer, [normal_records(1)[0] | {"rpm": 1500.0} | change for change in values]))
    assert table["missing"].to_pylist() == [None, "rpm", "valve, rpm", "rpm"]


def test_top_fields_are_three_different_ones(bundle: Bundle) -> None:
    table = rows_of(Scorer(bundle), scored_by(Scorer(bundle), RECORDS[:1]))
    top = [table[f"top_field_{i}"][0].as_py() for i in (1, 2, 3)]
    assert len(set(top)) == 3
    assert set(top) <= {field.name for field in PUMPS.fields}


def test_ids_whose_new_names_would_meet_are_all_kept(bundle: Bundle) -> None:
    scorer = with_ids(bundle, "index", "id_index")
    record = {name: value for name, value in odd_record().items() if name != "serial"}
    table = rows_of(scorer, scored_by(scorer, [record | {"index": "a", "id_index": "b"}]))
    assert [table[name].to_pylist() for name in ("index", "id_id_index", "id_index")] == [[0], ["a"], ["b"]]
