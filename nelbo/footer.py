"""The footer of a Parquet file, moved: so files are joined without reading or writing their values again.

A footer is one Thrift struct in the compact protocol; what it says of places counts from the start of the file. Here
it is copied byte by byte, and those places become larger.

Source: https://parquet.apache.org/docs/file-format/metadata/ and parquet.thrift of the format 2.x.
"""

MAGIC = b"PAR1"

# Where the places are, as ids of fields: FileMetaData.row_groups, then RowGroup.file_offset, or RowGroup.columns and
# of a column chunk file_offset, the offsets of its indexes, and of its metadata those of its pages and its filter.
_PLACES = {
    (4, 5),
    *((4, 1, place) for place in (2, 4, 6)),
    *((4, 1, 3, place) for place in (9, 10, 11, 14)),
}
# Thrift's types. A footer holds no sets and maps.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
_WIDTHS = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}  # a truth value has a byte within a list only


def moved(footer: bytes, by: int) -> bytes:
    """The footer of a file whose pages are so much later.

    Args:
        footer: the Thrift struct alone.
        by: bytes.
    """
    return _Copy(footer, by).copied()


class _Copy:
    """A footer that is copied while it is read."""

    def __init__(self, source: bytes, by: int) -> None:
        self._source, self._by, self._at = source, by, 0
        self._copied = bytearray()

    def copied(self) -> bytes:
        self._struct(())
        return bytes(self._copied)

    def _struct(self, path: tuple[int, ...]) -> None:
        field = 0
        while head := self._raw(1)[0]:
            # The id as a step from the last one, or, where that is 0, in full.
            field = field + (head >> 4) if head >> 4 else _signed(self._number())
            kind = head & 15
            if kind not in (_TRUE, _FALSE):  # which are values by themselves
                self._value(kind, (*path, field))

    def _value(self, kind: int, path: tuple[int, ...]) -> None:
        if kind == _I64 and path in _PLACES:
            place = _signed(self._read_number())
            # 0 stands for a place that is not told.
            self._copied += _varint(2 * (place + self._by) if place else 0)
        elif kind in (_I16, _I32, _I64):
            self._number()
        elif kind == _BINARY:
            self._raw(self._number())
        elif kind == _STRUCT:
            self._struct(path)
        elif kind == _LIST:
            head = self._raw(1)[0]
            for _ in range(self._number() if head >> 4 == 15 else head >> 4):
                self._value(head & 15, path)
        elif kind in _WIDTHS:
            self._raw(_WIDTHS[kind])
        else:
            raise ValueError(f"a Parquet footer holds no value of Thrift's type {kind}")

    def _raw(self, n: int) -> bytes:
        found = self._source[self._at : self._at + n]
        self._at += n
        self._copied += found
        return found

    def _number(self) -> int:
        before = self._at
        found = self._read_number()
        self._copied += self._source[before : self._at]
        return found

    def _read_number(self) -> int:
        found = shift = 0
        while True:
            byte = self._source[self._at]
            self._at += 1
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found


def _signed(number: int) -> int:
    """A number of the zigzag 0, -1, 1, -2 and so on."""
    return (number >> 1) ^ -(number & 1)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
