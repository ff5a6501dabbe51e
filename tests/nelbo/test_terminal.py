import json
from pathlib import Path

import pytest

from nelbo.terminal import printable
from tests.bundles import odd_record, write_tiny_bundle
from tests.commands import exit_code

ESCAPE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m"


@pytest.mark.parametrize(
    "character", ["\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800"]
)
def test_a_character_that_a_terminal_obeys_is_written_out(character: str) -> None:
    assert printable(f"a{character}b").isprintable()


@pytest.mark.parametrize("text", ["Torque [Nm]", "µm, °C, 温度, ½ – “x”", "a\tb\nc", ""])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_name_in_a_table_cannot_drive_the_terminal(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path)
    table = tmp_path / "new.ndjson"
    table.write_text(json.dumps(odd_record() | {ESCAPE: 1, f"valve{ESCAPE}": ESCAPE}) + "\n")
    more = ["--label", ESCAPE, "--normal", ESCAPE] if command == "evaluate" else []
    exit_code(monkeypatch, command, bundle, table, *more)
    printed = capsys.readouterr()
    assert "owned" in printed.err + printed.out
    assert [character for character in "\x1b\x07\r" if character in printed.err + printed.out] == []
    assert "\x9b" not in printed.err  # on standard output is JSON, whose bytes are those of a file


def test_a_file_whose_name_drives_the_terminal_is_told_by_a_name_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path)
    assert exit_code(monkeypatch, "score", bundle, tmp_path / f"{ESCAPE}.csv") == 2
    error = capsys.readouterr().err
    assert ("\x1b" in error, "\\x1b]0;owned\\x07" in error) == (False, True)
