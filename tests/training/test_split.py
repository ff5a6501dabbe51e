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


def test_split_by_time_fits_the_oldest_records_whatever_the_seed() -> None:
    time = np.random.default_rng(0).permutation(100).astype(float)
    parts = [split(100, seed, time) for seed in (0, 1)]
    assert [sorted(time[part.fit]) for part in parts] == [list(range(80))] * 2


def test_split_by_time_cuts_through_records_of_one_moment_at_random() -> None:
    time = np.zeros(100)
    parts = [split(100, seed, time) for seed in (0, 1)]
    assert sorted(parts[0].b) != sorted(parts[1].b)
    assert all(sorted(part.b) != list(range(90, 100)) for part in parts)


def test_split_without_a_time_takes_no_part_from_one_end() -> None:
    parts = split(1_000, seed=0)
    assert all(abs(np.mean(rows) - 499.5) < 5 * 288.7 / np.sqrt(len(rows)) for rows in (parts.fit, parts.a, parts.b))
