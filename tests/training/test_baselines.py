import numpy as np
import pytest

from nelbo.records import Batch
from nelbo.schema import Column, Schema
from training.baselines import BASELINES, Features, baseline_scores, encoded
from training.injection import KINDS, inject
from training.layout import Layout, lay_out

SCHEMA = Schema(
    columns=(
        Column(name="x", role="field", kind="numeric", nullable=True, step=0.5),
        Column(name="kind", role="field", kind="categorical", categories=("a", "b", "c")),
        Column(name="open", role="field", kind="boolean"),
        Column(name="at", role="field", kind="timestamp"),
    )
)
DAY_S = 86_400.0


def batch(numbers: list[list[float]], codes: list[list[int]]) -> Batch:
    n = len(numbers)
    return Batch(np.array(numbers), np.array(codes), np.arange(n), [None] * n, {})


def normal(n: int, seed: int) -> Batch:
    """x around 10, kind mostly a, at noon."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(10, 1, n) * 2) / 2
    at = (0.5 + rng.integers(0, 365, n)) * DAY_S
    codes = np.stack([rng.choice(3, n, p=[0.7, 0.2, 0.1]), rng.integers(0, 2, n)], axis=1)
    return Batch(np.stack([x, at], axis=1), codes, np.arange(n), [None] * n, {})


@pytest.fixture(scope="module")
def layout() -> Layout:
    return lay_out(SCHEMA, normal(400, 0))


@pytest.fixture(scope="module")
def plane() -> Features:
    """Points on a line of three dimensions, and a little beside it."""
    rng = np.random.default_rng(0)
    return np.asarray(np.outer(rng.normal(size=300), [3, 2, 1]) + 0.05 * rng.normal(size=(300, 3)), dtype=np.float32)


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_gives_the_point_off_the_line_the_highest_score(name: str, plane: Features) -> None:
    queries = np.concatenate([plane[:50], np.array([[3, -2, 5]], dtype=np.float32)])
    assert BASELINES[name](plane, queries, 0).argmax() == 50


def test_neighbour_score_is_the_distance_to_the_fifth_nearest() -> None:
    known = np.arange(10, dtype=np.float32)[:, None]
    np.testing.assert_allclose(BASELINES["kNN"](known, np.array([[-1.0]], dtype=np.float32), 0), [5.0])


def test_pca_of_one_column_measures_the_distance_to_the_mean() -> None:
    known = np.array([[-1.0], [1.0]], dtype=np.float32)
    np.testing.assert_allclose(BASELINES["PCA"](known, np.array([[3.0]], dtype=np.float32), 0), [9.0])


def test_two_categories_lie_one_apart(layout: Layout) -> None:
    points = encoded(layout, batch([[10, 0], [10, 0], [10, 0]], [[0, 1], [1, 1], [SCHEMA.codes[0].unseen_code, 1]]))
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(1.0)
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(1.0)


def test_missing_number_stands_at_the_median_and_is_marked(layout: Layout) -> None:
    points = encoded(layout, batch([[np.nan, 0], [float(layout.location[0]), 0]], [[0, 0], [0, 0]]))
    assert (points[0] - points[1]).nonzero()[0].size == 1
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(np.sqrt(0.5))


def test_encoding_bears_whatever_a_record_may_hold(layout: Layout) -> None:
    wild = batch([[3e307, -1e15], [-3e307, np.nan], [np.nan, 0]], [[-1, -1], [4, 3], [3, 2]])
    assert np.isfinite(encoded(layout, wild)).all()


def test_hours_before_and_after_midnight_are_neighbours(layout: Layout) -> None:
    numbers = [[10, DAY_S - 60], [10, DAY_S + 60], [10, 1.5 * DAY_S]]
    late, early, noon = encoded(layout, batch(numbers, [[0, 0]] * 3))
    assert np.linalg.norm(late - early) < 0.1 * np.linalg.norm(late - noon)


def test_same_seed_gives_the_same_baselines(layout: Layout) -> None:
    first, second = (baseline_scores(layout, normal(400, 0), normal(50, 1), 7) for _ in range(2))
    for name in BASELINES:
        np.testing.assert_array_equal(first[name], second[name])


def test_injected_records_differ_from_normal_ones_in_one_field(layout: Layout) -> None:
    source = normal(300, 1)
    injected = inject(layout, source, normal(400, 0), np.random.default_rng(0))
    before = source.index.searchsorted(injected.batch.index)
    numbers = injected.batch.numbers != source.numbers[before]
    codes = injected.batch.codes != source.codes[before]
    assert (numbers.sum(axis=1) + codes.sum(axis=1) == 1).all()
    changed = np.concatenate([numbers, codes], axis=1).argmax(axis=1)
    names = [column.name for column in SCHEMA.numbers + SCHEMA.codes]
    fields = [field.name for field in SCHEMA.fields]
    assert [names[at] for at in changed] == [fields[at] for at in injected.field]


def test_every_kind_is_injected_equally_often(layout: Layout) -> None:
    injected = inject(layout, normal(300, 1), normal(400, 0), np.random.default_rng(0))
    assert {kind: injected.kind.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 250)


def test_shifted_number_keeps_its_step(layout: Layout) -> None:
    injected = inject(layout, normal(300, 1), normal(400, 0), np.random.default_rng(0))
    x = injected.batch.numbers[[kind == "shift" for kind in injected.kind], 0]
    np.testing.assert_array_equal(x * 2, np.round(x * 2))


def test_table_without_categories_gets_no_wrong_category() -> None:
    schema = Schema(columns=(Column(name="x", role="field", kind="numeric"),))
    x = np.random.default_rng(0).normal(size=(50, 1))
    source = Batch(x, np.empty((50, 0), dtype=np.int64), np.arange(50), [None] * 50, {})
    injected = inject(lay_out(schema, source), source, source, np.random.default_rng(0))
    assert set(injected.kind) == {"shift", "swap"}
