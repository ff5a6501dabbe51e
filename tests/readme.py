"""README.md, and docs/v2.md, as something that runs: their commands, and the answers that they show for them.

`python -m tests.readme` writes the answers anew, after `make demo` for example: it asks the live version of the demo
model. What a page leaves out ("…") stays left out.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from nelbo.store import Store

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
PROTOCOL = ROOT / "docs" / "v2.md"
OMITTED = "…"
_WIDTH = 118  # of a line of shown JSON

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of commands, and what the page shows for it.

    Attributes:
        commands: of a shell.
        language: of the block that follows at once, "json" or "text"; None where none does.
        shown: its text.
    """

    commands: str
    language: str | None = None
    shown: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of an example's commands."""

    status: int
    output: str
    errors: str


def examples(page: str) -> list[Example]:
    """The examples of a page, in order.

    Raises:
        ValueError: a block is of a language that nothing here runs, or shows an answer to nothing.
    """
    found: list[Example] = []
    for language, text in _BLOCK.findall(page):
        if language == "sh":
            found.append(Example(text))
        elif language in ("json", "text") and found and found[-1].language is None:
            found[-1] = Example(found[-1].commands, language, text)
        else:
            raise ValueError(f"nothing runs a block of {language or 'no language'!r}: {text[:60]!r}")
    return found


def shown_version(page: str) -> str:
    """The version of the demo model whose answers the page shows."""
    answers = [example.shown for example in examples(page) if example.language == "json"]
    version: str = json.loads(answers[0])["model"]["version"]
    return version


# --- running ----------------------------------------------------------------------------------------

# The commands below are all that an example can call: anything else is not found, and fails.
_TOOLS = ("cat", "head", "sed")
_QUICK = "steps = 100\nencoder = [16]\ndecoder = [16]\n"
_NELBO = """#!/bin/sh
if [ "$1" = fit ]; then set -- "$@" --config "{quick}"; fi
exec "{nelbo}" "$@"
"""
_MAKE = """#!/bin/sh
for word; do
  case "$word" in *=*) wanted="^${{word%%=*}} ?= " ;; *) wanted="^$word:" ;; esac
  {grep} -q "$wanted" "{makefile}" || {{ echo "the Makefile has no $word" >&2; exit 2; }}
done
"""
_CURL = """#!{python}
import argparse, pathlib, sys, urllib.error, urllib.request
parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("-H", action="append", default=[])
parser.add_argument("-d")
parser.add_argument("--data-binary")
asked = parser.parse_args()
body = asked.d.encode() if asked.d else None
if body and body[:1] == b"@":
    body = pathlib.Path(asked.d[1:]).read_bytes().replace(b"\\n", b"")
if asked.data_binary:
    body = pathlib.Path(asked.data_binary.removeprefix("@")).read_bytes()
start = "http://127.0.0.1:8000/"
assert asked.url.startswith(start), asked.url
request = urllib.request.Request("http://127.0.0.1:{port}/" + asked.url[len(start):], body)
for header in asked.H:
    request.add_header(*header.split(": ", 1))
try:
    answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(answer.read().decode())
"""


def run_all(page: str, folder: Path, version: str) -> list[Outcome]:
    """Runs every example of a page in order, in a folder like a fresh clone, against a service of its own.

    Args:
        page: its text.
        folder: empty.
        version: of the demo model, to be the live one.
    """
    clone = _clone(folder / "clone", version)
    with _service(clone / "models") as port:
        commands = _commands(folder / "bin", port)
        return [_outcome(example, clone, commands) for example in examples(page)]


def _clone(folder: Path, version: str) -> Path:
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    shutil.copytree(ROOT / "models" / "machines" / version, folder / "models" / "machines" / version)
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    return folder


def _commands(folder: Path, port: int) -> Path:
    folder.mkdir()
    quick = folder / "quick.toml"
    quick.write_text(_QUICK)
    nelbo = Path(sys.executable).with_name("nelbo")
    scripts = {
        "nelbo": _NELBO.format(quick=quick, nelbo=nelbo),
        "make": _MAKE.format(grep=shutil.which("grep"), makefile=ROOT / "Makefile"),
        "curl": _CURL.format(python=sys.executable, port=port),
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for name in _TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def _outcome(example: Example, clone: Path, commands: Path) -> Outcome:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NELBO_")}
    environment |= {"PATH": str(commands), "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [shutil.which("bash") or "/bin/sh", "-e", "-c", example.commands],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(found.returncode, found.stdout, found.stderr)


@contextmanager
def _service(models: Path) -> Iterator[int]:
    """The port of a service that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"NELBO_MODELS": str(models), "NELBO_PORT": str(port), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "service"], env=os.environ | settings, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_ready(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(port: int) -> None:
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz/ready"):
                return
        except HTTPError as error:
            error.close()
        except URLError:
            pass
        time.sleep(0.05)
    raise TimeoutError("the service is not ready after 30 s")


# --- comparing --------------------------------------------------------------------------------------


def differences(shown: Any, real: Any, place: str = "answer") -> Iterator[str]:
    """Where an answer differs from what a page shows of it; numbers may by 1e-4, since they are rounded."""
    if isinstance(shown, str) and shown.endswith(OMITTED) and (shown == OMITTED or isinstance(real, str)):
        if shown != OMITTED and not real.startswith(shown.removesuffix(OMITTED)):
            yield f"{place}: {shown!r} is shown, {real!r} came"
    elif isinstance(shown, dict) and isinstance(real, dict):
        names = [name for name in real if OMITTED not in shown or name in shown]
        if names != [name for name in shown if name != OMITTED]:
            yield f"{place}: the names {list(shown)} are shown, {list(real)} came"
        for name in names:
            if name in shown:
                yield from differences(shown[name], real[name], f"{place}.{name}")
    elif isinstance(shown, list) and isinstance(real, list):
        entries = shown[:-1] if shown and shown[-1] == OMITTED else shown
        if len(entries) > len(real) or (entries is shown and len(entries) != len(real)):
            yield f"{place}: {len(entries)} entries are shown, {len(real)} came"
        for i, (entry, came) in enumerate(zip(entries, real, strict=False)):
            yield from differences(entry, came, f"{place}[{i}]")
    elif type(shown) is float or type(real) is float:
        if shown is None or real is None or real != pytest.approx(shown, rel=1e-4):
            yield f"{place}: {shown!r} is shown, {real!r} came"
    elif shown != real or type(shown) is not type(real):
        yield f"{place}: {shown!r} is shown, {real!r} came"


# --- writing the page anew --------------------------------------------------------------------------


def like(shown: Any, real: Any) -> Any:
    """An answer as a page shows it: rounded, without what the page left out before."""
    if isinstance(shown, str) and shown.endswith(OMITTED):
        return OMITTED if shown == OMITTED else real[: len(shown) - 1] + OMITTED
    if isinstance(real, dict):
        old = shown if isinstance(shown, dict) else {}
        kept = {name: like(old.get(name), value) for name, value in real.items() if OMITTED not in old or name in old}
        return kept | ({OMITTED: OMITTED} if OMITTED in old else {})
    if isinstance(real, list):
        entries = shown if isinstance(shown, list) else []
        n = len(entries) - 1 if entries and entries[-1] == OMITTED else len(real)
        kept_entries = [like(entries[i] if i < len(entries) else None, real[i]) for i in range(n)]
        return kept_entries + ([OMITTED] if n < len(real) else [])
    return float(f"{real:.6g}") if isinstance(real, float) else real


def pretty(value: Any, indent: int = 0, before: int = 0) -> str:
    """JSON, on one line where it fits.

    Args:
        value: to be written.
        indent: of its lines.
        before: characters that stand on its first line already.
    """
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or max(indent, before) + len(line) < _WIDTH:
        return line
    if isinstance(value, list):
        parts = [pretty(entry, indent + 2, indent + 2) for entry in value]
        opening, closing = "[]"
    else:
        keys = [json.dumps(name, ensure_ascii=False) + ": " for name in value]
        parts = [
            key + pretty(entry, indent + 2, indent + 2 + len(key))
            for key, entry in zip(keys, value.values(), strict=True)
        ]
        opening, closing = "{}"
    inner = ",\n".join(" " * (indent + 2) + part for part in parts)
    return f"{opening}\n{inner}\n{' ' * indent}{closing}"


def main() -> None:
    """Writes the pages' answers anew."""
    version = Store(ROOT / "models").live("machines").name
    for page in (PAGE, PROTOCOL):
        page.write_text(_anew(page.read_text(encoding="utf-8"), version), encoding="utf-8")


def _anew(page: str, version: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_all(page, Path(folder), version)
    for example, outcome in zip(examples(page), outcomes, strict=True):
        assert outcome.status == 0, f"{example.commands}\n{outcome.errors}"
        if example.language == "json":
            shown = like(json.loads(example.shown), json.loads(outcome.output))
            page = page.replace(f"```json\n{example.shown}```", f"```json\n{pretty(shown)}\n```")
    return page


if __name__ == "__main__":
    main()
