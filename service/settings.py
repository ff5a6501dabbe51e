"""What an operator may set: read once from the environment, then handed down."""

import difflib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from nelbo.errors import TrustError

PREFIX = "NELBO_"
LogLevel = Literal["debug", "info", "warning", "error"]
AccessRule = Literal["keys", "open"]


class Settings(BaseSettings):
    """Settings of one process, each from the environment variable `NELBO_<NAME>`.

    Attributes:
        models: the store's folder.
        host: address to listen on; the default is reachable from this machine alone.
        port: 0 takes any free one, and the log names it.
        max_body_bytes: a longer body is refused before it is read to its end.
        max_records: of one request.
        max_queued_records: while as many wait to be scored, requests are refused with 503; None for what memory allows,
            at most 20,000.
        max_connections: at once; None for 1,024, or what the limit on descriptors leaves.
        request_deadline_s: how long a client may take to send a request, then the service to answer it, then the client
            to read that.
        drain_s: after SIGTERM, how long the service says that it is not ready while it still accepts requests; None for
            5, or 0 on a loopback address.
        reload_s: pause between two looks at the store for what has changed, seconds; 0 looks only when the process
            starts.
        keep_versions: how many of a model's newest versions a promotion by a call leaves in the store; None for all.
        trust: file of pinned keys, one of which must have signed each bundle; None loads unsigned ones too.
        log_level: the least severe log line that is written.
        keys: the file of keys, which need not be there yet.
        access: `keys` or `open`; None for keys where there is a file of them or others than this machine reach the
            address.
        metrics_open: whether metrics need no key.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    models: Path = Path("models")
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: Annotated[int, Field(ge=1)] = 16 * 2**20
    max_records: Annotated[int, Field(ge=1)] = 10_000
    max_queued_records: Annotated[int, Field(ge=1)] | None = None
    max_connections: Annotated[int, Field(ge=1)] | None = None
    request_deadline_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    drain_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = None
    reload_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 10.0
    keep_versions: Annotated[int, Field(ge=1)] | None = None
    trust: Path | None = None
    log_level: LogLevel = "info"
    keys: Path | None = None
    access: AccessRule | None = None
    metrics_open: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a key."""
        if self.access is None:
            return self.keys is None and self.is_loopback
        return self.access == "open"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def drains_for_s(self) -> float:
        """Seconds, chosen where they are not set: for a balancer to see that the service is not ready."""
        if self.drain_s is not None:
            return self.drain_s
        return 0.0 if self.is_loopback else 5.0


_EXPECTED = {
    "models": "a folder",
    "host": "an address, 127.0.0.1 for example",
    "port": "a whole number from 0 to 65535",
    "max_body_bytes": "a whole number of bytes, at least 1",
    "max_records": "a whole number, at least 1",
    "max_queued_records": "a whole number, at least 1",
    "max_connections": "a whole number, at least 1",
    "request_deadline_s": "seconds, more than 0 and at most 3600",
    "drain_s": "seconds, from 0 to 3600",
    "reload_s": "a number of seconds from 0 to 86400",
    "keep_versions": "a whole number, at least 1",
    "trust": "a file of pinned keys",
    "log_level": "one of debug, info, warning, error",
    "keys": "a file",
    "access": "keys or open",
    "metrics_open": "true or false",
}


# What a path must lead to, where it is set; of others, whoever opens them says what is wrong.
_FOLDERS = ("models",)

# Variables with our prefix that are no settings, and no mistakes: those of docker-compose.yml, which end there, and
# what Kubernetes tells each container about a Service of our name.
OF_COMPOSE = frozenset({"DATA", "IMAGE", "MEMORY", "NAME", "TABLE", "TRAINING_IMAGE", "VERSION"})
_OF_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_A_LINK = re.compile(r"(tcp|udp|sctp)://")

_LONGEST = 80  # characters of a value that are shown; chosen
_PATIENCE_S = 2.0  # with a folder that does not answer, which is no mistake in a setting. Chosen


class SettingsError(Exception):
    """Settings that cannot hold; the text lists every problem, one a line."""


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: naming each variable, what it should be and what it is.
    """
    found, problems = None, []
    try:
        found = Settings()
    except ValidationError as error:
        problems += [_problem(str(fault["loc"][0]), fault["input"]) for fault in error.errors()]
    given = {name.upper()[len(PREFIX) :]: value for name, value in os.environ.items() if _is_ours(name)}
    problems += [line for line in _empty(given) if line not in problems]
    problems += [*_wrong_folders(given), *_wrong_files(given), *_unknown(given)]
    if found is not None:
        problems += _conflicts(found)
    if found is None or problems:
        raise SettingsError("\n".join(problems))
    return found


def _conflicts(found: Settings) -> Iterator[str]:
    """Settings that each could hold, and not together."""
    if found.access == "open" and found.keys is not None:
        yield f"{PREFIX}ACCESS: expected keys where {PREFIX}KEYS names a file of them, got 'open'"


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)  # pydantic takes either case


def _problem(name: str, found: object) -> str:
    text, hint = _shown(found), ""
    if isinstance(found, str) and _A_LINK.match(found):
        hint = ", which Kubernetes sets for a Service of this name; enableServiceLinks: false keeps it away"
    return f"{PREFIX}{name.upper()}: expected {_EXPECTED[name]}, got {text}{hint}"


def _shown(value: object) -> str:
    """A wrong value as its setter sees it: not more of it than a line holds."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _empty(given: Mapping[str, str]) -> Iterator[str]:
    """A path that is empty would be the folder of the moment."""
    return (_problem(name, "") for name in Settings.model_fields if given.get(name.upper()) == "")


def _wrong_folders(given: Mapping[str, str]) -> Iterator[str]:
    for name in _FOLDERS:
        value = given.get(name.upper(), "")
        why = why_no_folder(Path(value)) if value else None
        if why is not None:
            yield f"{_problem(name, value)}, {why}"


def _wrong_files(given: Mapping[str, str]) -> Iterator[str]:
    """What is wrong in the files that settings name, line by line; a file of keys need not be there."""
    keys, trust = given.get("KEYS", ""), given.get("TRUST", "")
    # Each is imported where it is asked for: what it needs takes time and memory.
    if os.path.exists(keys):  # False where that cannot be told
        from service.keys import KeysError, read_keys  # noqa: PLC0415

        try:
            read_keys(Path(keys))
        except KeysError as error:
            yield from (f"{PREFIX}KEYS: {line}" for line in str(error).splitlines())
    if trust:
        from nelbo.trust import read_trust  # noqa: PLC0415

        try:
            read_trust(Path(trust))
        except TrustError as error:
            yield from (f"{PREFIX}TRUST: {line}" for line in str(error).splitlines())


def why_no_folder(path: Path) -> str | None:
    """Why a path is no folder that can be listed; None where it is one, or does not tell in time."""
    found: list[str] = []

    def look() -> None:
        try:
            next(path.iterdir(), None)
        except NotADirectoryError:
            found.append("which is a file")
        except FileNotFoundError:
            found.append("which is not there")
        except OSError as error:
            found.append(f"which cannot be read: {error.strerror}")

    # A store that hangs is not for the start to wait for: the service says that it is not ready, and why.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_PATIENCE_S)
    return found[0] if found else None


def _unknown(given: Mapping[str, str]) -> Iterator[str]:
    """A sentence on each variable that sets nothing; without its value, which may be anybody's secret."""
    known = [name.upper() for name in Settings.model_fields]
    for name in sorted(given):
        if name in known or name in OF_COMPOSE or _OF_KUBERNETES.fullmatch(name):
            continue
        (close, *_) = difflib.get_close_matches(name, known, n=1) or [""]
        yield f"{PREFIX}{name}: there is no such setting" + (f"; is {PREFIX}{close} meant?" if close else "")
