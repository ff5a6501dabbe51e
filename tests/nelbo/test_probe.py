import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from nelbo import probe, trial
from nelbo.bundle import Bundle, Golden, read_bundle
from nelbo.errors import BundleError
from nelbo.probe import Limits, Probe
from tests.bundles import write_tiny_bundle
from tests.hostile import PROBED, add_constant, hostile_bundle


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture
def bundle(original: Bundle, request: pytest.FixtureRequest) -> Bundle:
    """With a graph that nobody has probed yet."""
    model = ModelProto.FromString(original.graph)
    add_constant(model, "of_this_test", [hash(request.node.name)], np.int64)
    return replace(original, graph=model.SerializeToString())


def dies(code: str) -> trial.Process:
    """A process that does something else than it should."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import os, signal, sys, time; {code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def refusal(checked: Probe, bundle: Bundle) -> str:
    with pytest.raises(BundleError) as info:
        checked.check(bundle)
    return str(info.value).removeprefix(f"bundle '{bundle.label}': score.onnx: the probe ")


def test_whole_bundle_passes_in_a_process_that_starts_from_nothing(bundle: Bundle) -> None:
    Probe().check(bundle)


def test_whole_bundle_passes_in_a_process_that_was_forked(bundle: Bundle) -> None:
    forked = trial.fork()
    assert forked is not None
    Probe(process=forked).check(bundle)
    assert forked.returncode == 0


def test_what_was_probed_is_not_probed_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    Probe().check(bundle)
    monkeypatch.setattr(trial, "start", lambda: pytest.fail("another process was started"))
    Probe().check(replace(bundle, card="another"))


def test_what_was_refused_is_probed_again(tmp_path: Path) -> None:
    bundle = read_bundle(hostile_bundle(tmp_path, "gigabytes from few bytes"))
    assert refusal(Probe(), bundle) == refusal(Probe(), bundle)


@pytest.mark.parametrize("name", PROBED)
def test_forked_process_refuses_the_same(name: str, tmp_path: Path) -> None:
    bundle = read_bundle(hostile_bundle(tmp_path, name))
    assert PROBED[name].says in f"the probe {refusal(Probe(Limits(cpu_s=1), trial.fork()), bundle)}"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, as by a machine that is short of memory"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "took more than 10 s of a processor"),
        ("sys.exit(3)", "ended with code 3 and no answer"),
        ("sys.stdin.buffer.read(); sys.exit(0)", "ended with code 0 and no answer"),
        ("sys.stdin.buffer.read(); print('\\x1b[2J' * 1000)", "could not run it: \\x1b[2J"),
        ("sys.stdin.close(); sys.stdin = None; time.sleep(60)", "was not done after 5 s, as on a machine"),
    ],
)
def test_process_that_ends_otherwise_refuses_the_bundle(code: str, text: str, bundle: Bundle) -> None:
    checked = Probe(Limits(wall_s=5 if "60" not in code else 0.5), dies(code))
    assert refusal(checked, bundle).replace("0.5 s", "5 s").startswith(text)


def test_bundle_is_refused_where_no_process_can_be_started(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> trial.Process:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(trial, "start", full)
    assert refusal(Probe(), bundle) == "could not be started: Resource temporarily unavailable"


def test_bundle_is_refused_where_its_time_cannot_be_limited(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Timer.start", full)
    process = trial.start()
    assert refusal(Probe(process=process), bundle) == "could not be started: can't start new thread"
    assert process.returncode == -9


def test_golden_record_that_is_none_of_the_schema_is_named_without_its_value(bundle: Bundle) -> None:
    record = bundle.golden[0].record | {"pressure": "secret"}
    with pytest.raises(BundleError, match=r": golden record 0, field 'pressure': expected a number$"):
        Probe().check(replace(bundle, golden=(Golden(record, 0.0, 0.0, 0.0),)))
    with pytest.raises(BundleError, match=r": golden record 0"):
        Probe().check(replace(bundle, golden=(Golden({}, 0.0, 0.0, 0.0),)))


def test_process_that_is_not_needed_ends() -> None:
    process = trial.start()
    checked = Probe(process=process)
    checked.close()
    checked.close()
    assert process.returncode == -9


def test_memory_is_half_of_what_a_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Container:
        memory_bytes = 512 * 2**20

    monkeypatch.setattr(probe, "read_resources", Container)
    assert probe._affordable(1000) == 256 * 2**20


def test_process_opens_no_file_and_writes_none(tmp_path: Path) -> None:
    code = (
        "import os; from nelbo import trial; from nelbo.trial import Task\n"
        "os.dup(1)\n"  # standard input, output and error and a copy of output, as in the process
        "trial._limit(Task(2**28, 5, {}, (), 0))\n"
        "for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT):\n"
        "    try: os.open('there', flags)\n"
        "    except OSError as error: print(error.strerror)\n"
        "try: bytearray(2**30)\n"
        "except MemoryError: print('no memory')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(trial.__file__).parents[1])},
    )
    assert done.stdout.splitlines() == ["Too many open files"] * 2 + ["no memory"]
    assert list(tmp_path.iterdir()) == []
