import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nelbo.errors import BodyError, NotJsonError, RecordError
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Column, Kind, Schema
from nelbo.structs import MISSING, seconds_since_1970


def field(name: str, kind: Kind = "numeric", **rest: Any) -> Column:
    return Column(name=name, role="field", kind=kind, **rest)


def decoder(*columns: Column, extra: str = "refuse") -> RecordDecoder:
    return RecordDecoder(Schema.model_validate({"columns": columns, "extra": extra}))


def body(*records: str) -> bytes:
    return f'{{"records":[{",".join(records)}]}}'.encode()


def texts(batch: Batch) -> list[str]:
    return [str(error) for error in batch.errors]


A = field("a")
KIND = field("kind", "categorical", categories=("L", "M"))
GRADE = field("grade", "categorical", categories=(1, 2))
HEATED = field("heated", "boolean")
MOMENT = field("moment", "timestamp")
NOTE = Column(name="note", role="ignored")


# --- what is a value ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "expected", "found"),
    [
        (A, "true", "a number", "true"),
        (A, '"1.0"', "a number", "'1.0'"),
        (A, "1e400", "a number", "1e400"),
        (A, "[1]", "a number", "[1]"),
        (A, '{"b": 1}', "a number", "{'b': 1}"),
        (KIND, "1", "a string", "1"),
        (KIND, "false", "a string", "false"),
        (GRADE, "1.0", "an integer", "1.0"),
        (GRADE, "true", "an integer", "true"),
        (GRADE, '"1"', "an integer", "'1'"),
        (HEATED, "1", "true or false", "1"),
        (HEATED, '"true"', "true or false", "'true'"),
        (MOMENT, '"2024-13-01"', "an ISO 8601 date and time, or seconds since 1970", "'2024-13-01'"),
        (MOMENT, "true", "an ISO 8601 date and time, or seconds since 1970", "true"),
    ],
)
def test_value_of_another_type_is_never_coerced(column: Column, value: str, expected: str, found: str) -> None:
    (error,) = decoder(column).json(body(f'{{"{column.name}": {value}}}')).errors
    assert (error.index, error.field, error.expected, error.found) == (0, column.name, expected, found)
    assert str(error) == f"record 0, field '{column.name}': expected {expected}, got {found}"


@pytest.mark.parametrize("digits", [400, 5_000])
def test_integer_too_large_for_a_float_is_an_error_that_is_cut_to_a_line(digits: int) -> None:
    (error,) = decoder(A).json(body('{"a": 1' + "0" * digits + "}")).errors
    assert error.found == "1" + "0" * 59 + "…"


def test_integer_of_any_length_is_an_unseen_category() -> None:
    batch = decoder(GRADE).json(body('{"grade": 1' + "0" * 400 + "}"))
    assert batch.codes.tolist() == [[GRADE.unseen_code]]


@pytest.mark.parametrize("token", ["01", "1.", "+1", "'1'"])
def test_token_that_json_does_not_know_refuses_the_body_and_says_where(token: str) -> None:
    with pytest.raises(BodyError, match=r"^the body is not JSON: .* \(byte \d+\)$"):
        decoder(A).json(body(f'{{"a": {token}}}'))


def test_null_is_missing_in_every_kind_of_field() -> None:
    batch = decoder(A, KIND, GRADE, HEATED, MOMENT).json(
        body('{"a": null, "kind": null, "grade": null, "heated": null, "moment": null}')
    )
    assert np.isnan(batch.numbers).tolist() == [[True, True]]
    assert batch.codes.tolist() == [[MISSING, MISSING, MISSING]]


def test_field_may_be_left_out_only_if_it_is_nullable() -> None:
    batch = decoder(A, field("b", nullable=True), field("c", "categorical", nullable=True)).json(
        body('{"a": 1}', '{"b": 1}')
    )
    assert np.isnan(batch.numbers[0]).tolist() == [False, True]
    assert batch.codes.tolist() == [[MISSING]]
    needed = "a value for 'a' (this model has 3 fields, of which 'b', 'c' may be left out)"
    assert texts(batch) == [f"record 1, field 'a': expected {needed}, got none"]


def test_unseen_and_rare_categories_have_codes_of_their_own() -> None:
    column = field("kind", "categorical", categories=("L", "M"), rare=("H",))
    batch = decoder(column).json(body('{"kind": "M"}', '{"kind": "H"}', '{"kind": "?"}', '{"kind": ""}'))
    assert batch.codes.tolist() == [[1], [2], [3], [3]]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ('"1970-01-02T00:00:00Z"', 86400.0),
        ('"1970-01-02"', 86400.0),
        ('"1970-01-01T01:00:00+01:00"', 0.0),
        ("86400.5", 86400.5),
        ('"0001-01-01T00:00:00+23:59"', -62135683140.0),
    ],
)
def test_timestamp_is_iso_8601_or_seconds_and_utc_without_a_zone(value: str, seconds: float) -> None:
    assert decoder(MOMENT).json(body(f'{{"moment": {value}}}')).numbers.tolist() == [[seconds]]


def test_seconds_pass_as_they_are() -> None:
    assert seconds_since_1970(-1.5) == -1.5


def test_values_are_the_records_own() -> None:
    batch = decoder(A, KIND).json(body('{"a": 1, "kind": "L"}', '{"a": null, "kind": "?"}'))
    np.testing.assert_array_equal(batch.values["a"], [1, np.nan])
    assert list(batch.values["kind"]) == ["L", "?"]


# --- what is a record --------------------------------------------------------------------------------


@pytest.mark.parametrize(("record", "found"), [("1", "1"), ("null", "null"), ("[1]", "[1]"), ('"a"', "'a'")])
def test_record_that_is_no_object_is_an_error_of_its_own(record: str, found: str) -> None:
    batch = decoder(A).json(body('{"a": 1}', record))
    assert texts(batch) == [f"record 1: expected a JSON object, got {found}"]
    assert batch.numbers.tolist() == [[1.0]]


def test_unknown_name_is_refused_and_named() -> None:
    batch = decoder(A, KIND).json(body('{"a": 1, "kind": "L", "b": 2}'))
    assert texts(batch) == ["record 0, field 'b': expected one of the 2 columns of this model, got another name"]


def test_unknown_name_is_passed_over_where_the_schema_says_so() -> None:
    batch = decoder(A, extra="ignore").json(body('{"a": 1, "b": {"c": [1, {"c": 2, "c": 3}]}}', '{"a": 2}'))
    assert batch.numbers.tolist() == [[1.0], [2.0]]
    assert batch.errors == ()


def test_one_bad_record_does_not_shift_the_others() -> None:
    batch = decoder(Column(name="id", role="id"), A).json(
        body('{"id": "x", "a": 1}', '{"id": "y", "a": "?"}', '{"id": "z", "a": 3}')
    )
    assert (batch.index.tolist(), list(batch.ids), batch.numbers.tolist()) == ([0, 2], ["x", "z"], [[1.0], [3.0]])
    assert batch.n_records == 3


def test_first_wrong_field_in_the_order_of_the_schema_is_named() -> None:
    batch = decoder(A, field("b")).json(body('{"b": "?", "a": "?"}'))
    assert [error.field for error in batch.errors] == ["a"]


def test_one_id_is_echoed_as_it_is_and_several_as_an_object() -> None:
    one = decoder(Column(name="i", role="id"), A)
    assert list(one.json(body('{"a": 1, "i": 7}', '{"a": 1}', '{"a": 1, "i": null}')).ids) == [7, None, None]
    two = decoder(Column(name="i", role="id"), Column(name="j", role="id"), A)
    assert list(two.json(body('{"a": 1, "i": 7, "j": "x:y"}', '{"a": 1}')).ids) == [{"i": 7, "j": "x:y"}, None]


def test_id_that_is_no_scalar_is_an_error() -> None:
    batch = decoder(Column(name="i", role="id"), A).json(body('{"a": 1, "i": [1]}'))
    assert texts(batch) == ["record 0, field 'i': expected a string, a number, true, false or null, got [1]"]


def test_schema_of_numbers_or_codes_alone_gives_arrays_of_width_zero() -> None:
    assert decoder(A).json(body('{"a": 1}')).codes.shape == (1, 0)
    assert decoder(KIND).json(body('{"kind": "L"}')).numbers.shape == (1, 0)


def test_no_records_are_an_empty_batch() -> None:
    for batch in (decoder(A, KIND).json(body()), decoder(A, KIND).lines(b"\n\n"), decoder(A, KIND).objects([])):
        assert (len(batch), batch.numbers.shape, batch.codes.shape) == (0, (0, 1), (0, 1))


# --- repeated names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        '{"a": 1, "kind": "L", "a": 1}',
        '{"a": 1, "kind": "L", "\\u0061": 2}',
        '{"a": 1, "kind": "x:y", "a": 2}',
        '{"a": 1, "kind": "x\\u003ay", "a": 2}',
        '{"a": 1, "kind": "\\"a\\":", "a": 2}',
        '{"a": 1, "kind": "L", "note": {"b": 1}, "a": 2}',
        '{"a" : 1, "kind" : "L" , "a"\t: 2}',
    ],
)
def test_repeated_name_is_found_behind_strings_escapes_and_colons(record: str) -> None:
    expected = ["record 0, field 'a': expected the name once, got it several times"]
    assert texts(decoder(A, KIND, NOTE).json(body(record))) == expected
    assert texts(decoder(A, KIND, NOTE).lines(record.encode())) == expected
    assert texts(decoder(A, KIND, NOTE, extra="ignore").json(body(record))) == expected


@pytest.mark.parametrize("kind", ["x:y", ":::", "\\u003a", '\\"a\\": 1', "\\\\", "{", "}]"])
def test_colons_and_brackets_in_strings_are_no_names(kind: str) -> None:
    batch = decoder(A, KIND).json(body(f'{{"a": 1, "kind": "{kind}"}}'))
    assert texts(batch) == []
    assert batch.codes.tolist() == [[KIND.unseen_code]]


def test_names_within_an_ignored_value_are_nobodys_business() -> None:
    good, bad = '{"a": 1, "note": {"b": 1, "b": 2}}', '{"a": true}'
    assert texts(decoder(A, NOTE).json(body(good))) == []
    assert [error.index for error in decoder(A, NOTE).json(body(good, bad)).errors] == [1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"columns": {"a": [1], "a": [2]}}', "a"),
        ('{"columns": {"x\\u003ay": [1], "a": [1], "a": [2]}}', "a"),
        ('{"records": [{"a": 1}], "records": []}', "records"),
        ('{"columns": {"a": [1]}, "columns": {"a": [2]}}', "columns"),
    ],
)
def test_repeated_column_or_body_name_refuses_the_body(text: str, name: str) -> None:
    with pytest.raises(BodyError, match=f"^the name '{name}' stands several times in one object; expected it once$"):
        decoder(A, field("x:y", nullable=True)).json(text.encode())


# --- names of any kind -------------------------------------------------------------------------------

NAMES = [
    "a:b",
    "a.b",
    "a/b~",
    'say "a"',
    "back\\slash",
    "two\nlines",
    "é",
    "\u2028",
    "records",
    "columns",
    "c0",
    "",
    "'",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_column_of_any_name_is_read_from_records_lines_and_columns(name: str, ascii_only: bool) -> None:
    reader = decoder(field("n"), field(name))

    def written(value: object) -> bytes:
        return json.dumps(value, ensure_ascii=ascii_only).encode()

    record = {"n": 1, name: 2}
    for batch in (
        reader.json(written({"records": [record]})),
        reader.lines(written(record)),
        reader.json(written({"columns": {"n": [1], name: [2]}})),
        reader.objects([record]),
    ):
        assert texts(batch) == []
        assert batch.numbers.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("name", NAMES)
def test_error_names_a_column_of_any_name(name: str) -> None:
    reader = decoder(field("n"), field(name))
    for text in ({"records": [{"n": 1, name: "x"}]}, {"columns": {"n": [1], name: ["x"]}}):
        assert texts(reader.json(json.dumps(text).encode())) == [
            f"record 0, field '{name}': expected a number, got 'x'"
        ]


def test_no_other_name_reaches_a_column_whose_own_no_struct_can_have() -> None:
    reader = decoder(field("n", nullable=True), field('"', nullable=True), extra="ignore")
    batch = reader.objects([{"\x7fc1": 5.0, "c1": 6.0}])
    assert np.isnan(batch.numbers).all()


# --- encodings and depth -----------------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["refuse", "ignore"])
@pytest.mark.parametrize("record", [b'{"a":1,"note":"\xff"}', b'{"a":1,"kind":"\xff"}', b'{"a":1,"\xff":1}'])
def test_invalid_utf_8_anywhere_is_an_error_of_its_record(record: bytes, extra: str) -> None:
    reader = decoder(A, field("kind", "categorical", nullable=True), NOTE, extra=extra)
    for batch in (
        reader.json(b'{"records":[{"a":1},' + record + b"]}"),
        reader.lines(b'{"a":1}\n' + record),
        reader.json(b'{"records":[{"a":1},' + record + b',{"a":true}]}'),
    ):
        assert batch.errors[0].index == 1
        assert batch.numbers.tolist() == [[1.0]]


def test_lone_surrogate_is_not_json() -> None:
    with pytest.raises(NotJsonError, match=r"^record 0, field 'note': expected whole characters, got a surrogate"):
        decoder(A, NOTE).json(body('{"a": 1, "note": "\\ud800"}'))
    (error,) = decoder(A, NOTE).lines(b'{"a": 1, "note": "\\ud800"}').errors
    assert (error.field, error.expected) == (None, "a JSON object")


@pytest.mark.parametrize("nested", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_nesting_of_any_depth_is_refused_in_one_sentence(nested: str) -> None:
    for column in (A, NOTE):
        with pytest.raises(BodyError, match=r"^the body is nested too deeply to be records$"):
            decoder(column).json(body(f'{{"{column.name}": {nested}}}'))
        batch = decoder(column).lines(f'{{"{column.name}": {nested}}}'.encode())
        assert texts(batch) == ["record 0: expected a flat JSON object, got one nested too deeply"]


def test_long_integer_in_an_ignored_column_disturbs_nobody() -> None:
    long = '{"a": 1, "note": 1' + "0" * 5_000 + "}"
    batch = decoder(A, NOTE).json(body(long, '{"a": true}'))
    assert (batch.index.tolist(), [error.index for error in batch.errors]) == ([0], [1])


# --- bodies ------------------------------------------------------------------------------------------

BODY = r'expected a JSON object with either "records": \[{…}, …\] or "columns": {"field": \[…\], …}$'


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "1",
        "null",
        '{"records": null}',
        '{"records": {"a": 1}}',
        '{"rows": []}',
        '{"records": [], "columns": {"a": []}}',
        '{"columns": []}',
        '{"columns": {"a": 1}}',
    ],
)
def test_body_of_another_shape_is_refused_with_the_two_that_are_right(text: str) -> None:
    with pytest.raises(BodyError, match=BODY):
        decoder(A).json(text.encode())


@pytest.mark.parametrize("text", [b"", b"{", b'{"records":[]}x', b'\xef\xbb\xbf{"records":[]}', b"\x00", b"a=1"])
def test_body_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(BodyError, match=r"^the body is not JSON: "):
        decoder(A).json(text)


def test_columns_give_what_records_give() -> None:
    reader = decoder(A, KIND, field("b", nullable=True))
    records = reader.json(body('{"a": 1, "kind": "L"}', '{"a": null, "kind": "?"}'))
    columns = reader.json(b'{"columns": {"kind": ["L", "?"], "a": [1, null]}}')
    np.testing.assert_array_equal(records.numbers, columns.numbers)
    np.testing.assert_array_equal(records.codes, columns.codes)


def test_columns_of_unequal_length_are_refused_by_name() -> None:
    with pytest.raises(
        BodyError, match=r"^column 'b/~' has 1 values, column 'a' has 2: expected equally many$"
    ) as info:
        decoder(A, field("b/~")).json(b'{"columns": {"a": [1, 2], "b/~": [1]}}')
    assert info.value.pointer == "/columns/b~1~0"


def test_absent_and_unknown_columns_are_refused_by_name() -> None:
    absent = r"^expected a value for 'b' \(this model has 2 fields, none of which may be left out\), got none$"
    with pytest.raises(BodyError, match=absent):
        decoder(A, field("b")).json(b'{"columns": {"a": [1]}}')
    with pytest.raises(BodyError, match=r"^column 'c' is not among the columns of this model$") as info:
        decoder(A).json(b'{"columns": {"a": [1], "c": [1]}}')
    assert info.value.pointer == "/columns/c"
    assert len(decoder(A, extra="ignore").json(b'{"columns": {"a": [1], "c": [{}]}}')) == 1


def test_no_columns_are_refused() -> None:
    with pytest.raises(BodyError, match=r"^expected columns with values, got none$"):
        decoder(field("a", nullable=True)).json(b'{"columns": {}}')


def test_bad_cell_of_a_column_is_an_error_of_its_record() -> None:
    batch = decoder(A).json(b'{"columns": {"a": [1, "x", 3]}}')
    assert batch.index.tolist() == [0, 2]
    assert texts(batch) == ["record 1, field 'a': expected a number, got 'x'"]


# --- lines and objects -------------------------------------------------------------------------------


def test_lines_are_counted_from_the_first_and_blank_ones_not_at_all() -> None:
    batch = decoder(A).lines(b'{"a": 1}\r\n\n  {"a": true}\n{"a": 3}', first=10)
    assert batch.index.tolist() == [10, 12]
    assert texts(batch) == ["record 11, field 'a': expected a number, got true"]


def test_line_that_is_not_json_sinks_no_other() -> None:
    batch = decoder(A).lines(b'{"a": 1}\n{"a": NaN}\n{"a": 3}')
    assert batch.index.tolist() == [0, 2]
    assert texts(batch)[0].startswith("record 1: expected a JSON object, got text that is not JSON (")


def test_objects_take_nan_for_missing_and_refuse_infinity() -> None:
    batch = decoder(A).objects([{"a": float("nan")}, {"a": float("inf")}, {"a": 1}])
    assert np.isnan(batch.numbers[:, 0]).tolist() == [True, False]
    assert [(error.index, error.expected) for error in batch.errors] == [(1, "a number")]


@pytest.mark.parametrize("value", ["\ud800", object(), np.float64(1)])
def test_object_that_json_cannot_write_is_refused(value: object) -> None:
    with pytest.raises(BodyError, match=r"^the records cannot be written as JSON: "):
        decoder(A).objects([{"a": value}])


def test_object_within_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BodyError, match=r"^the records cannot be written as JSON: "):
        decoder(A).objects([{"a": endless}])


# --- both paths agree --------------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "c0", "records", "x:y", 'q"', "é", "n/a", "\n"])
_COLUMNS = st.builds(
    lambda name, role, kind, nullable, known: Column.model_validate(
        {"name": name, "role": role}
        | ({"kind": kind, "nullable": nullable} if role == "field" else {})
        | ({"categories": known} if role == "field" and kind == "categorical" else {})
    ),
    _NAMES,
    st.sampled_from(["field", "field", "field", "id", "ignored", "label"]),
    st.sampled_from(["numeric", "categorical", "boolean", "timestamp"]),
    st.booleans(),
    st.sampled_from([(), ("L", ":"), (1, 2)]),
)
_SCHEMAS = st.builds(
    lambda columns, extra: Schema.model_validate({"columns": columns, "extra": extra}),
    st.lists(_COLUMNS, min_size=1, max_size=5, unique_by=lambda column: column.name),
    st.sampled_from(["refuse", "ignore"]),
)
_GOOD = [
    "1",
    "0.5",
    "-0",
    "null",
    "true",
    '"L"',
    '":"',
    '"\\u003a"',
    '"1970-01-01T00:00:00Z"',
    "2",
    '"x"',
    '"é"',
    '"{"',
]
_VALUES = st.sampled_from([*_GOOD, "1e400", "[]", '{"a":1,"a":2}', '"\\""', "1" + "0" * 400])
_BROKEN = st.sampled_from(["{", "1", '{"a":NaN}', '{"a":"\\ud800"}', "[1]", '"a"', "{}x"])


def record_text(pairs: list[tuple[str, str]], ascii_only: bool) -> str:
    return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=ascii_only)}: {v}" for k, v in pairs) + "}"


_RECORDS = st.builds(record_text, st.lists(st.tuples(_NAMES, _VALUES), max_size=6), st.booleans())


def of(read: Callable[[bytes], Batch], text: str) -> tuple[Any, ...]:
    """A batch, or its errors, in a form that compares."""
    try:
        batch = read(text.encode())
    except BodyError as error:
        return ("body", re.sub(r"byte \d+", "", str(error)))
    numbers = [[None if np.isnan(value) else value for value in row] for row in batch.numbers.tolist()]
    errors = [(error.index, error.field, error.expected, error.found) for error in batch.errors]
    return (numbers, batch.codes.tolist(), batch.index.tolist(), list(batch.ids), errors)


@settings(max_examples=250, deadline=None)
@given(_SCHEMAS, st.lists(_RECORDS | _BROKEN, max_size=5))
def test_batch_of_lines_says_of_each_record_what_it_says_of_it_alone(schema: Schema, records: list[str]) -> None:
    reader = RecordDecoder(schema)
    together = reader.lines("\n".join(records).encode())
    alone = [reader.lines(record.encode(), first=i) for i, record in enumerate(records)]
    np.testing.assert_array_equal(
        together.numbers, np.concatenate([np.empty((0, len(schema.numbers)))] + [b.numbers for b in alone])
    )
    assert together.codes.tolist() == [row for batch in alone for row in batch.codes.tolist()]
    assert together.index.tolist() == [i for batch in alone for i in batch.index.tolist()]
    assert list(together.ids) == [i for batch in alone for i in batch.ids]
    assert texts(together) == [text for batch in alone for text in texts(batch)]


@settings(max_examples=250, deadline=None)
@given(_SCHEMAS, st.lists(_RECORDS, max_size=5))
def test_json_says_of_records_what_lines_say(schema: Schema, records: list[str]) -> None:
    reader = RecordDecoder(schema)
    assert of(reader.json, f'{{"records": [{",".join(records)}]}}') == of(reader.lines, "\n".join(records))


@settings(max_examples=250, deadline=None)
@given(_SCHEMAS, st.integers(0, 3), st.data())
def test_columns_say_what_their_records_say(schema: Schema, n: int, data: st.DataObject) -> None:
    reader = RecordDecoder(schema)
    names = [column.name for column in schema.columns]
    cells = {name: data.draw(st.lists(_VALUES, min_size=n, max_size=n)) for name in names}
    columns = ", ".join(f"{json.dumps(name)}: [{', '.join(values)}]" for name, values in cells.items())
    records = [record_text([(name, cells[name][i]) for name in names], True) for i in range(n)]
    assert of(reader.json, f'{{"columns": {{{columns}}}}}') == of(reader.lines, "\n".join(records))


@settings(max_examples=250, deadline=None)
@given(_SCHEMAS, st.binary(max_size=40) | st.lists(_RECORDS).map(lambda r: body(*r)), st.data())
def test_no_body_raises_anything_but_an_error_for_its_sender(schema: Schema, text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, max(0, len(text) - 1)))
    flipped = text[:at] + bytes([text[at] ^ (1 << data.draw(st.integers(0, 7)))]) + text[at + 1 :] if text else text
    reader = RecordDecoder(schema)
    for read in (reader.json, reader.lines):
        try:
            batch = read(flipped)
        except BodyError:
            continue
        assert all(isinstance(error, RecordError) for error in batch.errors)
        assert batch.numbers.shape == (len(batch), len(schema.numbers))


def test_struct_of_many_columns_is_read_in_the_order_of_the_schema() -> None:
    columns = [field(f"f{i}", nullable=i % 3 == 0) for i in range(200)]
    record = {f"f{i}": i for i in reversed(range(200))}
    batch = RecordDecoder(Schema(columns=tuple(columns))).json(msgspec.json.encode({"records": [record]}))
    assert batch.numbers.tolist() == [[float(i) for i in range(200)]]


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"records": [{"a": 1}, {"a": %s}]}', "/records/1/a"),
        ('{"columns": {"a": [1, %s]}}', "/columns/a/1"),
    ],
)
def test_token_that_json_does_not_have_is_named_with_its_place(token: str, body: str, pointer: str) -> None:
    decoder = RecordDecoder(Schema(columns=(Column(name="a", role="field", kind="numeric"),)))
    with pytest.raises(BodyError) as caught:
        decoder.json((body % token).encode())
    assert caught.value.pointer == pointer
    expected = f"record 1, field 'a': expected a number, got {token}, which is not JSON; a missing value is null"
    assert str(caught.value) == expected
