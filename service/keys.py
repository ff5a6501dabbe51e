"""Keys, and the file that they are known from: it holds what a key may and its SHA-256, never the key.

A key is `nelbo_ID_SECRET`. Its id is no secret and finds its entry, so that the one comparison of a secret is that of
two digests.
"""

import binascii
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import msgspec

from nelbo.bundle import replace_file
from nelbo.named_file import parse, read, shown

Scope = Literal["score", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_FORMAT = 1
_SECRET_BYTES = 32  # twice the 128 bits below which a key could be guessed some day
_PREFIX = "nelbo_"
_ID_PLACE = slice(len(_PREFIX), len(_PREFIX) + 12)
_ID = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[\w .:@/+-]{0,64}")


class KeysError(Exception):
    """A file of keys that cannot be used; the text lists every problem, one a line.

    It is logged, so of a text in the file it repeats none that may be a key or a digest in the wrong place.
    """


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a key.

    Attributes:
        id: 12 hexadecimal digits, part of the key and no secret.
        name: for people.
        sha256: of the whole key, in hex.
        scopes: what it may.
        created: ISO 8601, UTC.
        expires: likewise; None for never.
    """

    id: str
    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created: str
    expires: str | None

    @property
    def expires_at(self) -> float:
        """Seconds since 1970; infinite where it never expires."""
        return float("inf") if self.expires is None else datetime.fromisoformat(self.expires).timestamp()

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole key."""
        return bytes.fromhex(self.sha256)


def new_key(scopes: Sequence[Scope], name: str, now: datetime, expires: datetime | None) -> tuple[str, Key]:
    """A key, to be shown once, and what is kept of it.

    Args:
        scopes: what it may, at least one.
        name: for people.
        now: UTC.
        expires: UTC; None for never.

    Raises:
        KeysError: there is no scope, or the name will not do.
    """
    id_ = secrets.token_hex(6)
    text = f"{_PREFIX}{id_}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    until = None if expires is None else _said(expires)
    key = Key(id_, name, digest_of(text.encode()).hex(), tuple(scopes), _said(now), until)
    if problems := list(_problems(parse(msgspec.json.encode(key)), _OF_KEY)):
        raise KeysError("\n".join(problems))
    return text, key


def digest_of(key: bytes) -> bytes:
    """SHA-256: a key has 256 random bits, so no slow hash need stand between its digest and who would guess it."""
    return hashlib.sha256(key).digest()


def id_of(key: bytes) -> bytes:
    """The id that a key claims to have: whatever stands in its place.

    >>> id_of(b"nelbo_0123456789ab_secret"), id_of(b"password")
    (b'0123456789ab', b'rd')
    """
    return key[_ID_PLACE]


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        KeysError: the file cannot be read or is not as it is written here; the text lists everything that is wrong.
    """
    try:
        text = read(path)
    except OSError as error:
        raise KeysError(f"the file of keys cannot be read: {error.strerror}") from error
    return parse_keys(text)


def parse_keys(text: bytes) -> list[Key]:
    """The keys in the text of a file.

    Raises:
        KeysError: as above.
    """
    try:
        content = parse(text)
    except ValueError as error:
        raise KeysError(f"the file of keys: {error}") from None
    problems = list(_problems(content, _OF_FILE))
    keys = content.get("keys") if isinstance(content, dict) else None
    ids: set[str] = set()
    for i, key in enumerate(keys if isinstance(keys, list) else ()):
        problems += [f"key {i}: {problem}" for problem in _problems(key, _OF_KEY)]
        id_ = key.get("id") if isinstance(key, dict) else None
        if isinstance(id_, str):
            problems += [f"key {i}: its id is another's too"] if id_ in ids else []
            ids.add(id_)
    if problems:
        raise KeysError("\n".join(f"the file of keys: {problem}" for problem in problems))
    return msgspec.convert(keys, list[Key])


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Replaces the file, for its owner alone to read; one that was there keeps the permissions that it had."""
    text = msgspec.json.encode({"format": _FORMAT, "keys": keys})
    replace_file(path, msgspec.json.format(text, indent=1) + b"\n", mode=_mode(path))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o600


def _is_like(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_digest(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) == 64 and len(binascii.unhexlify(value)) == 32
    except ValueError:
        return False


def _are_scopes(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) == sum(scope in value for scope in SCOPES)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


# Of each field, what is expected and what tells.
_Fields = Mapping[str, tuple[str, Callable[[object], bool]]]
_TIME = "a time like 2026-03-02T08:15:00Z"
_OF_FILE: _Fields = {
    "format": (str(_FORMAT), lambda value: type(value) is int and value == _FORMAT),
    "keys": ("a list of keys", lambda value: isinstance(value, list)),
}
_OF_KEY: _Fields = {
    "id": ("12 hexadecimal digits", _is_like(_ID)),
    "name": ("at most 64 letters, digits, spaces and _.:@/+-", _is_like(_NAME)),
    "sha256": ("64 hexadecimal digits", _is_digest),
    "scopes": (f"one or more of {', '.join(SCOPES)}, each once", _are_scopes),
    "created": (_TIME, _is_time),
    "expires": (f"{_TIME}, or null", lambda value: value is None or _is_time(value)),
}
_REPEATED = frozenset({"format", "scopes", "created", "expires"})  # where a key or a digest is hardly put
# Characters of a text that is repeated there: a time has as many at most, a secret 43, a digest 64.
_HARMLESS = 32
_MOST_REPEATED = 4  # of a list; chosen


def _problems(content: object, fields: _Fields) -> Iterator[str]:
    """Everything that is wrong in an object that should have these fields and no other."""
    if not isinstance(content, dict):
        yield f"expected an object with {', '.join(fields)}, got {_counted(content)}"
        return
    for name, (expected, holds) in fields.items():
        if name not in content:
            yield f"{name}: expected {expected}, got nothing"
        elif not holds(content[name]):
            found = (_repeated if name in _REPEATED else _counted)(content[name])
            yield f"{name}: expected {expected}, got {found}"
    if more := [name for name in content if name not in fields]:
        yield f"expected no name but {', '.join(fields)}, got also {_repeated(more)}"


def _repeated(value: object) -> str:
    """A value as a log may have it, unless it may be a key, its secret or its digest."""
    if isinstance(value, list) and value:
        more = ", …" if len(value) > _MOST_REPEATED else ""
        return ", ".join(_harmless(one) for one in value[:_MOST_REPEATED]) + more
    return _harmless(value)


def _harmless(value: object) -> str:
    may_be_a_key = isinstance(value, str) and (len(value) > _HARMLESS or _PREFIX in value)
    return _counted(value) if may_be_a_key else shown(value)


def _counted(value: object) -> str:
    """What kind of value it is, and of a text its length."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "a number" if is_number else shown(value)


def _said(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
