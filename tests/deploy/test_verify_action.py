"""The action that verifies a bundle, without GitHub: its steps are shell."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "actions" / "verify-bundle"
ACTION: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8"))
INSTALL, VERIFY = ACTION["runs"]["steps"]


def verify(folder: Path, exit_code: int = 0, **inputs: str) -> tuple[int, list[str]]:
    """What the step exits with, and what `nelbo` was called with, one that ends with this exit code."""
    program = folder / "nelbo" / "bin" / "nelbo"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{folder}/called"\nexit {exit_code}\n', encoding="utf-8")
    program.chmod(0o755)
    given = {name: default["default"] for name, default in ACTION["inputs"].items() if "default" in default} | inputs
    environment = {name.upper(): given[name] for name in ("bundle", "trust", "data", "models")}
    command = ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", VERIFY["run"]]
    surroundings = environment | {"RUNNER_TEMP": str(folder), "PATH": os.defpath}
    ended = subprocess.run(command, env=surroundings, cwd=folder, timeout=30, check=False)
    return ended.returncode, (folder / "called").read_text(encoding="utf-8").splitlines()


def test_the_action_verifies_signature_and_files(tmp_path: Path) -> None:
    _, called = verify(tmp_path, bundle="pumps@live", trust="trust.json")
    assert called == ["verify", "--models", "models", "--trust", "trust.json", "--", "pumps@live"]


def test_the_action_holds_the_data_against_the_manifest_where_it_is_given(tmp_path: Path) -> None:
    _, called = verify(tmp_path, bundle="pumps", trust="trust.json", data="old table.csv")
    assert called[3:] == ["--trust", "trust.json", "--data", "old table.csv", "--", "pumps"]


def test_an_input_is_a_word_and_never_an_option_or_a_command(tmp_path: Path) -> None:
    hostile = '--trust=mine.json $(touch pwned) "; touch pwned; "'
    _, called = verify(tmp_path, bundle=hostile, trust="trust.json", models="$(touch pwned)")
    assert called == ["verify", "--models", "$(touch pwned)", "--trust", "trust.json", "--", hostile]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("exit_code", [1, 2])
def test_a_refused_bundle_fails_the_job(tmp_path: Path, exit_code: int) -> None:
    assert verify(tmp_path, exit_code, bundle="pumps", trust="trust.json")[0] == exit_code


def test_the_action_hands_inputs_over_by_the_environment_alone() -> None:
    assert [step["name"] for step in ACTION["runs"]["steps"] if "${{" in step["run"]] == []
    assert {name: f"${{{{ inputs.{name.lower()} }}}}" for name in ("BUNDLE", "TRUST", "DATA", "MODELS")} == VERIFY[
        "env"
    ]


def test_the_action_installs_from_locks_that_are_there() -> None:
    (locks,) = re.findall(r"for lock in (.*); do", INSTALL["run"])
    assert [lock for lock in locks.split() if not (ROOT / "requirements" / f"{lock}.txt").is_file()] == []
    assert INSTALL["run"].count("--require-hashes") == 1
    assert (FOLDER / INSTALL["env"]["NELBO"].partition("/")[2]).resolve() == ROOT


def test_the_example_gives_all_that_the_action_needs_and_trusts_by_the_base_branch() -> None:
    workflow = yaml.safe_load((FOLDER / "example.yml").read_text(encoding="utf-8"))
    *_, step = workflow["jobs"]["verify"]["steps"]
    assert {name for name, declared in ACTION["inputs"].items() if declared.get("required")} == set(step["with"])
    assert step["with"]["trust"].startswith("base/")
