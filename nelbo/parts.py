"""Where a file of records can be cut, so that each part is read by itself, and a run that was killed goes on after one.

Where the cuts are depends on the file alone: the parts of a file are the same for one process and for many.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# What a killed run does again, and the least that a second process gets. Chosen: some seconds of work.
_BYTES = 8 << 20
# Of Parquet, records: to reach a part within a row group, what lies before it is decoded and thrown away. At the usual
# million records a row group that is 4 times a part on average, a hundredth of what scoring costs.
_RECORDS = 1 << 17


@dataclass(frozen=True)
class Part:
    """Consecutive records of a file.

    Attributes:
        first: position of the first one in the file.
        start, stop: where they are; bytes of a text, row groups of Parquet.
        fraction: of the file, up to their end.
        n_records: how many; None where only reading them tells.
        skip: records of the first row group that lie before them.
    """

    first: int
    start: int
    stop: int
    fraction: float = 1.0
    n_records: int | None = None
    skip: int = 0


def of_row_groups(sizes: Sequence[int]) -> Iterator[Part]:
    """The parts of a Parquet file: large row groups are cut, small ones put together.

    Args:
        sizes: records in each row group.

    >>> [(part.start, part.stop, part.skip, part.n_records) for part in of_row_groups([200_000, 5, 7])]
    [(0, 1, 0, 131072), (0, 1, 131072, 68928), (1, 3, 0, 12)]
    """
    total, first, group = sum(sizes), 0, 0
    while group < len(sizes):
        stop, n = group + 1, sizes[group]
        while stop < len(sizes) and n + sizes[stop] <= _RECORDS:
            stop, n = stop + 1, n + sizes[stop]
        for skip in range(0, n, _RECORDS):
            n_records = min(_RECORDS, n - skip)
            yield Part(first + skip, group, stop, (first + skip + n_records) / total, n_records, skip)
        first, group = first + n, stop


def of_lines(path: Path, start: int, stop: int) -> Iterator[Part]:
    """The parts of a file of JSON lines.

    Args:
        path: of the file.
        start: where the first line begins.
        stop: the size of the file.
    """
    first = 0
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            block = file.read(_BYTES) + file.readline()
            n = sum(1 for line in block.split(b"\n") if line.strip())
            yield Part(first, start, start + len(block), (start + len(block)) / stop, n)
            first, start = first + n, start + len(block)
            if not block:
                return  # somebody has cut the file; whoever reads the part says so


def of_csv(path: Path, start: int, stop: int, delimiter: str) -> Iterator[Part]:
    """The parts of a file of delimited text; all that is left is the last one where a cut may be within a record.

    Args:
        path: of the file.
        start: where the first record begins.
        stop: the size of the file.
        delimiter: between two values.
    """
    first = 0
    with path.open("rb") as file:
        while start < stop:
            file.seek(start)
            block = file.read(_BYTES)
            is_last = start + len(block) >= stop
            ends = _record_ends(np.frombuffer(block, dtype=np.uint8), delimiter) if block else None
            if ends is None or not (ends.size or is_last):
                yield Part(first, start, stop)
                return
            size = len(block) if is_last else int(ends[-1])
            n = _n_records(block[:size], ends)
            yield Part(first, start, start + size, (start + size) / stop, n)
            first, start = first + n, start + size


_QUOTE, _LINE_FEED, _RETURN = b'"\n\r'


def _record_ends(block: NDArray[np.uint8], delimiter: str) -> NDArray[np.intp] | None:
    """Behind each line feed that ends a record; None where quotes or carriage returns leave doubts.

    A quote opens a value only where one begins. If every second one does, the others close or are doubled: then a line
    feed is within a value just where an odd number of quotes lies before it.
    """
    returns = np.flatnonzero(block[:-1] == _RETURN)
    if (block[returns + 1] != _LINE_FEED).any():
        return None
    feeds, quotes = np.flatnonzero(block == _LINE_FEED), np.flatnonzero(block == _QUOTE)
    opening = quotes[::2]
    before = block[opening[opening > 0] - 1]
    if not np.isin(before, [_QUOTE, _LINE_FEED, ord(delimiter)]).all():
        return None
    return np.asarray(feeds[np.searchsorted(quotes, feeds) % 2 == 0] + 1)


def _n_records(text: bytes, ends: NDArray[np.intp]) -> int:
    """How many records lie in a text: its lines, without those that are empty."""
    starts = np.concatenate([[0], ends[ends < len(text)]])
    stops = np.append(ends, len(text))[: starts.size]
    array = np.frombuffer(text, dtype=np.uint8)
    lengths = stops - starts
    is_empty = (lengths <= 2) & np.isin(array[starts], [_LINE_FEED, _RETURN])
    return int(starts.size - is_empty.sum())
