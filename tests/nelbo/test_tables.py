import base64
import io
import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nelbo.errors import SchemaError, TableError
from nelbo.records import Batch, RecordDecoder
from nelbo.results import shown_value
from nelbo.schema import Column, Schema
from nelbo.tables import CsvTable, ParquetTable, Table, labels, open_table, read_batches, read_columns


def csv(folder: Path, text: str | bytes, name: str = "t.csv") -> Table:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_table(path)


def parquet(folder: Path, **columns: Any) -> Table:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return open_table(folder / "t.parquet")


def fields(**kinds: str) -> Schema:
    """A schema of fields; a kind may be followed by categories: "categorical:L,M"."""
    columns = []
    for name, text in kinds.items():
        kind, _, listed = text.partition(":")
        known = [int(part) if part.isdigit() else part for part in listed.split(",") if part]
        columns.append(Column.model_validate({"name": name, "role": "field", "kind": kind, "categories": known}))
    return Schema(columns=tuple(columns))


def read(table: Table, schema: Schema, n_rows: int = 100) -> list[Batch]:
    return list(read_batches(table, RecordDecoder(schema), n_rows))


def only(batches: Sequence[Batch]) -> Batch:
    (batch,) = batches
    return batch


def texts(batch: Batch) -> list[str]:
    return [str(error) for error in batch.errors]


# --- opening -----------------------------------------------------------------------------------------


def test_byte_order_mark_and_bracketed_names_are_read_as_they_stand(tmp_path: Path) -> None:
    table = csv(tmp_path, "\ufeffTorque [Nm],Air temperature [K]\n40.5,298.1\n")
    assert table.columns == ("Torque [Nm]", "Air temperature [K]")
    assert read_columns(table).to_pydict() == {"Torque [Nm]": [40.5], "Air temperature [K]": [298.1]}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found_in_the_header(tmp_path: Path, delimiter: str) -> None:
    table = csv(tmp_path, f"a{delimiter}b\n1{delimiter}2\n")
    assert read_columns(table).to_pydict() == {"a": [1], "b": [2]}


def test_delimiter_within_quotes_does_not_count(tmp_path: Path) -> None:
    table = csv(tmp_path, '"x,y,z";b\n1;2\n')
    assert table.columns == ("x,y,z", "b")


def test_tsv_is_split_at_tabs_only(tmp_path: Path) -> None:
    assert csv(tmp_path, "a,b,c\td\n1\t2\n", "t.tsv").columns == ("a,b,c", "d")


def test_quoted_newlines_belong_to_the_name_and_the_value(tmp_path: Path) -> None:
    table = csv(tmp_path, '"speed\n[rpm]",note\n1,"two\nlines"\n2,"say ""hi"""\n')
    assert read_columns(table).to_pydict() == {"speed\n[rpm]": [1, 2], "note": ["two\nlines", 'say "hi"']}


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "a,b\r\n\r\n"])
def test_header_alone_is_a_table_without_records(tmp_path: Path, text: str) -> None:
    table = csv(tmp_path, text)
    assert read(table, fields(a="numeric", b="numeric")) == []
    assert read_columns(table).num_rows == 0


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", b"", "expected records, got an empty file"),
        ("t.csv", b"\n \n", "expected a header, got blank lines"),
        ("t.csv", b"a,b,a\n1,2,3\n", "expected distinct column names, got 'a' several times"),
        ("t.csv", b"\xff\xfea\n1\n", "expected UTF-8 text, got bytes that are not; save the file as UTF-8"),
        ("t.parquet", b"a,b\n1,2\n", "expected a Parquet file, got something else or a damaged one"),
        ("t.ndjson", b'[{"a": 1}]', "expected one JSON object a line, got a JSON array"),
        ("t.xlsx", b"PK", "expected a file that ends in .csv, .tsv, .parquet, .ndjson or .jsonl, got '.xlsx'"),
    ],
)
def test_file_that_is_no_table_is_refused_by_name(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError) as caught:
        open_table(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {problem}"


def test_absent_file_and_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"gone\.csv: cannot be read: No such file or directory$"):
        open_table(tmp_path / "gone.csv")
    with pytest.raises(TableError, match=r"expected a file of records, got a folder$"):
        open_table(tmp_path)


@pytest.mark.parametrize(("record", "found"), [("3", 1), ("3,4,5", 3)])
def test_ragged_record_is_refused_with_its_position(tmp_path: Path, record: str, found: int) -> None:
    table = csv(tmp_path, f'a,b\n"1\n",2\n{record}\n')
    with pytest.raises(TableError) as caught:
        read_columns(table)
    text = f"{table.path}: record 1: expected 2 values as in the header, got {found}"
    assert str(caught.value) == text


def test_open_quote_is_guessed_where_a_record_does_not_end(tmp_path: Path) -> None:
    table = csv(tmp_path, 'x,y\n1,"2\n' + "3,4\n" * 3_000_000)
    with pytest.raises(TableError, match=r"expected records of less than 4 MiB, got a longer one; is a quote"):
        read_columns(table)


def test_undecodable_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"expected UTF-8 text, got bytes that are not"):
        read_columns(csv(tmp_path, b"a\n\xff\n"))


def test_columns_of_json_lines_are_those_of_the_first_records_together(tmp_path: Path) -> None:
    table = csv(tmp_path, '{"a": 1}\nnonsense\n{"b": 2, "a": 3}\n', "t.jsonl")
    assert table.columns == ("a", "b")


# --- whole columns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "type_", "values"),
    [
        (["1", "-2", "NA"], pa.int64(), [1, -2, None]),
        (["1", "2.5", "1e3", " 4 "], pa.float64(), [1.0, 2.5, 1000.0, 4.0]),
        (["1.0", "null", "?"], pa.float64(), [1.0, None, None]),
        (["true", "FALSE", "None"], pa.bool_(), [True, False, None]),
        (["2020-03-01 15:44:06", "NaN"], pa.timestamp("us"), [datetime(2020, 3, 1, 15, 44, 6), None]),
        (["2020-03-01T01:00:00+01:00"], pa.timestamp("us"), [datetime(2020, 3, 1)]),
        (["2020-03-01", "2020-03-01T00:00:01Z"], pa.timestamp("us"), None),
        (["1", "1e400"], pa.string(), ["1", "1e400"]),
        (["1", "inf"], pa.string(), ["1", "inf"]),
        (["0x1F", "0x20"], pa.string(), ["0x1F", "0x20"]),
        (["DE", "NA"], pa.string(), ["DE", "NA"]),
    ],
)
def test_text_becomes_the_first_type_that_fits_every_value(
    tmp_path: Path, cells: list[str], type_: pa.DataType, values: list[Any] | None
) -> None:
    column = read_columns(csv(tmp_path, "x,y\n" + "".join(f"{cell},1\n" for cell in cells)))["x"]
    assert column.type == type_
    if values is not None:
        assert column.to_pylist() == values


def test_type_is_that_of_the_whole_column_not_of_its_first_block(tmp_path: Path) -> None:
    table = csv(tmp_path, "x\n" + "1\n" * 3_000_000 + "1.5\n")
    assert read_columns(table)["x"].type == pa.float64()


def test_parquet_types_become_plain_ones(tmp_path: Path) -> None:
    table = parquet(
        tmp_path,
        small=pa.array([1, None], pa.int8()),
        price=pa.array([Decimal("1.50"), None]),
        gap=pa.array([nan, 2.0], pa.float32()),
        kind=pa.array(["L", "M"]).dictionary_encode(),
        day=pa.array([0, 1], pa.date32()),
    )
    read_ = read_columns(table)
    assert read_.schema.types == [pa.int64(), pa.float64(), pa.float64(), pa.string(), pa.timestamp("us")]
    assert read_["gap"].to_pylist() == [None, 2.0]
    assert read_["day"].to_pylist() == [datetime(1970, 1, 1), datetime(1970, 1, 2)]


def test_json_lines_keep_their_types_and_gain_times(tmp_path: Path) -> None:
    table = csv(tmp_path, '{"a": 1, "t": "2020-03-01T00:00:00Z", "s": "7"}\n{"a": 2.5}\n', "t.ndjson")
    assert read_columns(table).to_pydict() == {
        "a": [1.0, 2.5],
        "t": [datetime(2020, 3, 1), None],
        "s": ["7", None],
    }


def test_wanted_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    table = csv(tmp_path, "a,b,c\n1,2,3\n")
    assert read_columns(table, ["c", "a"]).to_pydict() == {"c": [3], "a": [1]}
    with pytest.raises(SchemaError, match=r"expected a column 'd', got only 'a', 'b', 'c'$"):
        read_columns(table, ["d"])


# --- batches -----------------------------------------------------------------------------------------

MIXED = Schema(
    columns=(
        Column(name="serial", role="id"),
        Column(name="torque", role="field", kind="numeric"),
        Column(name="line", role="field", kind="categorical", categories=(1, 2)),
        Column(name="country", role="field", kind="categorical", categories=("DE", "NA")),
        Column(name="is_on", role="field", kind="boolean"),
        Column(name="at", role="field", kind="timestamp", nullable=True),
    )
)


def test_csv_parquet_and_json_lines_of_the_same_records_give_equal_batches(tmp_path: Path) -> None:
    names = ["serial", "torque", "line", "country", "is_on", "at"]
    rows: list[list[Any]] = [
        ["M1", 40.5, 1, "NA", True, "1970-01-02T00:00:00Z"],
        ["M2", None, 3, None, None, None],
        ["M3", 39.0, None, "FR", False, "1970-01-01T00:00:01Z"],
    ]
    text = (
        "serial,torque,line,country,is_on,at\n"
        "M1,40.5,1,NA,True,1970-01-02T00:00:00Z\nM2,,3,,,\nM3,39,,FR,false,1970-01-01T00:00:01Z\n"
    )
    typed = parquet(tmp_path, **{name: [row[j] for row in rows] for j, name in enumerate(names)})
    lines = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    tables = [csv(tmp_path, text), typed, csv(tmp_path, lines, "t.ndjson")]
    for batch in (only(read(table, MIXED)) for table in tables):
        np.testing.assert_array_equal(batch.numbers, [[40.5, 86400.0], [nan, nan], [39.0, 1.0]])
        np.testing.assert_array_equal(batch.codes, [[0, 1, 1], [3, -1, -1], [-1, 3, 0]])
        assert batch.ids == ["M1", "M2", "M3"]
        assert {name: [shown_value(batch.values[name], row) for row in range(3)] for name in names[1:]} == {
            name: [row[j] for row in rows] for j, name in enumerate(names) if j
        }
        assert batch.errors == ()


def test_positions_count_through_the_file(tmp_path: Path) -> None:
    table = csv(tmp_path, "x\n1\n2\nabc\n4\n5\n")
    batches = read(table, fields(x="numeric"), n_rows=2)
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [3], [4]]
    assert texts(batches[1]) == ["record 2, field 'x': expected a number, got 'abc'"]


def test_positions_of_json_lines_count_wrong_records_too(tmp_path: Path) -> None:
    table = csv(tmp_path, '\ufeff{"x": 1}\n\n{"x": "1"}\n{"x": 3}\n', "t.ndjson")
    batches = read(table, fields(x="numeric"), n_rows=2)
    assert [batch.index.tolist() for batch in batches] == [[0], [2]]
    assert texts(batches[0]) == ["record 1, field 'x': expected a number, got '1'"]


@pytest.mark.parametrize(
    ("kind", "cell", "problem"),
    [
        ("numeric", "abc", "a number, got 'abc'"),
        ("numeric", "1e400", "a number, got '1e400'"),
        ("numeric", "-inf", "a number, got '-inf'"),
        ("numeric", "1_000", "a number, got '1_000'"),
        ("numeric", "true", "a number, got 'true'"),
        ("categorical:1,2", "1.5", "an integer, got '1.5'"),
        ("boolean", "1", "true or false, got '1'"),
        ("timestamp", "noon", "an ISO 8601 date and time, or seconds since 1970, got 'noon'"),
    ],
)
def test_wrong_cell_is_an_error_and_the_other_records_go_on(tmp_path: Path, kind: str, cell: str, problem: str) -> None:
    good = {"numeric": "7", "categorical:1,2": "2", "boolean": "true", "timestamp": "1970-01-01"}[kind]
    batch = only(read(csv(tmp_path, f"x\n{good}\n{cell}\n{good}\n"), fields(x=kind)))
    assert batch.index.tolist() == [0, 2]
    assert texts(batch) == [f"record 1, field 'x': expected {problem}"]
    assert len(batch.values["x"]) == 2


def test_record_with_two_wrong_cells_is_one_error_of_the_first_field(tmp_path: Path) -> None:
    batch = only(read(csv(tmp_path, "b,a\nx,y\n1,2\n"), fields(a="numeric", b="numeric")))
    assert texts(batch) == ["record 0, field 'a': expected a number, got 'y'"]


@pytest.mark.parametrize("cell", ["", " ", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"])
def test_words_for_missing_are_missing_in_a_numeric_field(tmp_path: Path, cell: str) -> None:
    batch = only(read(csv(tmp_path, f"x,y\n{cell},1\n2,1\n"), fields(x="numeric", y="numeric")))
    np.testing.assert_array_equal(batch.numbers, [[nan, 1.0], [2.0, 1.0]])
    assert list(batch.values["x"]) == [None, 2.0]


def test_timestamp_may_be_seconds_and_a_row_of_digits_is_a_number(tmp_path: Path) -> None:
    batch = only(read(csv(tmp_path, "x\n1970-01-01 00:00:05\n20200301\n1.5\n"), fields(x="timestamp")))
    assert batch.numbers.ravel().tolist() == [5.0, 20200301.0, 1.5]


def test_integer_category_may_be_written_as_a_float(tmp_path: Path) -> None:
    batch = only(read(csv(tmp_path, "x,y\n1.0,1\n,1\n2.0,1\n"), fields(x="categorical:1,2", y="numeric")))
    assert batch.codes.ravel().tolist() == [0, -1, 1]
    assert batch.values["x"] == [1, None, 2]


def test_wrong_values_of_parquet_are_errors(tmp_path: Path) -> None:
    table = parquet(tmp_path, a=[1.0, inf, nan], b=[1.0, 2.0, 1.5])
    batch = only(read(table, fields(a="numeric", b="categorical:1,2")))
    assert batch.index.tolist() == [0]
    assert texts(batch) == [
        "record 1, field 'a': expected a number, got inf",
        "record 2, field 'b': expected an integer, got 1.5",
    ]


def test_parquet_times_are_seconds_and_shown_as_text(tmp_path: Path) -> None:
    table = parquet(tmp_path, at=pa.array([86_400_000, None], pa.timestamp("ms", "Europe/Berlin")))
    batch = only(read(table, fields(at="timestamp")))
    np.testing.assert_array_equal(batch.numbers, [[86400.0], [nan]])
    assert list(batch.values["at"]) == ["1970-01-02T00:00:00", None]


@pytest.mark.parametrize(
    ("kind", "values", "problem"),
    [
        ("numeric", ["1"], "a number, got type string"),
        ("numeric", [True], "a number, got type bool"),
        ("categorical:L", [1], "a string, got type int64"),
        ("categorical:1", [True], "an integer, got type bool"),
        ("boolean", [1], "true or false, got type int64"),
    ],
)
def test_parquet_column_of_another_type_is_refused(tmp_path: Path, kind: str, values: list[Any], problem: str) -> None:
    table = parquet(tmp_path, x=values)
    with pytest.raises(SchemaError) as caught:
        read_batches(table, RecordDecoder(fields(x=kind)), 10)
    assert str(caught.value) == f"{table.path}: column 'x': expected {problem}"


def test_unknown_column_is_refused_unless_extra_columns_are_ignored(tmp_path: Path) -> None:
    table, schema = csv(tmp_path, "x,more\n1,2\n"), fields(x="numeric")
    with pytest.raises(SchemaError, match=r"expected the columns of pumps, got another one, 'more'; drop it"):
        read_batches(table, RecordDecoder(schema, "pumps"), 10)
    batch = only(read(table, schema.model_copy(update={"extra": "ignore"})))
    assert batch.numbers.tolist() == [[1.0]]


def test_absent_column_is_refused_unless_nullable(tmp_path: Path) -> None:
    table = csv(tmp_path, "x\n1\n")
    with pytest.raises(SchemaError, match=r"expected a column 'y' as in this model, got only 'x'$"):
        read(table, fields(x="numeric", y="numeric"))
    optional = Column(name="y", role="field", kind="numeric", nullable=True)
    batch = only(read(table, Schema(columns=(*fields(x="numeric").columns, optional))))
    np.testing.assert_array_equal(batch.numbers, [[1.0, nan]])


def test_columns_of_any_name_are_read(tmp_path: Path) -> None:
    names = ["", "a.b", " blank ", "größe"]
    schema = fields(**dict.fromkeys(names, "numeric"))
    tables = [csv(tmp_path, ",a.b, blank ,größe\n1,2,3,4\n"), parquet(tmp_path, **{key: [1.0] for key in names})]
    assert [list(only(read(table, schema)).values) for table in tables] == [names, names]


def test_several_ids_become_an_object(tmp_path: Path) -> None:
    ids = (Column(name="plant", role="id"), Column(name="serial", role="id"))
    schema = Schema(columns=(*ids, *fields(x="numeric").columns))
    batch = only(read(csv(tmp_path, "plant,serial,x\nA,007,1\n,8,2\n"), schema))
    assert batch.ids == [{"plant": "A", "serial": "007"}, {"plant": None, "serial": "8"}]


def test_columns_that_are_not_scored_may_be_absent(tmp_path: Path) -> None:
    roles = ("id", "time", "segment", "label", "ignored")
    others = tuple(Column.model_validate({"name": role, "role": role}) for role in roles)
    schema = Schema(columns=(*fields(x="numeric").columns, *others))
    assert only(read(csv(tmp_path, "x\n1\n"), schema)).ids == [None]


def test_progress_ends_at_one_and_never_falls(tmp_path: Path) -> None:
    table, seen = parquet(tmp_path, x=[1.0, 2.0, 3.0, 4.0]), list[float]()
    list(read_batches(table, RecordDecoder(fields(x="numeric")), 2, seen.append))
    assert seen == [0.5, 1.0, 1.0]
    assert isinstance(table, ParquetTable)


def test_progress_of_text_counts_blocks(tmp_path: Path) -> None:
    table, seen = csv(tmp_path, "x\n" + "1.25\n" * 2_000_000), list[float]()
    n = sum(len(b) for b in read_batches(table, RecordDecoder(fields(x="numeric")), 100_000, seen.append))
    assert isinstance(table, CsvTable)
    assert n == 2_000_000
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


# --- labels and ignored columns ----------------------------------------------------------------------


def labelled(folder: Path, kind: str, values: Sequence[object], name: str = "label") -> Table:
    """A file with a field and a label."""
    if kind == "parquet":
        return parquet(folder, a=[1.0] * len(values), **{name: values})
    if kind == "csv":
        cells = ["" if value is None else str(value) for value in values]
        return csv(folder, f"a,{name}\n" + "".join(f"1,{cell}\n" for cell in cells))
    return csv(folder, "".join(json.dumps({"a": 1, name: value}) + "\n" for value in values), "t.ndjson")


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
@pytest.mark.parametrize(
    ("values", "normal"),
    [(["ok", "bad", "ok", None], "ok"), ([0, 1, 0, None], "0"), ([False, True, False, None], "false")],
)
def test_label_says_normal_anomaly_or_neither(tmp_path: Path, kind: str, values: Sequence[object], normal: str) -> None:
    found = labels(labelled(tmp_path, kind, values), "label", normal)
    assert found.is_normal.tolist() == [True, False, True, False]
    assert found.is_anomaly.tolist() == [False, True, False, False]


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_label_that_is_normal_throughout_is_no_error_of_reading(tmp_path: Path, kind: str) -> None:
    found = labels(labelled(tmp_path, kind, ["ok", "ok"]), "label", "ok")
    assert (found.is_normal.tolist(), found.is_anomaly.tolist()) == ([True, True], [False, False])


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_label_column_and_value_that_are_not_there_are_refused_with_what_is(tmp_path: Path, kind: str) -> None:
    table = labelled(tmp_path, kind, ["ok", "bad"])
    with pytest.raises(SchemaError, match=r"expected a column 'fault', got only 'a', 'label'$"):
        labels(table, "fault", "ok")
    with pytest.raises(TableError, match=r"column 'label' holds no 'fine', only 'bad', 'ok'$"):
        labels(table, "label", "fine")


def test_label_without_any_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"column 'label' holds no 'ok', nor any other value$"):
        labels(labelled(tmp_path, "ndjson", [None, None]), "label", "ok")


@pytest.mark.parametrize("name", ['say "ok"', "two\nlines", "label"])
def test_labels_of_lines_keep_the_positions_of_the_records(tmp_path: Path, name: str) -> None:
    good, bad = json.dumps({"a": 1, name: "ok"}), json.dumps({"a": 2, name: "bad"})
    table = csv(tmp_path, f"{good}\n\n{{broken\n[1]\n{bad}\n" + json.dumps({"a": 1}), "t.ndjson")
    found = labels(table, name, "ok")
    assert found.is_normal.tolist() == [True, False, False, False, False]
    assert found.is_anomaly.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_ignored_column_may_be_there_although_the_schema_does_not_know_it(tmp_path: Path, kind: str) -> None:
    table, decoder = labelled(tmp_path, kind, ["ok", "bad"]), RecordDecoder(fields(a="numeric"))
    batch = only(list(read_batches(table, decoder, 100, ignored=("label", "a", "absent"))))
    assert (texts(batch), batch.numbers.tolist(), list(batch.values)) == ([], [[1.0], [1.0]], ["a"])


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_other_unknown_columns_stay_refused(tmp_path: Path, kind: str) -> None:
    table, decoder = labelled(tmp_path, kind, ["ok", "bad"], name="colour"), RecordDecoder(fields(a="numeric"))
    try:
        found = texts(only(list(read_batches(table, decoder, 100, ignored=("label",)))))
    except SchemaError as error:
        found = [str(error)]
    assert all("'colour'" in text for text in found)
    assert found


# --- damage ----------------------------------------------------------------------------------------


def damaged(folder: Path, content: bytes) -> TableError | SchemaError | None:
    """What reading a Parquet file of these bytes ends with; None where it can be read."""
    (folder / "damaged.parquet").write_bytes(content)
    schema = fields(x="numeric", s="categorical")
    try:
        batches = read(open_table(folder / "damaged.parquet"), schema)
    except (TableError, SchemaError) as error:
        return error
    assert not any(np.isinf(batch.numbers).any() for batch in batches)
    return None


def parquet_file(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


_WHOLE_PARQUET = parquet_file(x=[float(i) for i in range(40)], s=pa.array(["a", "b"] * 20).dictionary_encode())


def test_parquet_names_that_are_not_utf8_are_a_damaged_file(tmp_path: Path) -> None:
    content = parquet_file(xenon=[1.0]).replace(b"xenon", b"x\xffnon")
    assert str(damaged(tmp_path, content)).endswith("expected a Parquet file, got something else or a damaged one")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, len(_WHOLE_PARQUET)), st.integers(0, 255)), min_size=1, max_size=3),
    st.integers(0, len(_WHOLE_PARQUET)),
)
def test_no_damage_to_a_parquet_file_makes_more_than_an_error(
    tmp_path: Path, edits: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(_WHOLE_PARQUET)
    for from_the_end, value in edits:
        content[-from_the_end] = value
    damaged(tmp_path, bytes(content))
    damaged(tmp_path, bytes(content[:length]))


@pytest.mark.parametrize("kind", [pa.sparse_union([]), pa.dictionary(pa.int8(), pa.sparse_union([])), pa.struct([])])
def test_parquet_file_that_claims_other_types_than_it_has_is_read_by_those_that_it_has(
    tmp_path: Path, kind: pa.DataType
) -> None:
    claimed = pa.schema([("x", kind), ("s", kind)]).serialize().to_pybytes()
    table, sink = pa.table({"x": [1.0], "s": ["a"]}), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(claimed).decode()})
    assert damaged(tmp_path, sink.getvalue()) is None
