import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo import parts
from nelbo.parts import Part, of_row_groups
from nelbo.records import RecordDecoder
from nelbo.schema import Column, Schema
from nelbo.tables import Table, open_table, read_batches

TEXTS = Schema(columns=(Column(name="a", role="id"), Column(name="b", role="id"), Column(name="x", role="ignored")))
_PLAIN = "ab, \n\r\"';é"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_BYTES", 64)
    monkeypatch.setattr(parts, "_RECORDS", 100)


def table(folder: Path, text: str, suffix: str = ".csv") -> Table:
    path = folder / f"t{suffix}"
    path.write_bytes(text.encode())
    return open_table(path)


def ids(of: Table, part: Part | None = None) -> list[tuple[int, object]]:
    batches = list(read_batches(of, RecordDecoder(TEXTS), 7, part=part))
    return [(int(i), value) for batch in batches for i, value in zip(batch.index, batch.ids, strict=True)]


def by_parts(of: Table) -> list[tuple[int, object]]:
    """The records part by part; each part holds as many as it says."""
    found = []
    for part in of.parts():
        records = ids(of, part)
        assert part.n_records in (None, len(records))
        found += records
    return found


@given(
    rows=st.lists(st.tuples(st.text(_PLAIN, max_size=12), st.text(_PLAIN, max_size=12)), min_size=1, max_size=30),
    # With "\n" between lines, Python's csv leaves "\r" unquoted where it may.
    written=st.sampled_from([(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n")]),
)
def test_parts_of_csv_are_its_records_whatever_its_values_hold(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], written: tuple[int, str]
) -> None:
    text, (quoting, end) = io.StringIO(), written
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([("a", "b"), *rows])  # type: ignore[arg-type]
    whole = table(tmp_path_factory.mktemp("csv"), text.getvalue())
    assert by_parts(whole) == ids(whole)
    assert len(ids(whole)) == len(rows)


@pytest.mark.parametrize(
    "line",
    [
        'pipe 5" wide,1\n',  # a quote within a value opens nothing
        '"a"b"c,1\n',
        "\n",
        "\r\n",
        '"two\nlines",1\n',
        '"a ""b""\n",1\n',
        "x,1\r",  # ends a line, too
    ],
)
def test_odd_lines_of_csv_are_cut_nowhere_within(tmp_path: Path, line: str) -> None:
    whole = table(tmp_path, "a,b\n" + "".join(f"{i},plain\n" + (line if i % 7 == 0 else "") for i in range(60)))
    assert by_parts(whole) == ids(whole)


def test_plain_csv_is_cut_into_many_parts_of_known_sizes(tmp_path: Path) -> None:
    found = list(table(tmp_path, "a,b\n" + "12345,7\n" * 80).parts())
    assert [part.n_records for part in found] == [8] * 10
    assert [part.first for part in found] == list(range(0, 80, 8))
    assert found[-1].fraction == 1.0


def test_lone_quote_leaves_one_part_of_all_that_follows(tmp_path: Path) -> None:
    found = list(table(tmp_path, "a,b\n" + "12345,7\n" * 16 + 'pipe 5" wide,1\n' + "12345,7\n" * 80).parts())
    assert [part.n_records for part in found] == [8, 8, None]


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_parts_of_json_lines_are_its_records(tmp_path: Path, mark: str, end: str) -> None:
    lines = [f'{{"a": {i}, "b": "{"x" * (i % 90)}"}}' + "\n" * (1 + i % 3) for i in range(100)]
    whole = table(tmp_path, mark + "".join(lines).rstrip("\n") + end, ".ndjson")
    assert by_parts(whole) == ids(whole)
    assert len(list(whole.parts())) > 50


@given(sizes=st.lists(st.integers(0, 350), max_size=12))
def test_parts_of_row_groups_hold_every_record_once(sizes: list[int]) -> None:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    found = list(of_row_groups(sizes))
    assert [part.first for part in found] == [sum(p.n_records or 0 for p in found[:i]) for i in range(len(found))]
    assert sum(part.n_records or 0 for part in found) == sum(sizes)
    assert all(starts[part.start] + part.skip == part.first for part in found)
    assert all(0 < (part.n_records or 0) <= 100 for part in found)


def test_parquet_is_read_by_parts_across_and_within_row_groups(tmp_path: Path) -> None:
    records = pa.table({"a": list(range(730)), "b": [f"{i}" for i in range(730)]})
    with pq.ParquetWriter(tmp_path / "t.parquet", records.schema) as file:
        for start, n in ((0, 270), (270, 10), (280, 0), (280, 20), (300, 430)):
            file.write_table(records.slice(start, n))
    whole = open_table(tmp_path / "t.parquet")
    assert by_parts(whole) == ids(whole)
    assert [value["a"] for _, value in by_parts(whole)] == list(range(730))  # type: ignore[index]


def test_file_without_records_has_no_parts(tmp_path: Path) -> None:
    assert list(table(tmp_path, "a,b\n").parts()) == []
    assert ids(table(tmp_path, "a,b\n")) == []
