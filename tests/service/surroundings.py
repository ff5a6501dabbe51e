"""A service whose surroundings fail."""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.bundles import odd_record

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0  # with a machine that does other things too
_FLAGS = 2 | 4  # no devices, no programs of another user
_DETACH = 2


@dataclass(frozen=True)
class Running:
    """A service that was started.

    Attributes:
        process: it, or the program that became it.
        port: that it listens on.
    """

    process: subprocess.Popen[bytes]
    port: int

    def ask(self, path: str, **options: Any) -> httpx.Response:
        method = "POST" if options else "GET"
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S, **options)

    def score(self, n: int = 1, query: str = "") -> httpx.Response:
        return self.ask(f"/v1/models/pumps/score{query}", json={"records": [odd_record()] * n})

    def expect_well(self) -> None:
        """Returns if it scores as ever, says so, and shows its metrics."""
        found = self.score()
        assert found.status_code == 200, found.text
        assert found.json()["results"][0]["flagged"] is True
        for path in ("/healthz/live", "/healthz/ready", "/metrics", "/v1/models"):
            other = self.ask(path)
            assert other.status_code == 200, f"{path}: {other.text}"

    def wait(self) -> None:
        """Returns when it scores."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            with contextlib.suppress(httpx.TransportError):
                if self.score().status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("the service did not become ready")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(
    models: Path,
    *,
    before: Sequence[str] = (),
    stderr: int | IO[Any] = subprocess.DEVNULL,
    environment: dict[str, str] | None = None,
    port: int | None = None,
    is_awaited: bool = True,
    **settings: object,
) -> Iterator[Running]:
    """A service that scores; what is left of it is killed in the end.

    Args:
        models: its store.
        before: a command that becomes it.
        stderr: where its log goes.
        environment: more of it.
        port: that it is to listen on.
        is_awaited: it is to score first.
        settings: more of them, by name without prefix.
    """
    chosen = {"models": models, "port": port or free_port(), **settings}
    own = {f"NELBO_{name.upper()}": str(value) for name, value in chosen.items()}
    everything = os.environ | {"PYTHONPATH": str(ROOT)} | own | (environment or {})
    command = [*before, sys.executable, "-P", "-m", "service"]
    process = subprocess.Popen(command, env=everything, stderr=stderr, stdout=subprocess.DEVNULL)
    service = Running(process, int(str(chosen["port"])))
    try:
        if is_awaited:
            service.wait()
        yield service
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def lines(text: bytes) -> list[dict[str, Any]]:
    """A log."""
    return [json.loads(line) for line in text.splitlines()]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@contextmanager
def hanging(folder: Path) -> Iterator[int]:
    """Lets whatever looks into a folder wait for ever: a file system is mounted there that nobody serves.

    Yields:
        The descriptor to close, after which whatever looks into it gets an error.
    """
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("there is no /dev/fuse")
    libc, descriptor = ctypes.CDLL(None, use_errno=True), os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hanging", os.fsencode(folder), b"fuse", _FLAGS, options):
        os.close(descriptor)
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        libc.umount2(os.fsencode(folder), _DETACH)


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """A folder on a disk of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _FLAGS, f"size={kib}k".encode()):
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), _DETACH)


@contextmanager
def little_memory(process: int, more_bytes: int) -> Iterator[None]:
    """Lets a process take so much more address space, and no more."""
    kib = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmSize"))
    size = int(kib.split()[1]) * 1024
    before = resource.prlimit(process, resource.RLIMIT_AS)
    resource.prlimit(process, resource.RLIMIT_AS, (size + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_AS, before)
