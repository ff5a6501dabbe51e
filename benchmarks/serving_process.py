"""A real service process to measure."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Serving:
    """A service that answers.

    Attributes:
        process: its own, without children.
        url: of its root.
    """

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def serving(models: Path, **settings: object) -> Iterator[Serving]:
    """Starts `python -m service` on a free port and stops it in the end; its log is thrown away.

    Args:
        models: the store's folder.
        settings: more of them, by name without prefix, in capitals.
    """
    chosen = {"MODELS": models.resolve(), "PORT": 0, "LOG_LEVEL": "info", **settings}
    environment = os.environ | {f"NELBO_{name}": str(value) for name, value in chosen.items()}
    command = [sys.executable, "-P", "-m", "service"]
    # Not a pipe: one that nobody reads is full some day, and whoever writes to it waits.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            listening = _listening(log, process)
            yield Serving(process, f"http://{listening['host']}:{listening['port']}")
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE_S)


def _listening(log: IO[bytes], process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The event that names the port."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        *lines, _ = os.pread(log.fileno(), 1 << 16, 0).split(b"\n")
        for line in lines:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == "listening":
                return found
        time.sleep(0.01)
    raise TimeoutError("the service did not say within half a minute where it listens")


def wait_until_ready(url: str) -> None:
    """Returns when every model answers.

    Raises:
        TimeoutError: that takes longer than half a minute.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if httpx.get(f"{url}/healthz/ready").status_code == 200:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{url} is not ready after {_PATIENCE_S:g} s")
