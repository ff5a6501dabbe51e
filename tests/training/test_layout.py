from collections.abc import Sequence

import numpy as np
import pytest

from nelbo.records import Batch
from nelbo.schema import Column, Schema
from training.layout import MIN_SCALE, Layout, lay_out


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
    assert layout.spikes == [0]
    assert layout.spike_values == [0.0]


def test_missing_values_are_left_out() -> None:
    assert lay_out_of([float("nan"), 1.0, 2.0, 3.0]).location[0] == 2.0


@pytest.mark.parametrize("values", [[7.0] * 30, [0.0] * 30, [0.0] * 29 + [1e300], [1e308, -1e308] * 15])
def test_scale_is_a_positive_number_whatever_the_values(values: list[float]) -> None:
    layout = lay_out_of(values)
    assert np.isfinite(layout.scale[0])
    assert layout.scale[0] > 0
    assert np.isfinite(layout.width[0])


def test_field_rounded_to_a_step_is_not_believed_to_be_finer() -> None:
    # A robust standard deviation of one step: the scale of rounding itself is 1/√12 of it.
    values = list(np.repeat([-1.349, 0.0, 1.349], 40))
    layout = lay_out_of(values, step=2.698 / 1.349)
    width = layout.width[0]
    assert layout.min_scale[0] == pytest.approx(1 / (width * np.sqrt(12)) * (2.698 / 1.349) / layout.scale[0])


def test_smallest_scale_has_a_floor() -> None:
    assert lay_out_of(list(range(100))).min_scale[0] == MIN_SCALE


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
