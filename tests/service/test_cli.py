import json
import os
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

from service.cli import _greeting
from service.keys import new_key, write_keys
from service.settings import Settings
from tests.bundles import write_tiny_bundle

ROOT = Path(__file__).parents[2]
SERVE = [sys.executable, "-c", "import typer; from service.cli import serve; typer.run(serve)"]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    command = [*SERVE, *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_serving_an_empty_folder_says_what_to_do_and_ends_with_2(tmp_path: Path) -> None:
    found = serve("--models", str(tmp_path))
    assert (found.returncode, found.stderr) == (
        2,
        f"no model in {tmp_path}; fit one with: nelbo fit TABLE --name NAME --models {tmp_path}\n",
    )


def test_wrong_options_are_all_listed_at_once() -> None:
    found = serve("--port", "70000", "--log-level", "loud")
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "NELBO_PORT: expected a whole number from 0 to 65535, got '70000'",
        "NELBO_LOG_LEVEL: expected one of debug, info, warning, error, got 'loud'",
    ]


def test_a_damaged_model_is_told_before_it_is_served(tmp_path: Path) -> None:
    (write_tiny_bundle(tmp_path) / "score.onnx").unlink()
    found = serve("--models", str(tmp_path), "--host", "192.0.2.1")
    assert "  nothing yet: bundle " in found.stderr
    assert "score.onnx is missing" in found.stderr


def test_the_request_that_serve_prints_is_answered(models: Path) -> None:
    command = [*SERVE, "--models", str(models), "--port", "0"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        greeting = "".join(takewhile(lambda line: line not in ("\n", ""), process.stderr))
        port = json.loads(process.stderr.readline())["port"]
        process.stderr.readline()  # the model is loaded
        curl = shlex.split(greeting.splitlines()[-1])
        path, header, body = curl[1].removeprefix("http://127.0.0.1:0"), curl[3], curl[5]
        name, _, value = header.partition(": ")
        found = httpx.post(f"http://127.0.0.1:{port}{path}?strict=true", content=body, headers={name: value})
        process.send_signal(signal.SIGTERM)
    assert (found.status_code, process.returncode) == (200, 0)
    assert greeting.startswith(f"Serving pumps from {models} at http://127.0.0.1:0 (stop with Ctrl-C)\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keys", "k.json"], "Requests need a key; to make one: nelbo keys new --scope score --keys k.json\n"),
        (["--access", "keys"], "nelbo keys new --scope score --keys FILE, and serve with --keys FILE\n"),
        (["--access", "open"], "Documentation at http://192.0.2.1:8000/docs, metrics at "),
        ([], "Requests need a key"),
    ],
)
def test_serve_says_whether_requests_need_a_key(options: list[str], said: str, models: Path) -> None:
    found = serve("--models", str(models), "--host", "192.0.2.1", *options)
    assert said in found.stderr
    assert ("-H 'authorization: Bearer KEY' " in found.stderr) is ("open" not in options)


def test_serve_counts_the_keys_that_there_are_instead_of_advising_another(models: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    expiries = (None, now + timedelta(days=1), now - timedelta(days=1))
    write_keys(tmp_path / "keys.json", [new_key(["score"], "", now, expires)[1] for expires in expiries])
    found = serve("--models", str(models), "--host", "192.0.2.1", "--keys", str(tmp_path / "keys.json"))
    assert f"Requests need a key; {tmp_path}/keys.json has 2 that have not expired\n" in found.stderr
    assert "nelbo keys new" not in found.stderr


def test_where_every_key_has_expired_serve_says_how_to_make_one(models: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    write_keys(tmp_path / "my keys.json", [new_key(["score"], "", now, now)[1]])
    found = serve("--models", str(models), "--host", "192.0.2.1", "--keys", str(tmp_path / "my keys.json"))
    assert f"to make one: nelbo keys new --scope score --keys '{tmp_path}/my keys.json'\n" in found.stderr


@pytest.mark.parametrize(
    ("host", "listening", "address"),
    [
        ("0.0.0.0", "http://0.0.0.0:8123", "http://127.0.0.1:8123"),  # noqa: S104  # the point
        ("::", "http://[::]:8123", "http://[::1]:8123"),
        ("192.0.2.1", "http://192.0.2.1:8123", "http://192.0.2.1:8123"),
        ("scales.example", "http://scales.example:8123", "http://scales.example:8123"),
    ],
)
def test_the_address_that_serve_advises_is_one_that_can_be_asked(
    host: str, listening: str, address: str, models: Path
) -> None:
    greeting = _greeting(Settings(models=models, host=host, port=8123, access="open"), ["pumps"])
    first, *others = greeting.splitlines()
    assert first.endswith(f" at {listening} (stop with Ctrl-C)")
    assert f"Documentation at {address}/docs, metrics at {address}/metrics" in others
    assert shlex.split(others[-2])[1] == f"{address}/v1/models/pumps/score"


def test_an_open_service_with_a_file_of_keys_is_a_contradiction() -> None:
    found = serve("--keys", "k.json", "--access", "open")
    assert (found.returncode, found.stderr) == (
        2,
        "NELBO_ACCESS: expected keys where NELBO_KEYS names a file of them, got 'open'\n",
    )
