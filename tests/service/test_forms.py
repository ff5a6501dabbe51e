import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from nelbo.store import Store
from service import forms
from service.answer import Tally, answer
from service.forms import ARROW, CSV, NDJSON, accepted, declared
from service.live import Live
from service.problems import JSON, Answer
from service.request import ScoreRequest
from tests.bundles import VERSION, normal_records, odd_record
from tests.service.conftest import Client

NAMES = ("serial", "pressure", "valve", "in/out [l/s]", "rpm", "heated")
# A value missing, a field left out, a category unseen, and records that every sensible rate flags.
RECORDS = [
    *normal_records(40, seed=4),
    odd_record(rpm=None),
    odd_record(valve="ajar"),
    odd_record(pressure=None, heated=None),
    {name: value for name, value in odd_record().items() if name != "rpm"},
]


@pytest.fixture(scope="module")
def live(models: Path) -> Live:
    live = Live(Store(models))
    live.load_all()
    return live


def post(live: Live, body: bytes, form: str, query: str = "", **options: Any) -> tuple[Answer, Tally]:
    return answer(live, ScoreRequest("pumps", body, form, query=query, **options), max_records=100)


def as_json(records: Sequence[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"records": records})


def as_csv(records: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, NAMES)
    writer.writeheader()
    writer.writerows({k: str(v).lower() if isinstance(v, bool) else v for k, v in r.items()} for r in records)
    return text.getvalue().encode()


def as_arrow(records: Sequence[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist([{name: record.get(name) for name in NAMES} for record in records])
    valve = table["valve"].dictionary_encode()
    sink = io.BytesIO()
    table = table.set_column(table.column_names.index("valve"), "valve", valve)
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=17)
    return sink.getvalue()


BODIES = {CSV: as_csv, ARROW: as_arrow}


@pytest.mark.parametrize("query", ["", "rate=0.2", "explain=all", "explain=none", "fdr=0.2", "strict=true"])
@pytest.mark.parametrize("form", BODIES)
def test_every_form_of_the_same_records_gets_the_same_bytes(form: str, query: str, live: Live) -> None:
    by_json, counted = post(live, as_json(RECORDS), JSON, query)
    found, tally = post(live, BODIES[form](RECORDS), form, query)
    assert (found.status, found.headers) == (200, {"content-type": JSON})
    assert found.body == by_json.body
    assert (tally.n_missing, tally.n_unseen, tally.n_flagged) == (
        counted.n_missing,
        counted.n_unseen,
        counted.n_flagged,
    )


def test_a_wrong_record_of_csv_gets_the_same_error_as_one_of_json(live: Live) -> None:
    records = [*normal_records(2), odd_record(pressure="high"), odd_record(heated="1"), odd_record()]
    found = msgspec.json.decode(post(live, as_csv(records), CSV)[0].body)["results"]
    expected = msgspec.json.decode(post(live, as_json(records), JSON)[0].body)["results"]
    assert [result["index"] for result in found] == [0, 1, 2, 3, 4]
    assert found == expected
    assert [result["error"]["field"] for result in found if "error" in result] == ["pressure", "heated"]


def test_strict_lists_the_wrong_records_of_csv(live: Live) -> None:
    found, tally = post(live, as_csv([odd_record(pressure="high"), odd_record()]), CSV, "strict=true")
    assert (found.status, tally.rejected) == (422, "wrong-records")
    assert msgspec.json.decode(found.body)["errors"] == [
        {
            "detail": "record 0, field 'pressure': expected a number, got 'high'",
            "expected": "a number",
            "found": "'high'",
        }
    ]


@pytest.mark.parametrize(
    ("form", "body", "status", "kind", "detail"),
    [
        (CSV, b"", 400, "not-csv", "the body: expected a header, got blank lines"),
        (CSV, b"\xff", 400, "not-csv", "the body: expected UTF-8 text, got bytes that are not"),
        (ARROW, b"{}", 400, "not-arrow", "the body: expected an Arrow IPC stream, got something else or a damaged one"),
        (CSV, as_csv(normal_records(101)), 413, "too-many-records", "expected at most 100 records, got 101"),
        (ARROW, as_arrow(normal_records(101)), 413, "too-many-records", "expected at most 100 records, got 101"),
    ],
)
def test_a_body_that_is_not_of_its_form_is_refused(
    form: str, body: bytes, status: int, kind: str, detail: str, live: Live
) -> None:
    found, tally = post(live, body, form)
    assert (found.status, found.headers["content-type"]) == (status, "application/problem+json")
    assert (tally.rejected, msgspec.json.decode(found.body)["detail"]) == (kind, detail)


def test_columns_that_do_not_fit_are_refused_by_name(live: Live) -> None:
    found, _ = post(live, b"pressure,valve,heated,flow\n", CSV)
    detail = f"the body: expected the columns of pumps@{VERSION}, got another one, 'flow'"
    assert (found.status, msgspec.json.decode(found.body)["detail"].partition(";")[0]) == (422, detail)


def test_without_pyarrow_tables_are_refused_with_the_extra_that_brings_it(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "_has_pyarrow", lambda: False)
    accepted.cache_clear()
    found, _ = post(live, b"", CSV)
    assert (found.status, found.headers["accept"]) == (415, "application/json, application/x-ndjson")
    assert msgspec.json.decode(found.body)["detail"] == (
        "expected Content-Type application/json, application/x-ndjson; "
        "text/csv needs the files extra: pip install 'nelbo[files]'"
    )
    assert post(live, as_json([]), JSON, accept=CSV)[0].headers == {"content-type": JSON}
    accepted.cache_clear()


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("text/csv", CSV),
        ("Text/CSV; Charset=UTF-8; header=present", CSV),
        ("text/csv; header=absent", None),
        ("text/csv; charset=latin-1", None),
        ("application/x-ndjson", NDJSON),
        ("application/vnd.apache.arrow.stream", ARROW),
        ("application/vnd.apache.arrow.file", None),
        ("", None),
    ],
)
def test_a_form_is_known_by_its_media_type(content_type: str, form: str | None) -> None:
    assert declared(content_type) == form


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("text/csv", CSV),
        ("application/x-ndjson", NDJSON),
        ("application/vnd.apache.arrow.stream", ARROW),
        ("text/csv;q=0.4, application/x-ndjson;q=0.5", NDJSON),
        ("text/csv, application/json", CSV),
        ("text/html, text/csv;q=0.1", CSV),
        ("*/*", JSON),
        ("application/*, text/csv;q=0.9", JSON),
        ("text/csv;q=0", JSON),
        ("text/csv;q=high", JSON),
        ("image/png", JSON),
        (",;=", JSON),
    ],
)
def test_an_answer_has_the_form_that_is_liked_best_of_those_there_are(accept: str, form: str) -> None:
    assert accepted(accept) == form


@given(st.text(max_size=40))
@settings(deadline=None)
def test_no_text_is_a_wrong_header(text: str) -> None:
    assert accepted(text) in forms.FORMS
    assert declared(text) in (None, *forms.FORMS)


def given_as(form: str, live: Live, query: str = "") -> Answer:
    records = [*RECORDS, odd_record(pressure="high")]
    return post(live, as_json(records), JSON, query, accept=form)[0]


def results_of(live: Live) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(given_as(JSON, live).body)["results"]
    return found


def test_an_answer_of_json_lines_holds_the_results(live: Live) -> None:
    assert [msgspec.json.decode(line) for line in given_as(NDJSON, live).body.splitlines()] == results_of(live)


def test_an_answer_of_csv_has_a_line_for_each_result(live: Live) -> None:
    rows = list(csv.DictReader(io.StringIO(given_as(CSV, live).body.decode())))
    expected = results_of(live)
    assert [row["index"] for row in rows] == [str(result["index"]) for result in expected]
    assert [row["flagged"] for row in rows[:-1]] == [str(result["flagged"]).lower() for result in expected[:-1]]
    assert [float(row["score"]) for row in rows[:-1]] == [result["score"]["value"] for result in expected[:-1]]
    assert rows[-1]["error"] == "record 44, field 'pressure': expected a number, got 'high'"


@pytest.mark.parametrize(("explain", "has_reasons"), [("none", False), ("flagged", True)])
def test_a_table_has_reasons_unless_none_are_asked_for(explain: str, has_reasons: bool, live: Live) -> None:
    rows = csv.DictReader(io.StringIO(given_as(CSV, live, f"explain={explain}").body.decode()))
    assert any(row["reason"] for row in rows) == has_reasons


def test_an_answer_of_arrow_has_types(live: Live) -> None:
    table = ipc.open_stream(given_as(ARROW, live).body).read_all()
    expected = results_of(live)
    assert table["p_value"].to_pylist()[:-1] == [result["p_value"] for result in expected[:-1]]
    assert table["reason"].to_pylist()[:-1] == [result["reason"] for result in expected[:-1]]
    assert table["serial"].to_pylist()[:-1] == [result["id"] for result in expected[:-1]]


@pytest.mark.parametrize("form", [CSV, NDJSON, ARROW])
def test_what_the_body_has_no_place_for_stands_in_headers(form: str, live: Live) -> None:
    stated = msgspec.json.decode(given_as(JSON, live, "rate=0.1").body)
    headers = given_as(form, live, "rate=0.1").headers
    assert headers == {
        "content-type": form,
        "nelbo-model": f"pumps@{VERSION}",
        "nelbo-digest": stated["model"]["digest"],
        "nelbo-effective-rate": "0.1",
        "nelbo-mode": "certified",
        "nelbo-threshold": str(stated["decision"]["threshold"]),
        "nelbo-state": "fresh",
    }


def test_a_refusal_is_a_problem_in_json_whatever_is_accepted(live: Live) -> None:
    found, _ = post(live, b"{", JSON, accept=CSV)
    assert (found.status, found.headers["content-type"]) == (400, "application/problem+json")


def test_an_answer_as_csv_holds_no_formula(client: Client) -> None:
    records = [odd_record(serial="=1+1"), odd_record(serial="-5"), odd_record(serial="\t@SUM(1)")]
    found = client.post(
        "/v1/models/pumps/score", json={"records": records}, headers={"accept": "text/csv"}
    ).text.splitlines()
    assert [row[1] for row in csv.reader(found)] == ["serial", "'=1+1", "-5", "'\t@SUM(1)"]
