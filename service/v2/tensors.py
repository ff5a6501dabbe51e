"""A tensor as it travels: its values from JSON or from bytes, and back."""

import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from math import prod
from typing import Any

import msgspec
import numpy as np
import simdjson
from msgspec import Raw
from numpy.typing import NDArray

from nelbo.errors import BodyError
from nelbo.records import shown, shown_json

# numpy's names of the protocol's datatypes, in the byte order of their binary form.
FLOATS = {"FP32": "<f4", "FP64": "<f8"}
INTEGERS = {f"{sign}INT{8 * n}": f"<{kind}{n}" for sign, kind in (("", "i"), ("U", "u")) for n in (1, 2, 4, 8)}
# msgspec reads fewer numbers as fast.
_MANY_BYTES = 512

Values = NDArray[Any] | list[Any]


class Tensor(msgspec.Struct, frozen=True):
    """One input of a request.

    Attributes:
        name: as sent.
        datatype: as sent; perhaps none that there is.
        shape: as sent.
        data: JSON; or bytes in the protocol's binary form; or numbers, decoded already.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Raw | memoryview | NDArray[np.float64]


def numbers_of(text: bytes, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """The numbers of a JSON list, or of a list of rows.

    Args:
        text: JSON, perhaps.
        shape: how long the rows have to be; how many there are is not looked at.

    Returns:
        None where the text is anything else, or a number none that a float can hold.

    >>> numbers_of(b"[1, 2.5]", (2,)), numbers_of(b"[[1], [2]]", (2, 1))
    (array([1. , 2.5]), array([1., 2.]))
    >>> numbers_of(b"[[1, 2], [3]]", (2, 2)) is numbers_of(b"[1, true]", (2,)) is None
    True
    """
    n_rows = text.count(b"[") - 1 if text.find(b"[", 1) > 0 else 0  # the search is faster than the count
    try:
        found = simdjson.Parser().parse(text)
        if not isinstance(found, simdjson.Array):
            return None
        # It takes a list of lists for a flat one, whatever their lengths.
        rows: Any = found
        if n_rows and (len(found) != n_rows or any(shape[1:] != (len(row),) for row in rows)):
            return None
        return np.frombuffer(found.as_buffer(of_type="d"), dtype=np.float64)
    except (ValueError, TypeError, RuntimeError):
        return None


def values_of(tensor: Tensor) -> Values:
    """A tensor's values, row by row: an array, or a list with None where JSON has null.

    Args:
        tensor: of a datatype that there is.

    Raises:
        BodyError: naming the input, and where one is wrong, the value.
    """
    size = prod(tensor.shape)
    if isinstance(tensor.data, np.ndarray):
        values: Values = tensor.data
    elif isinstance(tensor.data, memoryview):
        values = _from_bytes(tensor, tensor.data, size)
    else:
        values = _from_json(tensor, tensor.data)
    if len(values) != size:
        raise wrong(tensor, f"{size} values for its shape {list(tensor.shape)}", str(len(values)))
    return values


def wrong(tensor: Tensor, expected: str, found: str, element: int | None = None) -> BodyError:
    """The error about a tensor, or about one of its values."""
    where = f"input '{tensor.name}'" if element is None else f"input '{tensor.name}', value {element}"
    return BodyError(f"{where}: expected {expected}, got {found}")


# --- JSON -------------------------------------------------------------------------------------------


def _from_json(tensor: Tensor, raw: Raw) -> Values:
    if tensor.datatype in FLOATS and len(memoryview(raw)) > _MANY_BYTES:
        numbers = numbers_of(bytes(raw), tensor.shape)
        if numbers is not None:
            return numbers
    values = _flat(tensor, raw)
    if tensor.datatype in INTEGERS:
        _refuse_beyond(tensor, values)
    return values


def _flat(tensor: Tensor, raw: Raw) -> list[Any]:
    of = _element_type(tensor.datatype)
    try:
        values: list[Any] = _FLAT[of].decode(raw)
        return values
    except (ValueError, RecursionError):
        pass
    try:
        rows: list[list[Any]] = _NESTED[of].decode(raw)
    except (ValueError, RecursionError):
        rows = []
    if rows and all(tensor.shape[1:] == (len(row),) for row in rows):
        return list(chain.from_iterable(rows))
    return _one_by_one(tensor, raw)


def _one_by_one(tensor: Tensor, raw: Raw) -> list[Any]:
    """Says which value is wrong, and how."""
    of = _element_type(tensor.datatype)
    values = []
    for i, cell in enumerate(_cells(tensor, raw)):
        try:
            values.append(_ONE[of].decode(cell))
        except (ValueError, RecursionError) as error:
            raise wrong(tensor, _WORDS[of], shown_json(bytes(cell)), i) from error
    return values


def _cells(tensor: Tensor, raw: Raw) -> Iterator[Raw]:
    try:
        rows: list[Raw] = _RAW.decode(raw)
    except msgspec.DecodeError as error:
        raise wrong(tensor, "data that is a list", shown_json(bytes(raw))) from error
    if len(tensor.shape) != 2 or not any(bytes(row).startswith(b"[") for row in rows):
        yield from rows
        return
    width = tensor.shape[1]
    for i, row in enumerate(rows):
        cells = _RAW.decode(row) if bytes(row).startswith(b"[") else None
        if cells is None or len(cells) != width:
            found = shown_json(bytes(row)) if cells is None else f"{len(cells)} values"
            raise BodyError(f"input '{tensor.name}', row {i}: expected a list of {width} values, got {found}")
        yield from cells


def _refuse_beyond(tensor: Tensor, values: Sequence[int | None]) -> None:
    limits = np.iinfo(INTEGERS[tensor.datatype])
    for i, value in enumerate(values):
        if value is not None and not limits.min <= value <= limits.max:
            expected = f"an integer from {limits.min} to {limits.max}"
            raise wrong(tensor, expected, shown(value), i)


def _element_type(datatype: str) -> type:
    if datatype in FLOATS:
        return float
    if datatype in INTEGERS:
        return int
    return {"BOOL": bool, "BYTES": str}[datatype]


_WORDS: dict[type, str] = {float: "a number", int: "an integer", bool: "true or false", str: "a string"}
_FLAT: dict[type, Any] = {of: msgspec.json.Decoder(list[of | None]) for of in _WORDS}  # type: ignore[valid-type]
_NESTED: dict[type, Any] = {of: msgspec.json.Decoder(list[list[of | None]]) for of in _WORDS}  # type: ignore[valid-type]
_ONE: dict[type, Any] = {of: msgspec.json.Decoder(of | None) for of in _WORDS}
_RAW = msgspec.json.Decoder(list[Raw])


# --- bytes ------------------------------------------------------------------------------------------


def _from_bytes(tensor: Tensor, data: memoryview, size: int) -> Values:
    if tensor.datatype == "BYTES":
        return list(_texts(tensor, data))
    dtype = np.dtype({**FLOATS, **INTEGERS, "BOOL": "u1"}[tensor.datatype])
    if len(data) != size * dtype.itemsize:
        expected = f"{size * dtype.itemsize} bytes for {size} values of {tensor.datatype}"
        raise wrong(tensor, expected, str(len(data)))
    values: NDArray[Any] = np.frombuffer(data, dtype=dtype)
    if tensor.datatype == "BOOL":
        if (values > 1).any():
            at = int((values > 1).argmax())
            raise wrong(tensor, "0 or 1", str(values[at]), at)
        return values.view(np.bool_)
    if tensor.datatype in INTEGERS:
        return values
    floats: NDArray[np.float64] = values.astype(np.float64)  # a copy is aligned, which a part of a body need not be
    if np.isinf(floats).any():
        at = int(np.isinf(floats).argmax())
        raise wrong(tensor, "a finite number, or NaN for a missing one", str(floats[at]), at)
    return floats


def _texts(tensor: Tensor, data: memoryview) -> Iterator[str]:
    """Each text has its length before it, four bytes long."""
    at, i = 0, 0
    while at < len(data):
        stop = at + 4 + struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data) + 1
        if stop > len(data):
            raise wrong(tensor, "a length of four bytes and a text of that length", f"{len(data) - at} bytes", i)
        try:
            yield str(data[at + 4 : stop], "utf-8")
        except UnicodeDecodeError as error:
            raise wrong(tensor, "UTF-8", "bytes that are not", i) from error
        at, i = stop, i + 1
