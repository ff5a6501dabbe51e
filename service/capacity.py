"""How much the service takes on at once: chosen from the settings, and from what it may use of its machine."""

from dataclasses import dataclass

from nelbo.resources import Resources
from service.settings import Settings

# Of 30 fields, that many take half a second on one processor where none is explained (2026-11-25). Chosen
_MOST_QUEUED = 20_000
# What a waiting record of 30 fields takes while it is decoded, scored and answered; measured 2026-11-25: 2 to 3 kB.
_BYTES_A_RECORD = 4096
_SHARE_OF_MEMORY = 4  # a quarter of it may hold records that wait; chosen
_SHARE_OF_BYTES = 8  # bodies that are coming, streams, and answers that nobody reads yet: an eighth each. Chosen
_MOST_BYTES = 256 * 2**20  # where nothing limits the memory; chosen
_MOST_CONNECTIONS = 1024  # chosen: one process, one core
# Of descriptors: the process's own, its models', and those of connections that are only told that there are too many.
SPARE_CONNECTIONS = 64
_OWN_DESCRIPTORS = 96  # a process that serves one model holds some 50 (2026-11-25)
_MOST_WORKERS = 4  # each takes some 50 MB while it scores; more processors are better used by more replicas. Chosen


@dataclass(frozen=True)
class Capacity:
    """What was chosen, and why.

    Attributes:
        workers: threads that score large bodies, beside the event loop.
        max_queued_records: while as many wait, requests are refused.
        max_bytes: that bodies which are still coming may take together; streams; answers that nobody reads.
        max_connections: at once; some more are told so, or answered about health.
        why: a sentence on each.
    """

    workers: int
    max_queued_records: int
    max_bytes: int
    max_connections: int
    why: tuple[str, ...]


def capacity_of(settings: Settings, resources: Resources) -> Capacity:
    """What a process with these settings takes on with these resources."""
    workers = min(_MOST_WORKERS, max(1, resources.whole_processors - 1))
    threads = f"{workers} thread{'s' * (workers > 1)} for large bodies beside the event loop"
    found = f"{resources.processors:g} processor{'s' * (resources.processors != 1)} by {resources.processors_by}"
    queued, by = _queued(settings, resources)
    max_bytes = min(_MOST_BYTES, (resources.memory_bytes or _SHARE_OF_BYTES * _MOST_BYTES) // _SHARE_OF_BYTES)
    connections, by_what = _connections(settings, resources)
    why = (
        f"{threads}: {found}",
        f"requests refused while {queued:,} records wait: {by}",
        f"{connections:,} connections at most: {by_what}",
    )
    return Capacity(workers, queued, max_bytes, connections, why)


def _connections(settings: Settings, resources: Resources) -> tuple[int, str]:
    wanted, by = settings.max_connections, "NELBO_MAX_CONNECTIONS"
    if wanted is None:
        wanted, by = _MOST_CONNECTIONS, "the default"
    if resources.descriptors is None:
        return wanted, by
    room = max(1, resources.descriptors - _OWN_DESCRIPTORS - SPARE_CONNECTIONS)
    return (wanted, by) if wanted <= room else (room, f"the limit of {resources.descriptors:,} descriptors")


def _queued(settings: Settings, resources: Resources) -> tuple[int, str]:
    if settings.max_queued_records is not None:
        return settings.max_queued_records, "NELBO_MAX_QUEUED_RECORDS"
    if resources.memory_bytes is not None:
        room = max(1, resources.memory_bytes // _SHARE_OF_MEMORY // _BYTES_A_RECORD)
        if room < _MOST_QUEUED:
            return room, f"a quarter of {resources.memory_bytes / 2**20:,.0f} MiB of memory by {resources.memory_by}"
    return _MOST_QUEUED, "the default"
