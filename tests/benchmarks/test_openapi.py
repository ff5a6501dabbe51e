from benchmarks.fuzzing import SHARES
from benchmarks.openapi.__main__ import found_in
from tests.fuzz.targets import TARGETS

OUTPUT = """
- ST202 Schema-valid request rejected
  Tested: 17
Filtered: 1,020 (dropped by `filter_failure`)
  6,068 generated, 1 found 1 unique failure
"""


def test_counts_and_failures_are_read_from_the_output() -> None:
    found = found_in(OUTPUT, 1)
    assert (found.n_operations, found.n_cases, found.n_dropped) == (17, 6068, 1020)
    assert found.failures == ("ST202 Schema-valid request rejected",)


def test_a_run_that_ends_without_a_word_is_a_failure() -> None:
    assert found_in("", 2).failures == ("schemathesis ended with 2",)


def test_every_target_of_fuzzing_has_a_share_of_the_time() -> None:
    assert set(SHARES) == set(TARGETS)
