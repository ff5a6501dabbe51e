"""The command line, run in this process."""

import sys
from typing import Any

import pytest

from nelbo import cli


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs `nelbo` with these arguments, on a terminal wide enough for its tables; what it exits with."""
    monkeypatch.setattr(sys, "argv", ["nelbo", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    code: Any = 0
    try:
        cli.main()
    except SystemExit as exit_:
        code = exit_.code or 0
    sys.stdout.flush()
    return int(code)
