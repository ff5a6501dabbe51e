"""What tells, at the cost of a few stats, that a model's files are no longer those that were loaded."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from nelbo.bundle import NAME
from nelbo.errors import StoreError
from nelbo.store import Store

_Mark = tuple[int, int, int, int]  # of a file or folder: inode, bytes, when it and its entry last changed


@dataclass(frozen=True)
class Marks:
    """How a model's files were when its live version was looked for.

    Attributes:
        folder: of the model: versions that came or went.
        aliases: the bytes of the file, small enough to be compared themselves; None where there is none.
        version: the live version's folder, as far as it was found.
        files: those in it.
    """

    folder: _Mark | None
    aliases: bytes | None
    version: Path | None = None
    files: tuple[_Mark | None, ...] = ()

    def at(self, version: Path) -> "Marks":
        """The same, with the files of a version as they are now."""
        return replace(self, version=version, files=_of_files(version))


def marks_of(store: Store, name: str) -> Marks:
    """How a model's files are now, before it is known which version is live; any other text has no files."""
    if NAME.fullmatch(name) is None:
        return Marks(None, None)
    return Marks(_mark(store.root / name), _aliases(store, name))


def differ(marks: Marks, store: Store, name: str) -> bool:
    """Whether a model's files are no longer as they were."""
    now = marks_of(store, name)
    return marks != (now if marks.version is None else now.at(marks.version))


def _of_files(folder: Path) -> tuple[_Mark | None, ...]:
    try:
        return tuple(_mark(path) for path in sorted(folder.iterdir()))
    except OSError:
        return ()


def _mark(path: Path) -> _Mark | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _aliases(store: Store, name: str) -> bytes | None:
    try:
        return store.aliases_text(name)
    except StoreError:
        return None
