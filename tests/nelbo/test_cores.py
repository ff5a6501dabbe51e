import os
from pathlib import Path

import pytest

from nelbo.cores import n_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1)])
def test_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert n_cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (150_000, 2), (9_000_000, 8)])
def test_older_containers_quota_bounds_the_cores(tmp_path: Path, quota: int, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert n_cores(tmp_path) == expected


def test_without_a_container_all_cores_count(tmp_path: Path) -> None:
    assert n_cores(tmp_path / "none") == 8
