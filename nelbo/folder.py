"""The files of a folder in the store: each opened once, as what it is, and read to a bound."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nelbo.errors import BundleError


@contextmanager
def opened(path: Path, what: str = "bundle") -> Iterator["Folder"]:
    """The folder at a path, which may be a symbolic link, as where another program switches versions by one.

    Args:
        path: of the folder.
        what: it is, in a word, for errors.

    Raises:
        BundleError: there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(f"{what} {path}: cannot be opened: {error.strerror}") from error
    try:
        yield Folder(path, descriptor, what)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Folder:
    """A folder that stays the same one while it is read, whatever its path comes to mean.

    Args:
        path: to name it by.
        descriptor: of it, open.
        what: it is, in a word, for errors.
    """

    path: Path
    descriptor: int
    what: str = "bundle"

    def read(self, name: str, most: int) -> bytes:
        """A file's bytes.

        Args:
            name: without a path; it is looked up in the folder and never followed out of it.
            most: bytes.

        Raises:
            BundleError: it is missing, no file, a symbolic link, or longer.
        """
        return self.read_if_there(name, most, is_needed=True) or b""

    def read_if_there(self, name: str, most: int, *, is_needed: bool = False) -> bytes | None:
        """The same; None where there is none."""
        where = f"{self.what} {self.path}: {name}"
        # A link to elsewhere is not opened; a pipe, without waiting for its other end.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self.descriptor)
            try:
                _check(os.fstat(descriptor), where, most)
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(most + 1)
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            if is_needed:
                raise BundleError(f"{where} is missing") from error
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise BundleError(f"{where} is a symbolic link") from error
            raise BundleError(f"{where} cannot be read: {error.strerror}") from error
        if len(data) > most:  # it has grown since
            raise BundleError(f"{where} {_too_long(most)}")
        return data


def _check(found: os.stat_result, where: str, most: int) -> None:
    # A pipe would keep us waiting, and /dev/zero has no end.
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{where} is not a file")
    if found.st_size > most:
        raise BundleError(f"{where} {_too_long(most)}")


def _too_long(most: int) -> str:
    return f"is larger than {most // 2**20} MiB" if most >= 2**20 else f"is larger than {most} bytes"
