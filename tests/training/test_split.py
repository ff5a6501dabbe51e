import numpy as np
import pytest

from training.split import sizes, split


@pytest.mark.parametrize("n", [20, 101, 5_000, 200_000])
def test_sets_are_disjoint_and_hold_every_record(n: int) -> None:
    parts = split(n, seed=0)
    together = np.concatenate([parts.fit, parts.a, parts.b])
    assert sorted(together) == list(range(n))


def test_large_tables_spend_their_records_on_the_fit() -> None:
    assert sizes(1_000_000) == (5_000, 10_000)


def test_same_seed_splits_the_same_way() -> None:
    np.testing.assert_array_equal(split(100, seed=5).b, split(100, seed=5).b)
    assert split(100, seed=5).b.tolist() != split(100, seed=6).b.tolist()


def test_split_by_time_keeps_the_newest_records_for_the_p_values() -> None:
    time = np.arange(100.0)[::-1]
    parts = split(100, seed=0, time=time)
    assert sorted(time[parts.b]) == list(range(90, 100))
    assert sorted(time[parts.a]) == list(range(80, 90))
