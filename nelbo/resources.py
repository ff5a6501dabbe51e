"""What this process may use of its machine: processors and memory, by quota where a container has one; descriptors."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_UNLIMITED = 1 << 60  # bytes; what version 1 of the kernel's control groups writes for "no limit" is above


@dataclass(frozen=True)
class Resources:
    """What may be used, and what says so.

    Attributes:
        processors: a container's quota may be a fraction.
        processors_by: what limits them.
        memory_bytes: None where nothing limits it.
        memory_by: what limits it.
        descriptors: that may be open at once; None where nothing limits them.
    """

    processors: float
    processors_by: str
    memory_bytes: int | None
    memory_by: str
    descriptors: int | None = None

    @property
    def whole_processors(self) -> int:
        """Threads of arithmetic that can run at once, at least 1."""
        return max(1, int(self.processors))


def read_resources(root: Path = _ROOT) -> Resources:
    """The resources of this process, by its affinity and its control groups, version 1 or 2.

    Args:
        root: where `/proc` and `/sys` are.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder)) is not None]
    limits = [limit for folder in _groups(root, "memory") if (limit := _limit(folder)) is not None]
    quota = min(quotas, default=float(n))
    by = "the container's quota" if quota < n else "the process's affinity"
    memory = min(limits, default=None)
    return Resources(
        min(quota, float(n)), by, memory, "no limit" if memory is None else "the container's limit", _descriptors()
    )


def _descriptors() -> int | None:
    try:
        import resource  # noqa: PLC0415  # not on every system
    except ImportError:
        return None
    found, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if found == resource.RLIM_INFINITY else found


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's control group and of those that it lies in: each may hold a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        folder = top / path.lstrip("/")
        # A container may see its own group as the top while its path is told from outside.
        for group in (folder, *folder.parents):
            if group == top.parent:
                break
            if group.is_relative_to(top):
                yield group


def _quota(folder: Path) -> float | None:
    """Processors, by `cpu.max` of version 2 or the two files of version 1."""
    both = _words(folder / "cpu.max") or (
        *_words(folder / "cpu.cfs_quota_us"),
        *_words(folder / "cpu.cfs_period_us"),
    )
    if len(both) != 2 or not both[0].isdecimal() or not both[1].isdecimal():
        return None  # "max", -1 or no such file
    return int(both[0]) / int(both[1])


def _limit(folder: Path) -> int | None:
    """Bytes."""
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    if not words or not words[0].isdecimal() or int(words[0]) >= _UNLIMITED:
        return None
    return int(words[0])


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text().split())
    except OSError:
        return ()
