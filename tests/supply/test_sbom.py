"""The environment of the service's image, installed here from its lock: what its bill says, and whether it serves."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving_process import wait_until_ready
from supply.pins import normalised, read_pins
from supply.sbom import completed, write

ROOT = Path(__file__).parents[2]
BROKE_DOWN = {  # as the README shows it
    "UDI": 70,
    "Type": "L",
    "Air temperature [K]": 298.9,
    "Process temperature [K]": 309.0,
    "Rotational speed [rpm]": 1410,
    "Torque [Nm]": 65.7,
    "Tool wear [min]": 191,
}
LOCK = read_pins(ROOT / "requirements" / "service.txt")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make sbom` makes; skipped where no package index can be asked, but in CI."""
    folder = tmp_path_factory.mktemp("image")
    command = ["make", "sbom", f"VENV={sys.prefix}", f"IMAGE={folder}", "-o", f"{sys.prefix}/.dev"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    if made.returncode != 0 and "REQUIRE_TOOLS" not in os.environ and "No matching distribution" in made.stderr:
        pytest.skip("no package index can be asked")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def bill(image: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((image / "sbom.cdx.json").read_text(encoding="utf-8"))
    return found


def test_the_bill_names_what_the_lock_names_and_nothing_else(bill: dict[str, Any]) -> None:
    found = {normalised(component["name"]): component["version"] for component in bill["components"]}
    assert found == {name: pin.version for name, pin in LOCK.items()}


def test_each_library_of_the_bill_has_the_digest_of_a_file_that_the_lock_allows(bill: dict[str, Any]) -> None:
    digests = {normalised(c["name"]): [h["content"] for h in c.get("hashes", [])] for c in bill["components"]}
    assert [name for name, found in digests.items() if len(found) != 1 or not LOCK[name].digests >= set(found)] == []


def test_each_library_of_the_bill_has_a_licence(bill: dict[str, Any]) -> None:
    components = [bill["metadata"]["component"], *bill["components"]]
    assert [component["name"] for component in components if not component.get("licenses")] == []


def test_the_bill_is_about_nelbo_and_names_no_folder(bill: dict[str, Any], image: Path) -> None:
    assert (bill["metadata"]["component"]["name"], bill["bomFormat"], bill["specVersion"]) == (
        "nelbo",
        "CycloneDX",
        "1.6",
    )
    assert bill["metadata"]["component"]["hashes"]
    text = json.dumps(bill)
    assert "file:" not in text
    assert str(image) not in text


def test_a_bill_that_is_none_by_its_schema_is_not_written(bill: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    with pytest.raises(ValueError, match=r"sbom\.json: not CycloneDX 1\.6: "):
        write(completed(copy.deepcopy(bill), {"numpy": "no digest"}), path)
    assert not path.exists()


def test_what_the_lock_installs_serves_the_demo_model(image: Path) -> None:
    settings = {"NELBO_MODELS": str(ROOT / "models"), "NELBO_PORT": "0", "PATH": os.defpath}
    command = [str(image / "environment" / "bin" / "python"), "-I", "-m", "service"]
    process = subprocess.Popen(command, env=settings, cwd=image, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        listening = json.loads(process.stderr.readline())
        url = f"http://{listening['host']}:{listening['port']}"
        wait_until_ready(url)
        answer = httpx.post(f"{url}/v1/models/machines/score", json={"records": [BROKE_DOWN]})
        assert answer.status_code == 200
        assert answer.json()["results"][0]["flagged"] is True
    finally:
        process.terminate()
        process.communicate(timeout=30)
