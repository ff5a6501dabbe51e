"""What a figure was measured on: it means little without."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

_LIBRARIES = ("nelbo", "numpy", "onnxruntime", "msgspec", "torch", "uvicorn")
_ROOT = Path(__file__).parents[1]


def machine() -> dict[str, object]:
    """Date, revision, processor, memory and versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": _revision(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _revision() -> str | None:
    """The commit, with "-dirty" where files differ from it; None outside of a repository."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
