"""A folder that one process at a time may change."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
_PATIENCE_S = 10.0  # a change takes milliseconds; chosen
_POLL_S = 0.01


@contextmanager
def locked(folder: Path, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Keeps out whoever else asks so for the folder, in this process or another; a killed process lets go.

    Args:
        folder: is there; a hidden file in it is what is held.
        patience_s: how long to wait for somebody else.

    Raises:
        TimeoutError: somebody else has it for longer.
        OSError: the folder cannot be written.
    """
    descriptor = _opened(folder / LOCK)
    try:
        _take(descriptor, time.monotonic() + patience_s)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no file is made elsewhere, and no pipe waited for
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # made by somebody else, who may share the folder and not the file
        return os.open(path, os.O_RDONLY | flags)


def _take(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError("another process is changing it") from error
        time.sleep(_POLL_S)
