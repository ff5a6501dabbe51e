"""`nelbo serve`: says what will be served, then becomes the serving process."""

import os
import shlex
import sys
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer

from nelbo.bundle import read_bundle
from nelbo.errors import NelboError, TrustError
from nelbo.resources import read_resources
from nelbo.store import Store
from nelbo.terminal import printable

if TYPE_CHECKING:
    from nelbo.trust import Trust
    from service.settings import Settings

_USAGE = 2  # exit code for what the caller can put right


def serve(
    models: Annotated[Path | None, typer.Option(help="Folder of models. [default: models]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 8000]")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Longest body, bytes. [default: 16 MiB]")] = None,
    max_records: Annotated[int | None, typer.Option(help="Most records a request. [default: 10000]")] = None,
    max_queued_records: Annotated[
        int | None,
        typer.Option(help="Most records that wait to be scored. [default: what memory allows, at most 20000]"),
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Most connections at once. [default: 1024, or what descriptors allow]")
    ] = None,
    request_deadline_s: Annotated[
        float | None, typer.Option(help="Longest time to send, answer and read a request, each. [default: 30]")
    ] = None,
    drain_s: Annotated[
        float | None,
        typer.Option(help="Time to still accept requests after SIGTERM. [default: 5, on a loopback address 0]"),
    ] = None,
    reload_s: Annotated[
        float | None, typer.Option(help="Seconds between two looks for new versions; 0 for none. [default: 10]")
    ] = None,
    keep_versions: Annotated[
        int | None, typer.Option(help="Versions of a model that a promotion leaves. [default: all]")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="File of pinned keys; a bundle must be signed by one. [default: none]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
    keys: Annotated[Path | None, typer.Option(help="The file of keys that `nelbo keys` writes.")] = None,
    access: Annotated[
        str | None,
        typer.Option(help="keys or open. [default: keys with --keys, or where others reach the address; else open]"),
    ] = None,
    metrics_open: Annotated[
        bool | None, typer.Option("--metrics-open", help="Let /metrics be read without a key.", show_default=False)
    ] = None,
) -> None:
    """Serve every model of a folder over HTTP.

    Each option can be set by an environment variable too: --max-records by NELBO_MAX_RECORDS.
    """
    # Not above: `nelbo` imports this module also where the service's libraries are not installed.
    from service.settings import PREFIX, SettingsError, read_settings

    given = {
        "MODELS": models,
        "HOST": host,
        "PORT": port,
        "MAX_BODY_BYTES": max_body_bytes,
        "MAX_RECORDS": max_records,
        "MAX_QUEUED_RECORDS": max_queued_records,
        "MAX_CONNECTIONS": max_connections,
        "REQUEST_DEADLINE_S": request_deadline_s,
        "DRAIN_S": drain_s,
        "RELOAD_S": reload_s,
        "KEEP_VERSIONS": keep_versions,
        "TRUST": trust,
        "LOG_LEVEL": log_level,
        "KEYS": keys,
        "ACCESS": access,
        "METRICS_OPEN": metrics_open,
    }
    os.environ |= {PREFIX + name: str(value) for name, value in given.items() if value is not None}
    try:
        settings = read_settings()
        trusted = None if settings.trust is None else _trust(settings.trust)
    except (SettingsError, TrustError) as error:
        _refuse(str(error))
    names = Store(settings.models).names()
    if not names:
        _refuse(f"no model in {settings.models}; fit one with: nelbo fit TABLE --name NAME --models {settings.models}")
    sys.stderr.write(printable(_greeting(settings, names, trusted)))
    sys.stderr.flush()
    # The serving process starts over, so that it holds neither this command's libraries nor their memory; with -P,
    # so that a folder `service` where the command was typed is not mistaken for ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "service"])  # noqa: S606  # no shell


def _refuse(text: str) -> NoReturn:
    sys.stderr.write(f"{printable(text)}\n")
    raise typer.Exit(_USAGE)


def _trust(path: Path) -> "Trust":
    from nelbo.trust import read_trust

    return read_trust(path)


def _greeting(settings: "Settings", names: list[str], trusted: "Trust | None" = None) -> str:
    from service.capacity import capacity_of

    listening, address = _url(settings.host, settings.port), _url(_reachable(settings.host), settings.port)
    lines = [f"Serving {', '.join(names)} from {settings.models} at {listening} (stop with Ctrl-C)"]
    lines += [f"With {why}" for why in capacity_of(settings, read_resources()).why]
    if settings.is_open:
        lines += [f"Documentation at {address}/docs, metrics at {address}/metrics", "Try:"]
    else:
        lines += [f"Requests need a key; {_keys_of(settings.keys)}", "Try:"]
    header = "" if settings.is_open else "-H 'authorization: Bearer KEY' "
    return "\n".join([*lines, _first_request(Store(settings.models), names[0], address, header, trusted)]) + "\n\n"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reachable(host: str) -> str:
    """Where this machine reaches a service that listens on the host: 0.0.0.0 and :: mean each address, and are none."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # who listens on :: answers nobody at 127.0.0.1


def _keys_of(path: Path | None) -> str:
    """How many keys there are, or how to make the first one."""
    from service.keys import KeysError, read_keys

    if path is None:
        return "to make one: nelbo keys new --scope score --keys FILE, and serve with --keys FILE"
    try:
        n = sum(key.expires_at > datetime.now(UTC).timestamp() for key in read_keys(path))
    except KeysError:  # it is not there yet: what is wrong in it was told with the settings
        n = 0
    if n == 0:
        return f"to make one: nelbo keys new --scope score --keys {shlex.quote(str(path))}"
    return f"{path} has {n} that {'has' if n == 1 else 'have'} not expired"


def _first_request(store: Store, name: str, address: str, header: str, trusted: "Trust | None") -> str:
    try:
        record = read_bundle(store.live(name), trusted).golden[0].record
    except NelboError as error:
        return f"  nothing yet: {error}"
    body = msgspec.json.encode({"records": [record]}).decode().replace("'", "'\\''")
    body = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in body)  # it goes to a terminal
    url = shlex.quote(f"{address}/v1/models/{name}/score")  # a shell has its own idea of [::1]
    return f"  curl {url} {header}-H 'content-type: application/json' -d '{body}'"
