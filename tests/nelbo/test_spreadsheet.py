import csv
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.buffers import csv_of
from nelbo.spreadsheet import plain, plain_text
from tests.bundles import odd_record, tiny_scorer
from tests.commands import exit_code

FORMULAS = [
    "=1+1",
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "'=1",
    "=",
    "-",
    "+a",
]
PLAIN = ["open", "-5", "+5", "-5.25e-3", ".5", "1=1", " =1", "'open", "", "a\n=1"]


def as_written(text: str) -> str:
    """What docs/forms.md says that one gets back."""
    return re.sub("^'(?='*[=+\\-@\t\r\n＝＋－＠])", "", text)


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_calculate_is_made_plain(text: str) -> None:
    assert plain_text(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_any_other_text_and_a_number_stay_as_they_are(text: str) -> None:
    assert plain_text(text) == text


@given(st.text(alphabet="'=+-@\t\r\n＝a5.e ", max_size=6))
def test_what_was_written_is_had_back_and_a_column_is_as_its_texts(text: str) -> None:
    assert as_written(plain_text(text)) == text
    assert plain(pa.table({"a": [text]}))["a"].to_pylist() == [plain_text(text)]


def test_a_reader_of_csv_finds_no_formula_and_every_number(tmp_path: Path) -> None:
    table = pa.table({"=id": [*FORMULAS, *PLAIN, None], "x": [-1.5] * (len(FORMULAS) + len(PLAIN) + 1)})
    head, *rows = read(csv_of(table))
    assert head == ["'=id", "x"]
    assert [as_written(cell) for cell, _ in rows] == [*FORMULAS, *PLAIN, ""]
    assert {number for _, number in rows} == {"-1.5"}
    assert pa_csv.read_csv(io.BytesIO(csv_of(table)), parse_options=pa_csv.ParseOptions(newlines_in_values=True))[
        "x"
    ].to_pylist() == [-1.5] * len(rows)


def test_a_file_of_scores_holds_no_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_scorer(tmp_path)
    lines = [odd_record(serial="=HYPERLINK(1)", valve="@SUM(1)"), odd_record(serial="-5"), odd_record(pressure="=1")]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(odd_record()))
    writer.writeheader()
    writer.writerows(lines)
    (tmp_path / "new.csv").write_text(text.getvalue())
    bundle = next((tmp_path / "pumps").iterdir())
    for name in ("scores.csv", "scores.parquet"):
        exit_code(monkeypatch, "score", bundle, tmp_path / "new.csv", "-o", tmp_path / name, "--jobs", "1")
    _, *rows = read((tmp_path / "scores.csv").read_bytes())
    assert [row[1] for row in rows[:2]] == ["'=HYPERLINK(1)", "-5"]
    assert [cell for row in rows for cell in row if re.match("[=+@\t\r]|-(?![0-9.])", cell)] == []
    assert pq.read_table(tmp_path / "scores.parquet")["serial"].to_pylist()[:2] == ["=HYPERLINK(1)", "-5"]
