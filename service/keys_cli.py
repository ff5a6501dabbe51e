"""`nelbo keys`: makes, lists and revokes the keys of a service. A key is shown once; the file keeps its SHA-256."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.keys import SCOPES, Key, KeysError, Scope, new_key, read_keys, write_keys

_USAGE = 2  # exit code for what the caller can put right
File = Annotated[Path, typer.Option("--keys", envvar="NELBO_KEYS", help="The file of keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT = Path("keys.json")

keys = typer.Typer(help="Make, list and revoke the keys of a service.", no_args_is_help=True)


@keys.command()
def new(
    scopes: Annotated[list[str], typer.Option("--scope", help=f"{', '.join(SCOPES)}; may be given several times.")],
    name: Annotated[str, typer.Option(help="Whose it is, or what for.")] = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="It expires after so many; never if not given.")
    ] = None,
    file: File = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: once, for nothing that is kept could give it back."""
    now = datetime.now(UTC)
    with _changing(file) as known:
        text, key = new_key(_scopes(scopes), name, now, None if days is None else now + timedelta(days=days))
        write_keys(file, [*known, key])
    if as_json:
        typer.echo(json.dumps({"key": text, **_said(key, now)}))
        return
    typer.echo(text)
    typer.echo(f"Key {key.id} may {', '.join(key.scopes)}; it is shown only now. Its SHA-256 is in {file}:", err=True)
    typer.echo(f"  NELBO_KEYS={file} nelbo serve\n  curl -H 'Authorization: Bearer KEY' …", err=True)


@keys.command("list")
def list_(file: File = DEFAULT, as_json: AsJson = False) -> None:
    """List the keys: what each may, and until when."""
    now, known = datetime.now(UTC), _read(file)
    if as_json:
        typer.echo(json.dumps([_said(key, now) for key in known]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("id", "scopes", "created", "expires", "name"):
        table.add_column(heading)
    for key in known:
        until = "never" if key.expires is None else key.expires + (" (expired)" if _is_over(key, now) else "")
        table.add_row(key.id, ", ".join(key.scopes), key.created, until, key.name)
    Console().print(table)


@keys.command()
def revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Of the key, as `nelbo keys list` shows it.")],
    file: File = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: a service that reads the file refuses it within a second or two."""
    with _changing(file) as known:
        found = [key for key in known if key.id == id_]
        if not found:
            _refuse(f"no key {id_!r} in {file}; there: {', '.join(key.id for key in known) or 'none'}")
        write_keys(file, [key for key in known if key.id != id_])
    typer.echo(json.dumps({"revoked": found[0].id}) if as_json else f"revoked {found[0].id}")


@contextmanager
def _changing(file: Path) -> Iterator[list[Key]]:
    """The keys of a file that nobody else changes meanwhile: two commands at once would lose one's key."""
    import fcntl  # not above: Windows has none, and there too `nelbo` imports this module for its other commands

    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield _read(file) if file.exists() else []
    except KeysError as error:
        _refuse(str(error))
    finally:
        os.close(folder)


def _read(file: Path) -> list[Key]:
    try:
        return read_keys(file)
    except KeysError as error:
        _refuse(f"{file}: {error}")


def _scopes(names: list[str]) -> list[Scope]:
    found = [scope for scope in SCOPES if scope in names]
    if unknown := [name for name in names if name not in SCOPES]:
        raise KeysError(f"--scope: expected {', '.join(SCOPES)}, got {', '.join(map(repr, unknown))}")
    return found


def _said(key: Key, now: datetime) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": key.created,
        "expires": key.expires,
        "is_expired": _is_over(key, now),
    }


def _is_over(key: Key, now: datetime) -> bool:
    return key.expires_at <= now.timestamp()


def _refuse(text: str) -> NoReturn:
    typer.echo(f"nelbo: {text}", err=True)
    raise typer.Exit(_USAGE)
