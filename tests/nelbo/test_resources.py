import os
from pathlib import Path

import pytest

from nelbo.resources import read_resources


@pytest.fixture(autouse=True)
def of_eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def machine(root: Path, groups: str, **files: str) -> Path:
    """A machine whose process is in these control groups; files by path, `__` for a slash."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    found = read_resources(tmp_path)
    assert (found.processors, found.processors_by) == (8, "the process's affinity")
    assert (found.memory_bytes, found.memory_by) == (None, "no limit")


def test_quota_and_limit_of_version_2(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "536870912\n"}
    found = read_resources(machine(tmp_path, "0::/\n", **files))
    assert (found.processors, found.whole_processors, found.processors_by) == (1.5, 1, "the container's quota")
    assert (found.memory_bytes, found.memory_by) == (512 * 2**20, "the container's limit")


def test_the_tightest_of_the_groups_around_the_process_counts(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
        "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n",
        "sys/fs/cgroup/pod/memory.max": "max\n",
        "sys/fs/cgroup/pod/app/memory.max": "1073741824\n",
    }
    found = read_resources(machine(tmp_path, "0::/pod/app\n", **files))
    assert (found.processors, found.memory_bytes) == (2, 2**30)


def test_quota_and_limit_of_version_1(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/docker/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/docker/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": "268435456\n",
    }
    found = read_resources(machine(tmp_path, "4:memory:/docker\n1:cpu:/docker\n", **files))
    assert (found.processors, found.whole_processors, found.memory_bytes) == (0.5, 1, 256 * 2**20)


def test_no_limit_of_version_1_is_none(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    found = read_resources(machine(tmp_path, "4:memory:/\n1:cpu,cpuacct:/\n", **files))
    assert (found.processors, found.memory_bytes) == (8, None)


def test_a_quota_beyond_the_affinity_gives_no_more(tmp_path: Path) -> None:
    found = read_resources(machine(tmp_path, "0::/\n", **{"sys/fs/cgroup/cpu.max": "1600000 100000"}))
    assert (found.processors, found.processors_by) == (8, "the process's affinity")
