"""`nelbo keys`: makes, lists and revokes the keys of a service. A key is shown once; the file keeps its SHA-256."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nelbo.terminal import complaint
from service.keys import SCOPES, Key, KeysError, Scope, new_key, read_keys, write_keys

_USAGE = 2  # exit code for what the caller can put right
File = Annotated[Path, typer.Option("--keys", envvar="NELBO_KEYS", help="The file of keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT = Path("keys.json")
_HEADINGS = ("id", "scopes", "created", "expires", "name")
_BREAKABLE = {
    "scopes": 9,
    "name": 9,
}  # columns that may be narrower than what is in them, and their least width; chosen

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
    with _changing(file, may_be_new=True) as known:
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
    rows = [_HEADINGS, *(_row(key, now) for key in known)]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns >= _least_width(rows):
        _print_table(rows)
    else:
        _print_lines(rows)


def _row(key: Key, now: datetime) -> tuple[str, ...]:
    until = "never" if key.expires is None else key.expires + (" (expired)" if _is_over(key, now) else "")
    return key.id, ", ".join(key.scopes), key.created, until, key.name


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _least_width(rows: Sequence[tuple[str, ...]]) -> int:
    """Of a table that cuts nothing."""
    widths = zip(_HEADINGS, _widths(rows), strict=True)
    return sum(_BREAKABLE.get(heading, width) + 2 for heading, width in widths)


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """As wide as the terminal: scopes and names that are wider go on in the next line, and nothing is cut."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading not in _BREAKABLE)
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)


def _print_lines(rows: Sequence[tuple[str, ...]]) -> None:
    """A key a line, whole: no program has a width, and a narrow terminal breaks lines by itself."""
    widths = _widths(rows)
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


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
def _changing(file: Path, *, may_be_new: bool = False) -> Iterator[list[Key]]:
    """The keys of a file that nobody else changes meanwhile: two commands at once would lose one's key."""
    import fcntl  # not above: Windows has none, and there too `nelbo` imports this module for its other commands

    try:
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        _refuse(f"{file}: the folder of the file of keys cannot be opened: {error.strerror}")
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield [] if may_be_new and not file.exists() else _read(file)
    except KeysError as error:
        _refuse(str(error))
    finally:
        os.close(folder)


def _read(file: Path) -> list[Key]:
    try:
        return read_keys(file)
    except KeysError as error:
        _refuse("\n".join(f"{file}: {line}" for line in str(error).splitlines()))


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
    typer.echo(complaint(text), err=True)
    raise typer.Exit(_USAGE)
