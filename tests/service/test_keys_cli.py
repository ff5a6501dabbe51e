import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from nelbo import cli
from service.keyring import KeyRing
from service.keys import read_keys
from service.keys_cli import keys

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from service.keys_cli import keys; keys()"]


def run(*arguments: object, **variables: str) -> Result:
    return CliRunner().invoke(keys, [str(argument) for argument in arguments], env=variables)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_new_key_is_printed_alone_and_works(file: Path) -> None:
    found = run("new", "--scope", "score", "--scope", "read", "--name", "scale 3", "--keys", file)
    assert found.exit_code == 0
    assert found.stdout.count("\n") == 1
    holder = KeyRing(file).holder(found.stdout.strip().encode())
    assert holder is not None
    assert holder.scopes == {"score", "read"}
    assert "shown only now" in found.stderr


def test_a_new_key_can_be_had_as_json(file: Path) -> None:
    found = json.loads(run("new", "--scope", "read", "--days", 2, "--keys", file, "--json").stdout)
    assert list(found) == ["key", "id", "name", "scopes", "created", "expires", "is_expired"]
    assert (found["scopes"], found["is_expired"]) == (["read"], False)
    assert KeyRing(file).holder(found["key"].encode()) is not None


def test_the_file_may_be_named_by_the_variable_of_the_service(file: Path) -> None:
    assert run("new", "--scope", "read", NELBO_KEYS=str(file)).exit_code == 0
    assert len(json.loads(run("list", "--json", NELBO_KEYS=str(file)).stdout)) == 1


def test_keys_are_listed_with_what_they_may_and_without_a_secret(file: Path) -> None:
    text = run("new", "--scope", "score", "--name", "scale 3", "--keys", file).stdout.strip()
    run("new", "--scope", "admin", "--days", 1, "--keys", file)
    found = run("list", "--keys", file).stdout
    assert [line.split()[1] for line in found.splitlines()] == ["scopes", "score", "admin"]
    assert "scale 3" in found
    assert text.split("_", 2)[2] not in found + run("list", "--keys", file, "--json").stdout


def test_a_revoked_key_is_gone_and_the_others_stay(file: Path) -> None:
    first, second = (run("new", "--scope", "read", "--keys", file).stdout.strip() for _ in range(2))
    found = run("revoke", first.split("_")[1], "--keys", file)
    assert (found.exit_code, found.stdout) == (0, f"revoked {first.split('_')[1]}\n")
    ring = KeyRing(file)
    assert (ring.holder(first.encode()), ring.holder(second.encode()) is not None) == (None, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new", "--scope", "all"], "nelbo: --scope: expected score, read, admin, got 'all'\n"),
        (["new", "--scope", "read", "--scope", "read"], None),
        (
            ["new", "--scope", "read", "--name", "\x1b]0;x"],
            "nelbo: name: expected at most 64 letters, digits, spaces and ",
        ),
        (["list"], ": the file of keys cannot be read: No such file or directory\n"),
        (["revoke", "0123"], ": the file of keys cannot be read: No such file or directory\n"),
    ],
)
def test_what_cannot_be_done_is_told_and_ends_with_2(arguments: list[str], said: str | None, file: Path) -> None:
    found = run(*arguments, "--keys", file)
    assert found.exit_code == (0 if said is None else 2)
    assert (said or "") in found.stderr


def test_an_unknown_key_is_not_revoked_and_the_known_ones_are_named(file: Path) -> None:
    id_ = run("new", "--scope", "read", "--keys", file).stdout.split("_")[1]
    found = run("revoke", "0123", "--keys", file)
    assert (found.exit_code, found.stderr) == (2, f"nelbo: no key '0123' in {file}; there: {id_}\n")


def test_a_folder_that_is_not_there_is_told(file: Path) -> None:
    found = run("new", "--scope", "read", "--keys", file / "keys.json")
    assert found.exit_code == 2
    assert found.stderr == (
        f"nelbo: {file}/keys.json: the folder of the file of keys cannot be opened: No such file or directory\n"
    )


@pytest.mark.parametrize("arguments", [["new", "--scope", "read"], ["list"], ["revoke", "x"]])
def test_each_problem_of_a_file_is_a_line_that_names_command_and_file(arguments: list[str], file: Path) -> None:
    file.write_text('{"format":2,"keys":[7]}')
    said = run(*arguments, "--keys", file).stderr.splitlines()
    assert [line.startswith(f"nelbo: {file}: the file of keys: ") for line in said] == [True, True]


def test_in_a_pipe_a_key_is_one_line_and_whole(file: Path) -> None:
    name = "of the scales in hall 3 / beside the gate to the yard / upstairs"
    scopes = ["--scope", "score", "--scope", "read", "--scope", "admin"]
    run("new", *scopes, "--name", name, "--days", 9, "--keys", file)
    (key,) = read_keys(file)
    command = [*COMMAND, "list", "--keys", str(file)]
    narrow = os.environ | {"COLUMNS": "40"}
    done = subprocess.run(command, cwd=ROOT, env=narrow, capture_output=True, text=True, check=True, timeout=60)
    (_, line) = done.stdout.splitlines()
    assert line == f"{key.id}  score, read, admin  {key.created}  {key.expires}  {name}"


@pytest.mark.parametrize("columns", [20, 79, 80, 90, 120])
def test_on_a_terminal_of_any_width_id_and_times_are_whole_and_nothing_is_cut(columns: int, file: Path) -> None:
    scopes = ["--scope", "score", "--scope", "read", "--scope", "admin"]
    name = "QQQQQ" * 8
    run("new", *scopes, "--name", name, "--days", 9, "--keys", file)
    (key,) = read_keys(file)
    ours, theirs = pty.openpty()
    command = [*COMMAND, "list", "--keys", str(file)]
    sized = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    subprocess.run(command, cwd=ROOT, env=sized, stdin=theirs, stdout=theirs, check=True, timeout=60)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 65536).decode())
    os.close(theirs)
    os.close(ours)
    assert [text for text in (key.id, key.created, str(key.expires), "admin") if text not in printed] == []
    assert printed.count("Q") == len(name)
    assert "…" not in printed


def test_a_broken_file_is_neither_read_nor_overwritten(file: Path) -> None:
    file.write_text('{"format":1,"keys":[{"id":"x"}]}')
    for arguments in (["new", "--scope", "read"], ["list"], ["revoke", "x"]):
        assert run(*arguments, "--keys", file).exit_code == 2
    assert file.read_text() == '{"format":1,"keys":[{"id":"x"}]}'


def test_commands_that_run_at_once_lose_no_key(file: Path) -> None:
    command = [*COMMAND, "new", "--scope", "read", "--keys", str(file)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(6)]
    made = {process.communicate(timeout=60)[0] for process in running}
    ring = KeyRing(file)
    assert (len(made), len(ring)) == (6, 6)


def test_the_command_nelbo_has_keys_among_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, module = "keys", "service.keys_cli"

        def load(self) -> typer.Typer:
            return keys

    monkeypatch.setattr(cli, "entry_points", lambda **_: [Entry()])
    found = CliRunner().invoke(cli._app(), ["keys", "new", "--help"])
    assert (found.exit_code, "--scope" in found.stdout) == (0, True)
