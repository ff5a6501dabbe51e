"""A file that an operator names in a setting: JSON, small, read whole."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from nelbo.errors import shortened

_MAX_BYTES = 1 << 20  # some thousand keys; chosen


def read(path: Path) -> bytes:
    """The bytes of a regular file, or of one that a symbolic link leads to: so does Kubernetes mount secrets.

    Raises:
        OSError: it cannot be read, is no such file, or too long; `strerror` says so.
    """
    # A pipe would keep us waiting for its other end, /dev/zero has none.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
            raise OSError(errno.EINVAL, f"expected a file, got {what}")
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(text) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"expected at most {_MAX_BYTES} bytes, got more")
    return text


def parse(text: bytes) -> Any:
    """What the JSON of such a file says.

    Raises:
        ValueError: it is none; what was expected and found, without repeating any of it.

    >>> parse(b'{"keys": }')
    Traceback (most recent call last):
    ValueError: expected JSON, got none from line 1, column 10 on
    """
    try:
        return json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, got none from byte {error.start} on") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON, got none from line {error.lineno}, column {error.colno} on") from None
    except (RecursionError, ValueError) as error:  # the latter of a number of thousands of digits
        what = "too deep a nesting" if isinstance(error, RecursionError) else "too long a number"
        raise ValueError(f"expected JSON, got {what}") from None


def shown(value: object) -> str:
    """A value of such a file as a problem repeats it: one printable line.

    >>> shown("newest"), shown(7), shown(None), shown([1]), shown({})
    ("'newest'", '7', 'null', 'a list', 'an empty object')
    """
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "object"
        return f"a{'n' * (kind == 'object')} {kind}" if value else f"an empty {kind}"
    if isinstance(value, str):
        return repr(shortened(value))
    return shortened(json.dumps(value))
