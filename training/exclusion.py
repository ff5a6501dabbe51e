"""Records that a person has named, to be left out of a fit: a text file, a record a line.

A line begins with the record's number, counted from 0 as errors and reports count; the rest of the line is comment, so
that lines can be copied from what `nelbo fit` prints. Lines that are blank or begin with # say nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nelbo.bundle import sha256
from nelbo.errors import TableError
from nelbo.records import shown
from training.split import Rows

_NUMBER = re.compile(r"([0-9]{1,18})(?=[\s#]|$)")  # not the beginning of a date, a decimal or "1,234"


@dataclass(frozen=True)
class Exclusion:
    """What such a file says.

    Attributes:
        source: its path.
        digest: SHA-256 of its bytes.
        lines: of each record named, by the record's number, the line that names it first.
    """

    source: Path
    digest: str
    lines: dict[int, int]

    @property
    def records(self) -> Rows:
        """Their numbers, ascending."""
        return np.array(sorted(self.lines), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lines)

    def check(self, is_normal: NDArray[np.bool_]) -> None:
        """Refuses what cannot be meant: the list of another table, most likely.

        Args:
            is_normal: shape (n,), of each record of the table.

        Raises:
            TableError: a record is beyond the table, or is not a normal one, so that no fit uses it.
        """
        n = len(is_normal)
        for record, line in self.lines.items():
            where = f"{self.source}, line {line}: record {record}"
            if record >= n:
                raise TableError(f"{where} is beyond the table, which has {n} records, counted from 0")
            if not is_normal[record]:
                raise TableError(f"{where} is no normal record by its label, so no fit uses it; take the line out")


def read_exclusion(path: Path) -> Exclusion:
    """The records that a file names; one may be named twice, as where two lists are put together.

    Raises:
        TableError: it cannot be read, or a line begins with no record number; the text names the line.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: is not UTF-8: {error.reason} at byte {error.start}") from error
    lines: dict[int, int] = {}
    for at, line in enumerate(text.split("\n"), start=1):  # a comment may hold what else ends lines
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        number = _NUMBER.match(said)
        if number is None:
            raise TableError(f"{path}, line {at}: expected a record's number, counted from 0, got {shown(said)}")
        lines.setdefault(int(number[1]), at)
    return Exclusion(path, sha256(content), lines)
