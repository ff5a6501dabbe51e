"""What an operator may set: read once from the environment, then handed down."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

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
        reload_s: pause between two looks at the store for what has changed, seconds; 0 looks only when the process
            starts.
        keep_versions: how many of a model's newest versions a promotion by a call leaves in the store; None for all.
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
    reload_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 10.0
    keep_versions: Annotated[int, Field(ge=1)] | None = None
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


_EXPECTED = {
    "models": "a folder",
    "host": "an address, 127.0.0.1 for example",
    "port": "a whole number from 0 to 65535",
    "max_body_bytes": "a whole number of bytes, at least 1",
    "max_records": "a whole number, at least 1",
    "max_queued_records": "a whole number, at least 1",
    "reload_s": "a number of seconds from 0 to 86400",
    "keep_versions": "a whole number, at least 1",
    "log_level": "one of debug, info, warning, error",
    "keys": "a file",
    "access": "keys or open",
    "metrics_open": "true or false",
}


class SettingsError(Exception):
    """Settings that cannot hold; the text lists every problem, one a line."""


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: naming each variable, what it should be and what it is.
    """
    try:
        found = Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(fault["loc"], fault["input"]) for fault in error.errors())) from error
    if found.access == "open" and found.keys is not None:
        raise SettingsError("NELBO_ACCESS: expected keys where NELBO_KEYS names a file of them, got 'open'")
    return found


def _problem(place: tuple[int | str, ...], found: object) -> str:
    name = str(place[0])
    return f"{PREFIX}{name.upper()}: expected {_EXPECTED[name]}, got {found!r}"
