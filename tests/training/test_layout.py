import math
from collections.abc import Sequence

import numpy as np
import pytest

from nelbo.records import Batch
from nelbo.schema import Column, Schema
from training.layout import Layout, lay_out


def lay_out_of(values: Sequence[float], spike: float | None = None, step: float | None = None) -> Layout:
    schema = Schema(columns=(Column(name="x", role="field", kind="numeric", spike=spike, step=step),))
    numbers = np.array(values, dtype=np.float64)[:, None]
    n = len(values)
    return lay_out(schema, Batch(numbers, np.zeros((n, 0), dtype=np.int64), np.arange(n), [None] * n, {}))


def test_location_and_scale_are_robust() -> None:
    layout = lay_out_of([*range(101), 1e9])
    assert layout.location[0] == pytest.approx(50.5)
    assert layout.scale[0] == pytest.approx(50.5 / 1.349)


def test_spike_is_left_out_of_location_and_scale() -> None:
    layout = lay_out_of([0.0] * 50 + [10.0, 12.0, 14.0], spike=0.0)
    assert layout.location[0] == 12.0
    # Half of the others lie within 1 of it, and none further than 2; with the spike it would be the other way round.
    assert layout.scale[0] == pytest.approx(2 / 1.349)


def test_centre_and_width_are_of_all_values_a_spike_included() -> None:
    layout = lay_out_of([0.0] * 50 + [10.0, 12.0, 14.0], spike=0.0)
    # In units of the scale the spike lies 12 below the location, beyond the bend.
    values = np.array([-bent_below(12 / (2 / 1.349))] * 50 + [-1.349, 0.0, 1.349])
    assert layout.centre[0] == pytest.approx(values.mean())
    assert layout.width[0] == pytest.approx(values.std())


def bent_below(u: float) -> float:
    return 5 * (1 + math.log(u / 5))


def test_missing_values_are_left_out() -> None:
    assert lay_out_of([float("nan"), 1.0, 2.0, 3.0]).location[0] == 2.0


@pytest.mark.parametrize("values", [[7.0] * 30, [0.0] * 30, [0.0] * 29 + [1e300], [1e308, -1e308] * 15])
def test_scale_is_a_positive_number_whatever_the_values(values: list[float]) -> None:
    layout = lay_out_of(values)
    assert np.isfinite(layout.scale[0])
    assert layout.scale[0] > 0
    assert np.isfinite(layout.width[0])


def test_timestamp_is_four_features() -> None:
    schema = Schema(
        columns=(
            Column(name="at", role="field", kind="timestamp"),
            Column(name="x", role="field", kind="numeric"),
        )
    )
    numbers = np.stack([np.arange(30) * 3600.0, np.arange(30.0)], axis=1)
    layout = lay_out(schema, Batch(numbers, np.zeros((30, 0), dtype=np.int64), np.arange(30), [None] * 30, {}))
    assert layout.feature_owner == [1, 0, 0, 0, 0]
    assert layout.n_features == 5


# --- unseen categories ---------------------------------------------------------------------------------


def unseen_of(codes: Sequence[int], n_rare: int = 0) -> float:
    """Probability of a category that is neither a nor b (0, 1) nor one of the rare ones (2); -1 is missing."""
    rare = tuple(f"rare{i}" for i in range(n_rare))
    schema = Schema(columns=(Column(name="c", role="field", kind="categorical", categories=("a", "b"), rare=rare),))
    n = len(codes)
    batch = Batch(np.zeros((n, 0)), np.array(codes, dtype=np.int64)[:, None], np.arange(n), [None] * n, {})
    return float(lay_out(schema, batch).unseen[0])


def test_category_is_improbable_where_none_was_rare() -> None:
    assert unseen_of([0, 1] * 50) == pytest.approx(0.5 / 101)


def test_rare_categories_of_one_record_each_are_as_probable_again() -> None:
    assert unseen_of([0] * 90 + [2] * 10, n_rare=10) == pytest.approx((10 + 0.5) / 101)


def test_of_rare_categories_of_several_records_some_were_seen_once() -> None:
    # Four of them in ten records: 4²/10 = 1.6.
    assert unseen_of([0] * 90 + [2] * 10, n_rare=4) == pytest.approx((1.6 + 0.5) / 101)


def test_missing_categories_are_not_counted() -> None:
    assert unseen_of([-1] * 300 + [0, 1] * 50) == unseen_of([0, 1] * 50)


def test_good_turing_estimate_is_near_the_truth_on_many_draws() -> None:
    """Records of a Zipf law of 300 categories, those of fewer than 5 records rare: the mean over 200 tables.

    The estimate has only r and m to go by; within a half of the truth is what r²/m may cost.
    """
    rng = np.random.default_rng(0)
    law = 1 / np.arange(1, 301)
    law /= law.sum()
    found, true = [], []
    for _ in range(200):
        counts = np.bincount(rng.choice(300, 200, p=law), minlength=300)
        is_rare = (counts > 0) & (counts < 5)
        codes = [0] * int(counts[counts >= 5].sum()) + [2] * int(counts[is_rare].sum())
        found.append(unseen_of(codes, n_rare=int(is_rare.sum())))
        true.append(law[counts == 0].sum())
    assert np.mean(true) / 1.5 < np.mean(found) < 1.5 * np.mean(true)


@pytest.mark.parametrize("codes", [[-1] * 20, [0] * 20, [2] * 20, [0]])
@pytest.mark.parametrize("n_rare", [0, 1, 40])
def test_unseen_is_a_probability_whatever_the_table(codes: list[int], n_rare: int) -> None:
    """A schema may name rare categories that this table has no record of."""
    assert 0 < unseen_of(codes, n_rare) < 1
