"""Commands on a disk that is full: a real one where the tests may mount, else the kernel's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nelbo.errors import BundleError
from nelbo.store import Store
from tests.bundles import normal_records, write_tiny_bundle
from tests.kills import NEW, OLD, names
from tests.service.surroundings import needs_root, small_disk

ROOT = Path(__file__).parents[2]
N = 2_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_bundle(folder)
    lines = (json.dumps(record) + "\n" for record in normal_records(N))
    (folder / "t.ndjson").write_text("".join(lines))
    return folder


def score(models: Path, *options: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from nelbo.cli import main; main()", "score", "pumps", str(models / "t.ndjson")]
    given = [*command, *options, "--models", str(models), "--jobs", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        given, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )


@needs_root
@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
def test_scores_that_do_not_fit_on_the_disk_leave_the_earlier_file_and_are_told(
    suffix: str, models: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path, kib=32):
        output = tmp_path / f"out.{suffix}"
        output.write_text("earlier")
        found = score(models, "-o", str(output))
        assert (found.returncode, output.read_text()) == (2, "earlier")
        part = tmp_path / f".out.{suffix}.partial" / f"part-0.{suffix}"
        assert found.stderr == f"nelbo: {part}: cannot be written: No space left on device\n"


@needs_root
def test_a_bundle_that_does_not_fit_on_the_disk_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path, kib=64):
        folder = write_tiny_bundle(tmp_path, version=OLD).parent
        with pytest.raises(BundleError, match=r"cannot be written: No space left on device$"):
            [write_tiny_bundle(tmp_path, version=f"{NEW}{i}") for i in range(50)]
        assert not [name for name in names(folder) if name.startswith(".")]
        assert Store(tmp_path).versions("pumps")[0] == OLD


def test_standard_output_that_is_full_is_told_in_a_sentence(models: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    found = score(models, stdout=full)
    os.close(full)
    assert (found.returncode, found.stderr) == (2, "nelbo: output: No space left on device\n")
