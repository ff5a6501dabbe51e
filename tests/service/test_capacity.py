import pytest

from nelbo.resources import Resources
from service.capacity import capacity_of
from service.settings import Settings


def resources(processors: float, memory_bytes: int | None = None, descriptors: int | None = None) -> Resources:
    limit = "no limit" if memory_bytes is None else "the container's limit"
    return Resources(processors, "the container's quota", memory_bytes, limit, descriptors)


@pytest.mark.parametrize(("processors", "workers"), [(0.5, 1), (1, 1), (2, 1), (3.9, 2), (4, 3), (64, 4)])
def test_the_event_loop_has_a_processor_to_itself_where_there_are_two(processors: float, workers: int) -> None:
    assert capacity_of(Settings(), resources(processors)).workers == workers


def test_a_quarter_of_little_memory_bounds_the_queue() -> None:
    found = capacity_of(Settings(), resources(1, 64 * 2**20))
    assert found.max_queued_records == 64 * 2**20 // 4 // 4096
    assert found.why == (
        "1 thread for large bodies beside the event loop: 1 processor by the container's quota",
        "requests refused while 4,096 records wait: a quarter of 64 MiB of memory by the container's limit",
        "1,024 connections at most: the default",
    )


@pytest.mark.parametrize("memory_bytes", [None, 8 * 2**30])
def test_much_memory_leaves_the_default(memory_bytes: int | None) -> None:
    found = capacity_of(Settings(), resources(1, memory_bytes))
    assert (found.max_queued_records, found.why[1]) == (
        20_000,
        "requests refused while 20,000 records wait: the default",
    )


def test_the_setting_goes_before_both() -> None:
    found = capacity_of(Settings(max_queued_records=7), resources(1, 64 * 2**20))
    assert (found.max_queued_records, found.why[1]) == (
        7,
        "requests refused while 7 records wait: NELBO_MAX_QUEUED_RECORDS",
    )


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(None, 1024), (65_536, 1024), (1024, 864), (256, 96), (10, 1)]
)
def test_few_descriptors_bound_the_connections(descriptors: int | None, connections: int) -> None:
    assert capacity_of(Settings(), resources(1, None, descriptors)).max_connections == connections
    assert capacity_of(Settings(max_connections=5000), resources(1, None, 256)).max_connections == 96


def test_an_eighth_of_the_memory_bounds_the_bytes_that_come() -> None:
    assert capacity_of(Settings(), resources(1, 512 * 2**20)).max_bytes == 64 * 2**20
    assert capacity_of(Settings(), resources(1)).max_bytes == 256 * 2**20
