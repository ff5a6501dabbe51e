from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from nelbo.errors import SchemaError
from nelbo.inference import fields_from, infer_schema
from nelbo.schema import Column, Schema, parse_schema


def inferred(values: Any) -> Column:
    return infer_schema(pa.table({"x": values})).columns[0]


def completed(column: Column, values: Any) -> Column:
    return fields_from(Schema(columns=(column,)), pa.table({"x": values})).columns[0]


NUMERIC = Column(name="x", role="field", kind="numeric")
CATEGORICAL = Column(name="x", role="field", kind="categorical")


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([None, None], "no value in any record"),
        ([7, 7, 7], "constant"),
        (["on", None, "on"], "constant"),
        ([[1], [2]], "values of type list<item: int64>"),
        ([f"v{i // 2 if i < 4 else i}" for i in range(20)], "nearly every value differs"),
    ],
)
def test_column_that_says_nothing_is_ignored_with_a_note(values: list[Any], note: str) -> None:
    column = inferred(values)
    assert (column.role, column.note) == ("ignored", note)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([f"M{i}" for i in range(20)], "every value differs"),
        ([10 + 7 * i % 20 for i in range(20)], "counts the records"),
    ],
)
def test_column_that_names_the_records_is_their_id(values: list[Any], note: str) -> None:
    column = inferred(values)
    assert (column.role, column.note) == ("id", note)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], "boolean"),
        (["L", "M"], "categorical"),
        ([f"M{i}" for i in range(19)], "categorical"),
        ([0, 1, 1], "categorical"),
        ([1.0, None, 2.0], "categorical"),
        ([1.0, 2.0, 2.0], "numeric"),
        ([1.5, None, 2.0], "numeric"),
        ([0, 1, 2], "numeric"),
        ([*range(19), 20], "numeric"),
        ([*range(20), None], "numeric"),
    ],
)
def test_other_columns_are_fields_of_a_kind(values: list[Any], kind: str) -> None:
    column = inferred(values)
    assert (column.role, column.kind) == ("field", kind)


def test_first_timestamp_is_the_time_and_another_one_a_field() -> None:
    days = [datetime(2020, 3, 1), datetime(2020, 3, 2)]
    table = pa.table({"start": days, "end": [day.replace(hour=1) for day in days]})
    columns = infer_schema(table).columns
    assert [(column.role, column.kind) for column in columns] == [("time", None), ("field", "timestamp")]


def test_column_equal_to_an_earlier_one_is_ignored_by_its_name() -> None:
    table = pa.table({"a": [1.5, None, 3.0], "b": [1.5, 2.0, 3.0], "c": [1.5, None, 3.0]})
    assert [column.note for column in infer_schema(table).columns] == [None, None, "equal to 'a'"]


def test_integers_and_floats_of_the_same_values_are_equal() -> None:
    table = pa.table({"a": [0, 1, 5], "b": [0.0, 1.0, 5.0]})
    assert infer_schema(table).columns[1].note == "equal to 'a'"


def test_numbers_spoilt_by_one_cell_are_noted() -> None:
    column = inferred([*(str(i * i) for i in range(29)), "n.a."])
    assert column.role == "id"
    assert column.note == "every value differs; 1 of 30 values are no numbers, the first is 'n.a.'"


def test_spike_is_a_value_that_stands_out() -> None:
    assert inferred([0.0] * 5 + [1.25, 2.5, 3.75, 5.5]).spike == 0.0


@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 19 + [float(i) for i in range(1, 82)],  # a share of 0.19
        [0.0] * 4 + [9.0] * 2 + [1.5, 3.25],  # the second is half as frequent
        [1.0] * 3 + [2.0] * 8 + [3.0] * 3,  # a sensor of few levels: the neighbours have 6 of 8
        [0.5] * 8 + [0.75] * 2,  # two values
    ],
)
def test_frequent_value_that_does_not_stand_out_is_no_spike(values: list[float]) -> None:
    assert completed(NUMERIC, values).spike is None


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([298.1, 298.2, 300.4], 0.1),
        ([1000.0, 3000.0, 7000.0], 1000.0),
        ([3, 5, 8], 1.0),
        ([0.001, 0.5, 123456.5], None),  # far below a thousandth of the spread
        ([0.1234567, 0.7654321, 0.3333333], None),  # finer than 1e-6
        ([1e308, -1e308, 0.5], None),  # would overflow
    ],
)
def test_step_is_the_largest_power_of_ten_that_matters(values: list[float], step: float | None) -> None:
    assert completed(NUMERIC, values).step == step


def test_categories_come_by_frequency_then_value_and_seldom_ones_are_rare() -> None:
    column = inferred(["b"] * 5 + ["a"] * 5 + ["c"] * 9 + ["d"] * 4 + ["e"])
    assert (column.categories, column.rare) == (("c", "a", "b"), ("d", "e"))


def test_category_of_a_large_table_needs_one_record_in_two_thousand() -> None:
    column = inferred(["a"] * 19_988 + ["b"] * 10 + ["c"] * 9)  # 20,007 records: 10.0035 are needed
    assert (column.categories, column.rare) == (("a",), ("b", "c"))


def test_most_frequent_values_are_categories_where_none_is_frequent() -> None:
    column = inferred(["a", "b", "b", "c", "c"])
    assert (column.categories, column.rare) == (("b", "c"), ("a",))


def test_categories_of_floats_with_gaps_are_integers() -> None:
    column = inferred([1.0, None, 0.0, 1.0])
    assert column.nullable
    assert [type(value) for value in column.categories + column.rare] == [int, int]


def test_categories_are_at_most_a_thousand_and_the_next_ones_are_rare() -> None:
    column = inferred([f"v{i:04}" for i in range(1_002) for _ in range(5)])
    assert len(column.categories) == 1_000
    assert column.rare == ("v1000", "v1001")


def test_only_a_column_with_a_missing_value_is_nullable() -> None:
    table = pa.table({"a": [1.5, None, 2.0], "b": [1.5, 2.5, 9.0]})
    assert [column.nullable for column in infer_schema(table).columns] == [True, False]


def test_what_a_schema_states_stays_as_it_is() -> None:
    stated = Column(name="x", role="field", kind="categorical", categories=("z",), nullable=False, note="by hand")
    column = completed(stated, ["a", "z", None])
    assert (column.categories, column.rare) == (("z",), ("a",))
    assert (column.nullable, column.note) == (False, "by hand")
    assert completed(Column(name="x", role="field", kind="numeric", step=None), [0.1, 0.2, 0.4]).step is None


def test_integers_listed_as_text_by_hand_stay_text() -> None:
    column = completed(CATEGORICAL.model_copy(update={"categories": ("1",)}), [1, 2])
    assert (column.categories, column.rare) == (("1",), ("2",))


@pytest.mark.parametrize(
    ("kind", "values", "problem"),
    [
        ("numeric", ["a"], "numbers for a numeric field, got values of type string"),
        ("numeric", [True], "numbers for a numeric field, got values of type bool"),
        ("categorical", [0.5], "strings or integers for a categorical field, got values of type double"),
        ("boolean", [0], "true and false for a boolean field, got values of type int64"),
    ],
)
def test_kind_that_does_not_fit_the_values_is_refused(kind: str, values: list[Any], problem: str) -> None:
    column = Column.model_validate({"name": "x", "role": "field", "kind": kind})
    with pytest.raises(SchemaError) as caught:
        completed(column, values)
    assert str(caught.value) == f"column 'x': expected {problem}"


def test_field_that_the_table_lacks_is_refused_unless_nullable() -> None:
    table = pa.table({"y": [1]})
    with pytest.raises(SchemaError, match=r"^expected a column 'x' in the table, got none$"):
        fields_from(Schema(columns=(NUMERIC,)), table)
    optional = Schema(columns=(Column(name="x", role="field", kind="numeric", nullable=True),))
    assert fields_from(optional, table) == optional


def test_completed_schema_shows_its_own_fields() -> None:
    schema = Schema(columns=(CATEGORICAL,), extra="ignore")
    assert schema.fields[0].categories == ()  # looked at before, and so cached
    complete = fields_from(schema, pa.table({"x": ["L", "L"]}))
    assert (complete.fields[0].categories, complete.extra) == (("L",), "ignore")


def test_inferred_schema_survives_its_file() -> None:
    schema = infer_schema(pa.table({"a": [1.5, None, 0.0], "b": ["L", "M", "L"], "c": [1, 1, 1]}))
    assert parse_schema(schema.to_json(), "schema.json") == schema
