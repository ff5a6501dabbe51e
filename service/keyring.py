"""The keys that hold now: read from their file, and again when it has changed."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from service import logs
from service.keys import SCOPES, Key, KeysError, Scope, digest_of, id_of, read_keys
from service.settings import Settings

POLL_S = 1.0  # a key that was revoked works for so long at most, and while a request of its goes on
_LATE_S = 10.0  # after which a look that has not ended is told: a file system hangs. Chosen


@dataclass(frozen=True)
class Holder:
    """Whose key it is, and what it may."""

    id: str
    digest: bytes
    scopes: frozenset[Scope]
    meets: frozenset[str]  # the needs of routes that it may ask
    expires_at: float  # seconds since 1970


# What a key of an unknown id is compared with, so that each presented key is hashed and compared once.
_NOBODY = Holder("", secrets.token_bytes(32), frozenset(), frozenset(), 0.0)


class KeyRing:
    """The keys of a file, which need not be there yet.

    Args:
        path: of the file.
        clock: seconds since 1970.

    Raises:
        KeysError: the file is there and wrong. Later on, such a file leaves the keys as they are.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._holders: dict[bytes, Holder] = {}
        self._seen = self._stamp()
        self._stopping = threading.Event()
        self._problem: str | None = None
        self._looked_at: float | None = None  # by the watch, on the monotonic clock; None where nobody watches
        if self._seen is not None:
            self._holders = _by_id(read_keys(path))

    def __len__(self) -> int:
        return len(self._holders)

    @property
    def is_current(self) -> bool:
        """Whether the keys are those that the file holds."""
        is_late = self._looked_at is not None and time.monotonic() - self._looked_at > _LATE_S
        return self._problem is None and not is_late

    def holder(self, key: bytes) -> Holder | None:
        """Whose key it is; None where it is unknown, revoked or expired.

        Which keys there are decides nothing about the time that this takes but through the id, which is no secret.
        """
        known = self._holders.get(id_of(key), _NOBODY)
        is_theirs = compare_digest(digest_of(key), known.digest)
        return known if is_theirs and self._clock() < known.expires_at else None

    def refresh(self) -> None:
        """Reads the file if it has changed; where that fails, the keys of before go on until it can be read.

        It is tried again though the file stays the same: a file system may have failed, or descriptors been short.
        """
        stamp = self._stamp()
        if stamp == self._seen and self._problem is None:
            return
        is_news, self._seen = stamp != self._seen, stamp
        try:
            self._holders = _by_id(read_keys(self._path))
        except KeysError as error:
            is_news, self._problem = is_news or str(error) != self._problem, str(error)
            if is_news:
                logs.event("keys not read", level=logging.ERROR, reason=str(error), n_keys=len(self._holders))
        else:
            self._problem = None
            logs.event("keys read", n_keys=len(self._holders))

    def watch(self) -> None:
        """Refreshes again and again until `close`, in a thread of its own: a file system may take its time."""
        self._looked_at = time.monotonic()
        threading.Thread(target=self._watch, name="keys", daemon=True).start()

    def close(self) -> None:
        """Ends the watching."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                self.refresh()
            except Exception as error:  # the edge of the thread: the next look may go well
                is_news, self._problem = self._problem is None, type(error).__name__
                if is_news:
                    logs.event("keys not read", level=logging.ERROR, error=error, n_keys=len(self._holders))
            self._looked_at = time.monotonic()

    def _stamp(self) -> tuple[int, ...] | None:
        """What differs when the file does; None where there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _by_id(keys: Sequence[Key]) -> dict[bytes, Holder]:
    return {key.id.encode(): _holder(key) for key in keys}


def _holder(key: Key) -> Holder:
    meets = SCOPES if "admin" in key.scopes else key.scopes
    return Holder(key.id, key.digest, frozenset(key.scopes), frozenset((*meets, "any")), key.expires_at)


def key_ring_of(settings: Settings) -> KeyRing | None:
    """The keys of a process with these settings; None where there is no file of them.

    Raises:
        KeysError: the file is there and wrong.
    """
    return None if settings.keys is None else KeyRing(settings.keys)
