import numpy as np
import pyarrow as pa
import pytest

from benchmarks.quality.categories import with_categories
from benchmarks.quality.protocol import Halves


def numbers(n_columns: int = 8, *, n_distinct: int | None = None) -> Halves:
    rng = np.random.default_rng(0)
    halves = []
    for n in (500, 300):
        x = rng.normal(size=(n, n_columns)) if n_distinct is None else rng.integers(0, n_distinct, (n, n_columns))
        halves.append(pa.table({f"x{j}": x[:, j].astype(float) for j in range(n_columns)}))
    return Halves(halves[0], halves[1], np.arange(300) >= 200)


@pytest.mark.parametrize("n_columns", [1, 2, 7, 8])
def test_half_of_the_columns_become_categories_and_at_least_one(n_columns: int) -> None:
    parts = numbers(n_columns)
    found = with_categories(parts, seed=3)
    changed = [name for name in found.train.column_names if pa.types.is_string(found.train[name].type)]
    assert len(changed) == max(1, n_columns // 2)
    assert found.train.schema.names == parts.train.schema.names
    assert found.train.schema == found.test.schema
    for name in set(parts.train.column_names) - set(changed):
        assert found.train[name].equals(parts.train[name])
        assert found.test[name].equals(parts.test[name])


def test_categories_are_intervals_of_the_column() -> None:
    parts = numbers()
    found = with_categories(parts, seed=3)
    for name in found.train.column_names:
        if pa.types.is_string(found.train[name].type):
            both = [np.concatenate([half[name].to_numpy() for half in (of.train, of.test)]) for of in (parts, found)]
            in_order = both[1][np.argsort(both[0])]
            n_changes = int((in_order[1:] != in_order[:-1]).sum())
            assert 3 <= n_changes == len(set(in_order)) - 1  # each category once in a row


def test_few_distinct_numbers_are_the_categories() -> None:
    found = with_categories(numbers(n_distinct=3), seed=0)
    names = {value for name in found.train.column_names for value in found.train[name].to_pylist()}
    assert {"is 0.0", "is 1.0", "is 2.0"} == {name for name in names if isinstance(name, str)}


def test_constant_column_is_one_category() -> None:
    parts = numbers(1, n_distinct=1)
    assert with_categories(parts, seed=0).test["x0"].unique().to_pylist() == ["is 0.0"]


def test_missing_values_stay_missing_and_names_stay_names() -> None:
    table = pa.table({"a": [1.0, None, 3.0, 7.0] * 5, "b": ["x", None, "y", "z"] * 5})
    found = with_categories(Halves(table, table.slice(0, 3), np.arange(3) > 1), seed=0)
    assert found.test.to_pydict() == {"a": ["is 1.0", None, "is 3.0"], "b": ["x", None, "y"]}


def test_one_seed_makes_the_same_categories() -> None:
    one, two, other = (with_categories(numbers(), seed) for seed in (1, 1, 2))
    assert one.train.equals(two.train)
    assert one.test.equals(two.test)
    assert not one.train.equals(other.train)
