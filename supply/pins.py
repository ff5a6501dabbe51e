"""The lines of a requirements file that pin a library to one version, and to the files it may be installed from."""

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)[^#]*$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)")


@dataclass(frozen=True)
class Pin:
    """One library at one version.

    Attributes:
        name: as the index normalises it, `prometheus-client` for `prometheus_client`.
        digests: SHA-256 of each file that may be installed; empty where the file names none.
    """

    name: str
    version: str
    digests: frozenset[str] = frozenset()


def normalised(name: str) -> str:
    """The name under which an index knows a library.

    >>> normalised("prometheus_client")
    'prometheus-client'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, Pin]:
    """The pins of a file, by name.

    Raises:
        ValueError: a line is something else, which an install would follow without a pin; the text names it.
    """
    pins = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"{path}: expected NAME==VERSION, got {line.strip()!r}")
        pin = Pin(normalised(found["name"]), found["version"], frozenset(_HASH.findall(line)))
        pins[pin.name] = pin
    return pins
