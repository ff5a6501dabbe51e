import contextlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nelbo.bundle import read_bundle
from nelbo.errors import BundleError
from nelbo.probe import Limits, Probe
from nelbo.scoring import Scorer
from tests.hostile import ALL, PROBED, READ, REPLAYED, hostile_bundle

_LIMITS = Limits(cpu_s=1)


def load(folder: Path) -> None:
    """By the same steps as a service takes."""
    bundle = read_bundle(folder)
    Probe(_LIMITS).check(bundle)
    Scorer(bundle).replay()


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as info:
        load(folder)
    return str(info.value)


def test_there_are_more_than_fifteen_of_them_and_seven_disguises_of_external_data() -> None:
    assert len(ALL) >= 15
    assert sum("external data" in name for name in ALL) >= 7


@pytest.mark.parametrize("name", READ)
def test_hostile_bundle_is_refused_before_its_graph_is_loaded(name: str, tmp_path: Path) -> None:
    folder = hostile_bundle(tmp_path, name)
    with pytest.raises(BundleError) as info:
        read_bundle(folder)
    assert READ[name].says in str(info.value)


@pytest.mark.parametrize("name", PROBED | REPLAYED)
def test_hostile_bundle_is_refused_before_it_serves(name: str, tmp_path: Path) -> None:
    assert ALL[name].says in refusal(hostile_bundle(tmp_path, name))


@pytest.mark.parametrize("name", ALL)
def test_refusal_is_one_printable_line_that_names_the_bundle_and_ends(name: str, tmp_path: Path) -> None:
    text = refusal(hostile_bundle(tmp_path, name))
    assert text.isprintable()
    assert len(text) <= 1_500
    assert "pumps" in text or "evil" in text


@pytest.mark.parametrize("name", PROBED)
def test_what_the_probe_refuses_never_reaches_this_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_bundle(tmp_path, name)
    monkeypatch.setattr("nelbo.scoring.open_session", lambda _: pytest.fail("the graph was loaded"))
    assert ALL[name].says in refusal(folder)


def test_all_that_are_read_are_refused_in_little_memory_and_time() -> None:
    command = [sys.executable, "-m", "tests.nelbo.test_hostile_bundles"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, list(READ)), done.stderr[-2_000:]


def _refuse_all() -> None:
    """In 700 MB of addresses beside the libraries', and 60 s of a processor for all of them."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    for name in READ:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BundleError):
            read_bundle(hostile_bundle(Path(folder), name))
            sys.exit(f"accepted: {name}")
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    _refuse_all()
