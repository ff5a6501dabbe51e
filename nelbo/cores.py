"""How many processes at once this machine, or this container, gives work to."""

import os
from math import ceil
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def n_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: of those it is bound to, as many as its container's quota pays for.

    Args:
        cgroup: where the kernel tells a container its quota.
    """
    try:
        bound = len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        bound = os.cpu_count() or 1
    return max(1, min(bound, ceil(_quota(cgroup) or bound)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time; None where nobody limits it."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:  # version 1
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no cgroup; "max"
        return None
