"""File operations that go wrong at the Nth one: the process is killed there, the power fails, or the system refuses.

As SQLite's tests do it: for N = 1, 2, … until the work gets through (https://www.sqlite.org/testing.html). Counted are
the operations of `os` and of files that `open` returns; a write counts twice, since it may end halfway.
"""

import builtins
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Kill = Literal["kill", "power", "torn"]
Refusal = Literal["EIO", "EACCES", "ENOSPC", "EROFS"]
KILLS: tuple[Kill, ...] = get_args(Kill)
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)
_LASTING = ("ENOSPC", "EROFS")  # a full disk is full at the next operation too; other refusals come once

_READING = ("stat", "lstat", "listdir", "scandir", "access")
_REMOVING = ("unlink", "remove", "rmdir")
_MAKING = ("mkdir", "link", "symlink")
_MOVING = ("rename", "replace")
_real = {name: getattr(os, name) for name in (*_READING, *_REMOVING, *_MAKING, *_MOVING, "open", "fsync")}
_real_open = io.open


@dataclass
class Operation:
    """One file operation.

    Attributes:
        name: of it.
        path: that it is about; of a rename, the new one.
        inode: of what is written, synced or renamed; 0 of others.
    """

    name: str
    path: str
    inode: int = 0


@dataclass
class Shim:
    """Counts file operations, and lets one of them fail.

    Attributes:
        root: what is below it is lost where the power fails.
        at: which operation fails, from 1; 0 for none.
        failure: how. "kill" ends the process. "power" too, and takes back what was not synced, names and contents;
            "torn" leaves the names, as file systems do that write these first. Others are errors of the system.
        counts_reading: also operations that change nothing.
        done: the operations so far.
    """

    root: Path
    at: int = 0
    failure: Kill | Refusal = "kill"
    counts_reading: bool = True
    done: list[Operation] = field(default_factory=list)
    _dirty: set[int] = field(default_factory=set)  # inodes of files whose bytes are not on the disk
    _undo: list[tuple[str, Callable[[], object]]] = field(default_factory=list)  # folders whose names are not

    def step(self, name: str, path: object, *, is_reading: bool = False, is_removing: bool = False) -> None:
        """One more operation, which may be the one that fails.

        Raises:
            OSError: it does.
        """
        if is_reading and not self.counts_reading:
            return
        self.done.append(Operation(name, str(path)))
        n = len(self.done)
        if not self.at or n < self.at or (n > self.at and self.failure not in _LASTING):
            return
        if self.failure in KILLS:
            self._lose()
            os.kill(os.getpid(), signal.SIGKILL)
        # A full disk can be read, and files be removed from it; one that cannot be written, read.
        is_possible = is_reading or (is_removing and self.failure == "ENOSPC")
        if not (is_possible and self.failure in _LASTING):
            number = getattr(errno, self.failure)
            raise OSError(number, os.strerror(number), str(path))

    def wrote(self, descriptor: int) -> None:
        """A file has bytes that are not on the disk."""
        self.done[-1].inode = os.fstat(descriptor).st_ino
        self._dirty.add(self.done[-1].inode)

    def synced(self, descriptor: int) -> None:
        """A file's bytes are on the disk, or a folder's names."""
        last = self.done[-1]
        last.inode, last.path = os.fstat(descriptor).st_ino, os.readlink(f"/proc/self/fd/{descriptor}")
        self._dirty.discard(last.inode)
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != last.path]

    def named(self, path: object, undo: Callable[[], object]) -> None:
        """A folder has a name, or lost one, and that is not on the disk."""
        self._undo.append((str(Path(str(path)).absolute().parent), undo))

    def _lose(self) -> None:
        with counting(Shim(self.root)):  # not these operations
            if self.failure == "power":
                for _, undo in reversed(self._undo):
                    undo()
            if self.failure != "kill":
                for path in self.root.rglob("*"):
                    if path.is_file() and path.stat().st_ino in self._dirty:
                        os.truncate(path, 0)


class _File(io.FileIO):
    """A file whose operations are counted by the shim of the moment."""

    shim: Shim

    def write(self, data: Any) -> int:
        bytes_ = memoryview(data).cast("B")
        half, n = len(bytes_) // 2, 0
        self.shim.step("write", self.name)
        if half:
            n = super().write(bytes_[:half]) or 0
            self.shim.wrote(self.fileno())
            self.shim.step("write the rest", self.name)
        n += super().write(bytes_[half:]) or 0
        self.shim.wrote(self.fileno())
        return n

    def truncate(self, size: int | None = None) -> int:
        self.shim.step("truncate", self.name)
        return super().truncate(size)

    def readall(self) -> bytes:
        self.shim.step("read", self.name, is_reading=True)
        return super().readall() or b""

    def readinto(self, buffer: Any) -> int:
        self.shim.step("read", self.name, is_reading=True)
        return super().readinto(buffer) or 0

    def close(self) -> None:
        is_first = not self.closed
        super().close()
        if is_first:
            self.shim.step("close", self.name, is_reading=True)


@contextmanager
def counting(shim: Shim) -> Iterator[Shim]:
    """Has every file operation of this process counted."""
    before, patched = dict(_File.__dict__).get("shim"), [getattr(os, name) for name in _real]
    files = io.open
    _File.shim = shim
    for name in (*_READING, *_REMOVING, *_MAKING):
        setattr(os, name, _counted(shim, name))
    for name in _MOVING:
        setattr(os, name, _moving(shim, name))
    for name, function in (("open", _opening(shim)), ("fsync", _syncing(shim))):
        setattr(os, name, function)
    io.open = builtins.open = _files(shim)
    try:
        yield shim
    finally:
        for name, function in zip(_real, patched, strict=True):
            setattr(os, name, function)
        io.open = builtins.open = files
        if before is not None:
            _File.shim = before


def _counted(shim: Shim, name: str) -> Callable[..., Any]:
    def counted(path: Any = ".", *given: Any, **options: Any) -> Any:
        shim.step(name, path, is_reading=name in _READING, is_removing=name in _REMOVING)
        found = _real[name](path, *given, **options)
        if name == "mkdir":
            shim.named(path, lambda: shutil.rmtree(path, ignore_errors=True))
        return found

    return counted


def _moving(shim: Shim, name: str) -> Callable[..., None]:
    def moving(source: Any, target: Any) -> None:
        shim.step(name, target)
        shim.done[-1].inode = _real["stat"](source).st_ino
        before = _content(target)
        _real[name](source, target)

        def undo() -> None:
            _real[name](target, source)
            if before is not None:
                Path(target).write_bytes(before)

        shim.named(target, undo)

    return moving


def _content(path: Any) -> bytes | None:
    try:
        with _real_open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _opening(shim: Shim) -> Callable[..., int]:
    def opening(path: Any, flags: int, *given: Any, **options: Any) -> int:
        shim.step("open", path, is_reading=not flags & (os.O_WRONLY | os.O_RDWR))
        return int(_real["open"](path, flags, *given, **options))

    return opening


def _syncing(shim: Shim) -> Callable[[Any], None]:
    def syncing(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        shim.step("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        _real["fsync"](descriptor)
        shim.synced(descriptor)

    return syncing


def _files(shim: Shim) -> Callable[..., Any]:
    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        is_reading = not set(mode) & set("wax+")
        shim.step("open to read" if is_reading else "open to write", file, is_reading=is_reading)
        is_new = not is_reading and not isinstance(file, int) and _content(file) is None
        raw = _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if is_new:
            shim.named(file, lambda: _real["unlink"](file))
        if buffering == 0:
            return raw
        kind: Any = io.BufferedRandom if "+" in mode else io.BufferedReader if is_reading else io.BufferedWriter
        buffered = kind(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    return opened
