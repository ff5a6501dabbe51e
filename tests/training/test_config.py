import pytest

from training.config import Config


@pytest.mark.parametrize(
    ("n", "steps"), [(1, 1000), (666, 1000), (668, 1002), (1999, 2998), (2000, 3000), (10**7, 3000)]
)
def test_steps_are_one_and_a_half_a_record_within_bounds(n: int, steps: int) -> None:
    assert Config().steps_for(n) == steps


@pytest.mark.parametrize("n", [1, 2000, 10**7])
def test_steps_that_a_person_asks_for_hold_for_every_table(n: int) -> None:
    assert Config(steps=7).steps_for(n) == 7
