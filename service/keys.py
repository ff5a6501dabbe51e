"""Keys, and the file that they are known from: it holds what a key may and its SHA-256, never the key.

A key is `nelbo_ID_SECRET`. Its id is no secret and finds its entry, so that the one comparison of a secret is that of
two digests.
"""

import binascii
import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import msgspec

from nelbo.bundle import replace_file

Scope = Literal["score", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_FORMAT = 1
_SECRET_BYTES = 32  # twice the 128 bits below which a key could be guessed some day
_MAX_BYTES = 1 << 20  # of the file: some thousand keys
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


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    keys: list[msgspec.Raw]


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
    if problems := _problems(key):
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
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise KeysError(f"the file of keys cannot be read: {error.strerror}") from error
    if len(text) > _MAX_BYTES:
        raise KeysError(f"the file of keys: expected at most {_MAX_BYTES} bytes, got more")
    return parse_keys(text)


def parse_keys(text: bytes) -> list[Key]:
    """The keys in the text of a file.

    Raises:
        KeysError: as above.
    """
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KeysError(f"the file of keys: {_bare(error)}") from None
    if file.format != _FORMAT:
        raise KeysError(f"the file of keys: expected format {_FORMAT}, got {file.format}")
    keys: list[Key] = []
    problems: list[str] = []
    for i, raw in enumerate(file.keys):
        try:
            key = msgspec.json.decode(raw, type=Key)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"key {i}: {_bare(error)}")
            continue
        problems += [f"key {i}: {problem}" for problem in _problems(key)]
        if key.id in {other.id for other in keys}:
            problems.append(f"key {i}: its id is another's too")
        keys.append(key)
    if problems:
        raise KeysError("\n".join(f"the file of keys: {problem}" for problem in problems))
    return keys


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Replaces the file, for its owner alone to read; one that was there keeps the permissions that it had."""
    text = msgspec.json.encode({"format": _FORMAT, "keys": keys})
    replace_file(path, msgspec.json.format(text, indent=1) + b"\n", mode=_mode(path))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o600


def _problems(key: Key) -> list[str]:
    problems = []
    if not _ID.fullmatch(key.id):
        problems.append("id: expected 12 hexadecimal digits")
    if not _NAME.fullmatch(key.name):
        problems.append("name: expected at most 64 letters, digits, spaces and _.:@/+-")
    if not _is_digest(key.sha256):
        problems.append("sha256: expected 64 hexadecimal digits")
    if not key.scopes or len(set(key.scopes)) < len(key.scopes):
        problems.append(f"scopes: expected one or more of {', '.join(SCOPES)}, each once, got {list(key.scopes)}")
    times = {"created": key.created} | ({} if key.expires is None else {"expires": key.expires})
    problems += [f"{of}: expected a time like 2026-03-02T08:15:00Z" for of, t in times.items() if not _is_time(t)]
    return problems


def _bare(error: Exception) -> str:
    """What is wrong, without a text that stands in the file."""
    return re.sub(r"""['"].*['"]|(?<=unknown field )`.*`(?= - at |$)""", "…", str(error))


def _is_digest(text: str) -> bool:
    try:
        return len(text) == 64 and len(binascii.unhexlify(text)) == 32
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _said(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
