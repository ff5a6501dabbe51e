from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nelbo.errors import SchemaError
from nelbo.schema import Column, Schema, parse_schema, read_schema

SCHEMA = Schema(
    columns=(
        Column(name="id", role="id"),
        Column(name="kind", role="field", kind="categorical", categories=("L", "M"), rare=("H",)),
        Column(name="rpm", role="field", kind="numeric", step=1.0),
        Column(name="when", role="field", kind="timestamp"),
        Column(name="on", role="field", kind="boolean", nullable=True),
        Column(name="failed", role="label"),
    )
)


def test_fields_numbers_and_codes_keep_the_order_of_the_columns() -> None:
    assert [field.name for field in SCHEMA.fields] == ["kind", "rpm", "when", "on"]
    assert [field.name for field in SCHEMA.numbers] == ["rpm", "when"]
    assert [field.name for field in SCHEMA.codes] == ["kind", "on"]
    assert SCHEMA.positions == {"kind": 0, "rpm": 1, "when": 2, "on": 3}


def test_rare_and_unseen_have_the_codes_after_the_known() -> None:
    kind, on = SCHEMA.codes
    assert (kind.known, kind.rare_code, kind.unseen_code, kind.n_codes) == (("L", "M"), 2, 3, 4)
    assert (on.known, on.rare_code, on.unseen_code, on.n_codes) == ((False, True), 2, 3, 4)


def test_schema_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_bytes(SCHEMA.to_json())
    read = read_schema(tmp_path / "schema.json")
    assert read == SCHEMA
    assert read.digest == SCHEMA.digest


def test_schema_of_one_category_more_has_another_digest() -> None:
    other = Schema(columns=(SCHEMA.columns[0], *SCHEMA.columns[2:]))
    assert other.digest != SCHEMA.digest


def test_integer_categories_stay_integers_in_the_file() -> None:
    grades = Schema(columns=(Column(name="grade", role="field", kind="categorical", categories=(2, 10)),))
    assert parse_schema(grades.to_json(), "s").columns[0].categories == (2, 10)


@pytest.mark.parametrize(
    ("column", "detail"),
    [
        ({"name": "a", "role": "field"}, "column 'a' has role 'field' and needs a kind"),
        ({"name": "a", "role": "id", "kind": "numeric"}, "column 'a' has role 'id', and only a field has a kind"),
        (
            {"name": "a", "role": "field", "kind": "categorical", "categories": ["x", 1]},
            "column 'a' mixes strings and integers in its categories",
        ),
        (
            {"name": "a", "role": "field", "kind": "categorical", "categories": ["x"], "rare": ["x"]},
            "column 'a' names a category twice",
        ),
        (
            {"name": "a", "role": "field", "kind": "categorical", "categories": [True]},
            "column 'a' has true or false among its categories; its kind is 'boolean'",
        ),
    ],
)
def test_column_that_contradicts_itself_is_refused(column: dict[str, Any], detail: str) -> None:
    with pytest.raises(ValidationError, match=detail):
        Column.model_validate(column)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (
            '{"columns": [{"name": "a", "role": "id"}, {"name": "a", "role": "id"}]}',
            "the file: column 'a' is named twice",
        ),
        ('{"columns": [{"name": "a", "role": "fields"}]}', "columns.0.role: Input should be 'field'"),
        ('{"columns": [{"name": "a", "role": "id", "typo": 1}]}', "columns.0.typo: Extra inputs are not permitted"),
        ('{"columns": [], "format": 2}', "format: Input should be 1"),
        ("{}", "columns: Field required"),
        ("[]", "the file: Input should be an object"),
        ("{", "the file: Invalid JSON"),
        ("", "the file: Invalid JSON"),
    ],
)
def test_schema_that_is_wrong_is_refused_with_its_place(text: str, detail: str) -> None:
    with pytest.raises(SchemaError) as info:
        parse_schema(text.encode(), "pumps.json")
    assert str(info.value).startswith(f"pumps.json: {detail}")


def test_schema_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"schema\.json: cannot be read: No such file or directory$"):
        read_schema(tmp_path / "schema.json")
