import numpy as np
import pytest

from nelbo.drift import Reference, parse_reference, reference_of
from nelbo.errors import BundleError
from nelbo.records import RecordDecoder
from nelbo.schema import Column, Schema

SCHEMA = Schema(
    columns=(
        Column(name="kind", role="field", kind="categorical", categories=("L", "M")),
        Column(name="rpm", role="field", kind="numeric"),
    )
)


def reference(rpm: list[float | None], kind: list[str | None]) -> Reference:
    records = [{"rpm": r, "kind": k} for r, k in zip(rpm, kind, strict=True)]
    return reference_of(SCHEMA, RecordDecoder(SCHEMA).objects(records))


def test_categories_are_counted_by_code_with_rare_and_unseen() -> None:
    sketch = reference([1.0] * 5, ["L", "M", "M", "?", None]).fields["kind"]
    assert (sketch.counts, sketch.missing, sketch.edges) == ((1, 2, 0, 1), 1, ())


def test_numbers_fall_into_twenty_bins_of_equally_many() -> None:
    sketch = reference([float(i) for i in range(1000)], ["L"] * 1000).fields["rpm"]
    assert sketch.counts == (50,) * 20
    assert np.allclose(sketch.edges, np.arange(1, 20) * 49.95)


def test_constant_numbers_share_one_edge() -> None:
    sketch = reference([7.0] * 100, ["L"] * 100).fields["rpm"]
    assert (sketch.edges, sketch.counts, sketch.missing) == ((7.0,), (0, 100), 0)


def test_field_without_values_has_an_empty_sketch() -> None:
    found = reference([None, None], [None, None])
    assert (found.fields["rpm"].edges, found.fields["rpm"].counts, found.fields["rpm"].missing) == ((), (0,), 2)
    assert (found.fields["kind"].counts, found.fields["kind"].missing) == ((0, 0, 0, 0), 2)


def test_reference_survives_its_file_in_the_order_of_the_fields() -> None:
    found = reference([1.0, 2.0], ["L", "M"])
    assert parse_reference(found.model_dump_json().encode(), "x") == found
    assert (list(found.fields), found.n_records) == (["kind", "rpm"], 2)


def test_reference_that_is_wrong_is_refused() -> None:
    with pytest.raises(BundleError, match=r"^bundle 'a@1': reference\.json: Field required$"):
        parse_reference(b"{}", "bundle 'a@1'")
