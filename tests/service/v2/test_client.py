"""What Triton's own client makes of the answers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from service.keys import new_key, write_keys
from tests.bundles import VERSION, normal_records, odd_record

ROOT = Path(__file__).parents[3]
RECORDS: list[dict[str, Any]] = [*normal_records(4), odd_record()]
TYPES: dict[str, tuple[str, type]] = {
    "pressure": ("FP32", np.float32),
    "valve": ("BYTES", np.object_),
    "in/out [l/s]": ("FP64", np.float64),
    "rpm": ("FP64", np.float64),
    "heated": ("BOOL", np.bool_),
}


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[Any]:
    """A client of a service in a process of its own, ready."""
    settings = {"NELBO_MODELS": str(models), "NELBO_PORT": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "service"]
    with subprocess.Popen(command, env=os.environ | settings, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        client = triton.InferenceServerClient(f"127.0.0.1:{json.loads(process.stderr.readline())['port']}")
        until = time.monotonic() + 30
        while not client.is_server_ready() and time.monotonic() < until:
            time.sleep(0.05)
        yield client
        client.close()
        process.kill()


def inputs(*, binary: bool, **changed: list[Any]) -> list[Any]:
    tensors = []
    for name, (datatype, dtype) in TYPES.items():
        values: NDArray[Any] = np.array(changed.get(name, [record[name] for record in RECORDS]), dtype=dtype)
        tensors.append(triton.InferInput(name, list(values.shape), datatype))
        tensors[-1].set_data_from_numpy(values, binary_data=binary)
    return tensors


def test_it_finds_the_server_and_the_model_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pumps")
    assert client.is_model_ready("pumps", VERSION)
    assert not client.is_model_ready("pumps", "1")
    assert not client.is_model_ready("fans")


def test_it_reads_the_metadata(client: Any) -> None:
    assert client.get_server_metadata()["name"] == "nelbo"
    assert [field["name"] for field in client.get_model_metadata("pumps")["inputs"]] == list(TYPES)
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("binary_in", [False, True])
def test_it_gets_the_same_scores_in_json_and_binary(binary_in: bool, binary_out: bool, client: Any) -> None:
    rpm = [1500.0] * len(RECORDS)  # it writes NaN into JSON, which is none
    names = ["score", "flagged", "contributions"]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    found = client.infer("pumps", inputs(binary=binary_in, rpm=rpm), outputs=wanted, request_id="7")
    expected = client.infer("pumps", inputs(binary=False, rpm=rpm), model_version=VERSION)
    assert (found.get_response()["id"], found.get_response()["model_version"]) == ("7", VERSION)
    assert found.as_numpy("score").tolist() == expected.as_numpy("score").tolist()
    assert found.as_numpy("flagged").tolist() == [False] * 4 + [True]
    assert found.as_numpy("contributions").shape == (5, 5)
    assert found.as_numpy("kl") is None


def test_it_gets_every_output_but_contributions_unasked(client: Any) -> None:
    found = client.infer("pumps", inputs(binary=True))
    names = [output["name"] for output in found.get_response()["outputs"]]
    assert names == ["score", "p_value", "flagged", "reconstruction_error", "elbo", "kl"]
    assert found.as_numpy("p_value").dtype == np.float64


def test_it_sends_a_wish_as_a_parameter(client: Any) -> None:
    found = client.infer("pumps", inputs(binary=True), parameters={"rate": 0.02})
    assert found.get_response()["parameters"]["rate"] == 0.02


def test_it_shows_what_was_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("pumps", inputs(binary=True, rpm=[np.inf] * len(RECORDS)))
    assert caught.value.message() == (
        "input 'rpm', value 0: expected a finite number, or NaN for a missing one, got inf"
    )
    assert caught.value.status() == "400"


def test_it_sends_a_key_as_a_header(models: Path, tmp_path: Path) -> None:
    text, key = new_key(["score", "read"], "triton", datetime.now(UTC), None)
    write_keys(tmp_path / "keys.json", [key])
    headers = {"Authorization": f"Bearer {text}"}
    settings = {"NELBO_MODELS": str(models), "NELBO_PORT": "0", "NELBO_KEYS": str(tmp_path / "keys.json")}
    env = os.environ | settings | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", "service"], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        keyed = triton.InferenceServerClient(f"127.0.0.1:{json.loads(process.stderr.readline())['port']}")
        until = time.monotonic() + 30
        while not keyed.is_server_ready(headers=headers) and time.monotonic() < until:
            time.sleep(0.05)
        found = keyed.infer("pumps", inputs(binary=True), headers=headers).as_numpy("flagged").tolist()
        with pytest.raises(InferenceServerException) as caught:
            keyed.infer("pumps", inputs(binary=True))
        keyed.close()
        process.kill()
    assert found == [False] * 4 + [True]
    assert (caught.value.status(), "Authorization: Bearer KEY" in caught.value.message()) == ("401", True)
