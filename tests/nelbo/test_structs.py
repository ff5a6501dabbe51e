import json
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nelbo.records import RecordDecoder
from nelbo.schema import Column, Schema
from nelbo.structs import Structs

SCHEMA = Schema(
    columns=(
        Column(name="kind", role="field", kind="categorical", categories=("L", "a:b"), rare=("r:",), nullable=True),
        Column(name="a", role="field", kind="numeric", nullable=True),
        Column(name="b:", role="field", kind="numeric"),
        Column(name="at", role="field", kind="timestamp", nullable=True),
        Column(name="serial", role="id"),
        Column(name="note", role="ignored"),
    )
)
NUMBERS = Schema(columns=tuple(Column(name=f"n{i}", role="field", kind="numeric", nullable=True) for i in range(3)))
TEXTS = st.text("ab:,L", max_size=4)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"b:": st.none() | st.floats(allow_nan=False, allow_infinity=False)},
        optional={
            "kind": st.none() | st.sampled_from(["L", "a:b", "r:"]) | TEXTS,
            "a": st.none() | st.integers(-5, 5),
            "at": st.none() | st.just("2024-01-01T10:00:00Z") | st.integers(0, 10),
            "serial": st.none() | st.integers() | TEXTS,
            "note": st.none() | TEXTS | st.lists(TEXTS, max_size=2),
        },
    ),
    max_size=6,
)


def structs_of(schema: Schema, records: list[dict[str, Any]]) -> tuple[Structs, list[Any]]:
    structs = Structs(schema, {})
    return structs, msgspec.json.decode(json.dumps(records), type=list[structs.record])  # type: ignore[name-defined]


@given(RECORDS)
def test_the_colons_that_arrays_explain_are_those_of_the_records(records: list[dict[str, Any]]) -> None:
    structs, found = structs_of(SCHEMA, records)
    n_colons = np.broadcast_to(structs.of_records(found).n_colons, len(records))
    assert n_colons.tolist() == [json.dumps(record, separators=(",", ":")).count(":") for record in records]


def test_numbers_left_out_are_missing_and_leave_no_trace() -> None:
    structs, found = structs_of(NUMBERS, [{"n0": 1}, {"n0": None, "n2": 2}, {}])
    arrays = structs.of_records(found)
    np.testing.assert_array_equal(arrays.numbers, [[1, np.nan, np.nan], [np.nan, np.nan, 2], [np.nan] * 3])
    plain_nan = np.array(np.nan).view(np.int64)
    assert set(arrays.numbers.view(np.int64)[np.isnan(arrays.numbers)].tolist()) == {int(plain_nan)}


def test_arrays_can_be_written_to() -> None:
    structs, found = structs_of(NUMBERS, [{"n0": 1, "n1": 2, "n2": 3}])
    arrays = structs.of_records(found)
    arrays.numbers[0, 0] = 7
    assert arrays.numbers[0, 0] == 7


@given(st.lists(RECORDS, max_size=4))
def test_bodies_together_say_what_each_says_alone(bodies: list[list[dict[str, Any]]]) -> None:
    decoder = RecordDecoder(SCHEMA)
    texts = [json.dumps({"records": records}).encode() for records in bodies]
    batch, sizes = decoder.together(texts, max_records=5)
    alone = [decoder.json(text) for text, size in zip(texts, sizes, strict=True) if size >= 0]
    assert [size for size in sizes if size >= 0] == list(map(len, alone))
    assert all(len(records) > 5 for records, size in zip(bodies, sizes, strict=True) if size < 0)
    for name in ("numbers", "codes", "index"):
        apart = [getattr(one, name) for one in alone]
        np.testing.assert_array_equal(getattr(batch, name), np.concatenate(apart) if apart else getattr(batch, name))
    assert list(batch.ids) == [id_ for one in alone for id_ in one.ids]


def test_body_with_something_wrong_is_left_to_be_read_alone() -> None:
    good, repeated = b'{"records":[{"n0":1}]}', b'{"records":[{"n0":1,"n0":2}]}'
    absent_and_repeated = b'{"records":[{"n0":1,"n1":1},{"n0":1,"n0":2,"n1":1,"n2":1}]}'
    bodies = [good, b"{", repeated, good, b'{"columns":{"n0":[1]}}', absent_and_repeated, b'{"records":[{"n0":"x"}]}']
    batch, sizes = RecordDecoder(NUMBERS).together(bodies, max_records=10)
    assert sizes == [1, -1, -1, 1, -1, -1, -1]
    assert batch.numbers[:, 0].tolist() == [1, 1]


def test_moment_that_is_none_in_one_body_leaves_the_others_together() -> None:
    schema = Schema(columns=(Column(name="at", role="field", kind="timestamp"),))
    bodies = [b'{"records":[{"at":1}]}', b'{"records":[{"at":"soon"}]}']
    assert RecordDecoder(schema).together(bodies, max_records=10)[1] == [1, -1]
