"""A file of results that grows part by part, so that a run that was killed goes on where it stopped.

Beside `scores.parquet` there is a folder `.scores.parquet.partial` until it is finished, with the file as far as it is,
and a journal: what is being scored, and a line for each part.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from nelbo.bundle import sync_folder
from nelbo.errors import TableError
from nelbo.schema import Schema
from nelbo.scoring import Scored
from nelbo.writing import Format

if sys.platform != "win32":
    import fcntl


class Tally(msgspec.Struct, frozen=True):
    """What a run counts."""

    n: int = 0
    n_flagged: int = 0
    n_faulty: int = 0
    segments: frozenset[int] = frozenset()

    def __add__(self, other: "Tally") -> "Tally":
        """Of both."""
        return Tally(
            self.n + other.n,
            self.n_flagged + other.n_flagged,
            self.n_faulty + other.n_faulty,
            self.segments | other.segments,
        )


def tally_of(scored: Scored) -> Tally:
    """The counts of a batch."""
    batch = scored.batch
    return Tally(batch.n_records, int(scored.flagged.sum()), len(batch.errors), frozenset(scored.segments.tolist()))


class Identity(msgspec.Struct, frozen=True):
    """What a file of results depends on; only with the same may a run go on.

    Attributes:
        table: size and time of change of the file that is scored.
        bundle: its digest.
        options: of the command, by name.
    """

    table: tuple[int, int]
    bundle: str
    options: Mapping[str, Any]


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file: whoever changes one changes these."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


class _Step(msgspec.Struct, frozen=True):
    """A line of a journal: a part that is written."""

    size: int  # of the output, with it
    tally: Tally
    note: bytes


class _Done(msgspec.Struct, frozen=True):
    """What is kept of a file that is finished, so that another run over a folder leaves it."""

    identity: Identity
    output: tuple[int, int]
    tally: Tally


class Partial:
    """An output that grows; until it is closed, it is this process's alone.

    Args:
        output: where the results are to be in the end.
        form: of the output.
        schema: of the records.
        identity: what the results depend on.

    Attributes:
        folder: for what belongs to it.
        tally: of the parts that are written.
        n_parts: how many those are.
        anew: why an earlier run's parts are of no use; None where there are none, or they are.

    Raises:
        TableError: it cannot be written, or another process writes it.
    """

    def __init__(self, output: Path, form: Format, schema: Schema, identity: Identity) -> None:
        self.output, self._form, self._identity = output, form, identity
        self.folder = output.with_name(f".{output.name}.partial")
        with naming(output):
            self.folder.mkdir(exist_ok=True)
            self._journal = (self.folder / "journal").open("a+b")
            if not _is_locked(self._journal):
                self._journal.close()
                raise TableError(f"{output}: another process is writing it")
            for left in self.folder.glob("part-*"):
                left.unlink()
            self.anew, steps = _read(self._journal, identity)
            self._file = (self.folder / "output").open("a+b")
            if not steps or self._file.seek(0, os.SEEK_END) < steps[-1].size:
                steps = []
                self._begin(form.head(schema))
            else:
                self._file.truncate(steps[-1].size)
        self.n_parts, self.tally = len(steps), sum((step.tally for step in steps), start=Tally())
        self._notes = [step.note for step in steps]

    def _begin(self, head: bytes) -> None:
        self._file.truncate(0)
        self._file.write(head)
        self._journal.truncate(0)
        self._note(self._identity)

    def add(self, part: IO[bytes], tally: Tally) -> None:
        """Puts a part behind the others, for good."""
        with naming(self.output):
            part.seek(0)
            self._file.seek(0, os.SEEK_END)
            note = self._form.append(self._file, part)
            _on_disk(self._file)  # before the journal says so
            self._note(_Step(self._file.tell(), tally, note))
        self._notes.append(note)
        self.n_parts, self.tally = self.n_parts + 1, self.tally + tally

    def _note(self, line: Identity | _Step) -> None:
        self._journal.write(msgspec.json.encode(line) + b"\n")
        _on_disk(self._journal)

    def finish(self, *, is_remembered: bool) -> None:
        """Ends the output and puts it in its place.

        Args:
            is_remembered: a later run finds it `finished`.
        """
        with naming(self.output):
            self._file.write(self._form.tail(self._notes))
            _on_disk(self._file)
            (self.folder / "output").replace(self.output)
            sync_folder(self.output.parent)
            shutil.rmtree(self.folder)
            if is_remembered:  # last, since a later run does not look at what it finds finished
                done = _Done(self._identity, stamp(self.output), self.tally)
                _done_of(self.output).write_bytes(msgspec.json.encode(done))

    def close(self) -> None:
        """Leaves it as it is, for another run; unless there is nothing of it."""
        with suppress(OSError):  # what is not written by now is in no line of the journal, and why was told before
            self._file.close()
        if not self.n_parts:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._journal.close()


def finished(output: Path, identity: Identity) -> Tally | None:
    """The counts of an output that an earlier run finished from the same; None if there is none."""
    try:
        done = msgspec.json.decode(_done_of(output).read_bytes(), type=_Done)
        return done.tally if done.identity == identity and done.output == stamp(output) else None
    except (OSError, msgspec.DecodeError):
        return None


def _done_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.done")


def _read(journal: IO[bytes], identity: Identity) -> tuple[str | None, list[_Step]]:
    """The steps of an earlier run; or why they are of no use."""
    journal.seek(0)
    lines = journal.read().split(b"\n")
    journal.truncate(journal.tell() - len(lines.pop()))  # a line without an end was not written to its end
    try:
        earlier = msgspec.json.decode(lines[0], type=Identity)
        steps = [msgspec.json.decode(line, type=_Step) for line in lines[1:]]
    except (IndexError, msgspec.DecodeError):
        return None, []
    if earlier == identity or not steps:
        return None, steps if earlier == identity else []
    if earlier.table != identity.table:
        return "the table has changed", []
    return ("it was by another bundle" if earlier.bundle != identity.bundle else "it had other options"), []


def _is_locked(file: IO[bytes]) -> bool:
    """Whether this process has a file to itself now, until it closes it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _on_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def naming(output: Path) -> Iterator[None]:
    """Turns an error of the system into one that names the output."""
    try:
        yield
    except OSError as error:
        raise TableError(f"{output}: cannot be written: {error.strerror or error}") from error
