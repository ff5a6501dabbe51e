import json
import shutil
from pathlib import Path

import pytest

from nelbo.errors import BundleError
from nelbo.probe import Limits, Probe
from nelbo.store import Store
from service import logs
from service.live import Live, load_scorer
from tests.bundles import write_tiny_bundle
from tests.hostile import ALL, PROBED, REPLAYED, hostile_bundle
from tests.service.conftest import ClientFactory
from tests.signing import KEY, OTHER_KEY, signed, trust_in

NEEDED = ["manifest.json", "schema.json", "score.onnx", "calibration.json", "reference.json", "golden.ndjson"]


def loaded(models: Path) -> Live:
    live = Live(Store(models), clock=lambda: 1000.0)
    live.load_all()
    return live


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_model_of_the_store_is_loaded(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, "pumps")
    write_tiny_bundle(tmp_path, "fans")
    live = loaded(tmp_path)
    assert (sorted(live.scorers()), live.problems()) == (["fans", "pumps"], [])
    assert [state.loaded_at for state in map(live.state, live.names()) if state] == [1000.0, 1000.0]


def test_nothing_is_ready_before_a_load(tmp_path: Path) -> None:
    assert Live(Store(tmp_path)).problems() == [f"the models in {tmp_path} are not known yet"]


def test_an_empty_store_is_not_ready(tmp_path: Path) -> None:
    assert loaded(tmp_path).problems() == [f"no model in {tmp_path}"]


@pytest.mark.parametrize("file", NEEDED)
def test_a_flipped_bit_keeps_the_service_from_being_ready_and_names_the_file(file: str, tmp_path: Path) -> None:
    flip_a_bit(write_tiny_bundle(tmp_path) / file)
    (problem,) = loaded(tmp_path).problems()
    assert problem.startswith("model 'pumps': bundle ")
    assert file in problem


@pytest.mark.parametrize("file", NEEDED[1:])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    (write_tiny_bundle(tmp_path) / file).unlink()
    (problem,) = loaded(tmp_path).problems()
    assert problem.endswith(f"{file} is missing")


def test_a_model_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    flip_a_bit(write_tiny_bundle(tmp_path, "fans") / "score.onnx")
    write_tiny_bundle(tmp_path, "pumps")
    live = loaded(tmp_path)
    assert list(live.scorers()) == ["pumps"]
    assert "score.onnx does not match its digest" in live.problems()[0]


def test_a_load_that_fails_keeps_the_old_version_serving(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path)
    live = loaded(tmp_path)
    before = live.scorers()["pumps"]
    flip_a_bit(folder / "calibration.json")
    live.load("pumps")
    state = live.state("pumps")
    assert state is not None
    assert (state.scorer, live.problems()) == (before, [])
    assert "calibration.json does not match its digest" in str(state.failure)


def test_a_bundle_under_another_models_name_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, "fans")
    shutil.move(tmp_path / "fans", tmp_path / "pumps")
    assert "the manifest says it is of model 'fans', expected 'pumps'" in loaded(tmp_path).problems()[0]


def test_an_alias_that_points_nowhere_is_a_failure_of_its_model(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    (tmp_path / "pumps" / "aliases.json").write_text('{"live": "2020"}')
    assert "has no version '2020'" in loaded(tmp_path).problems()[0]


def test_readiness_tells_which_bundle_is_damaged(tmp_path: Path, client_factory: ClientFactory) -> None:
    flip_a_bit(write_tiny_bundle(tmp_path) / "score.onnx")
    found = client_factory(tmp_path).get("/healthz/ready")
    assert (found.status_code, found.headers["content-type"]) == (503, "application/problem+json")
    assert found.json()["detail"] == (
        "model 'pumps': bundle 'pumps@20260302T081500Z-4f1c': score.onnx does not match its digest in the manifest; "
        "it was changed after export"
    )


# --- strangers' bundles ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PROBED, *REPLAYED, "an unknown operator", "external data by a hard link", "a pipe"])
def test_a_hostile_bundle_keeps_the_old_version_serving(name: str, tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path)
    live = Live(Store(tmp_path), probe=Probe(Limits(cpu_s=1)))
    live.load_all()
    before = live.scorers()["pumps"]
    ALL[name].make(folder)
    live.load("pumps")
    state = live.state("pumps")
    assert state is not None
    assert (state.scorer, live.problems()) == (before, [])
    assert ALL[name].says in str(state.failure)


def test_a_name_within_a_graph_forges_no_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hostile_bundle(tmp_path, "terminal codes in a name")
    loaded(tmp_path)
    (record,) = caplog.records
    line = logs.JsonFormatter().format(record)
    assert json.loads(line)["event"] == "model failed to load"
    assert line.isprintable()


@pytest.mark.parametrize("name", [*PROBED, "an operator of another domain"])
def test_the_runtime_prints_nothing_of_a_hostile_graph(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = hostile_bundle(tmp_path, name)
    capfd.readouterr()
    with pytest.raises(BundleError):
        load_scorer(folder, "pumps", probe=Probe(Limits(cpu_s=1)))
    assert capfd.readouterr() == ("", "")


def test_where_keys_are_pinned_an_unsigned_version_keeps_the_signed_one_serving(tmp_path: Path) -> None:
    folder = signed(write_tiny_bundle(tmp_path))
    live = Live(Store(tmp_path), trust=trust_in(tmp_path, KEY))
    live.load_all()
    before = live.scorers()["pumps"]
    (folder / "manifest.sig").unlink()
    live.load("pumps")
    state = live.state("pumps")
    assert state is not None
    assert (state.scorer, live.problems()) == (before, [])
    assert "manifest.sig is missing" in str(state.failure)


def test_where_keys_are_pinned_a_model_of_another_key_or_too_old_is_not_ready(tmp_path: Path) -> None:
    signed(write_tiny_bundle(tmp_path, "fans"), OTHER_KEY)
    signed(write_tiny_bundle(tmp_path, "pumps"))
    live = Live(Store(tmp_path), trust=trust_in(tmp_path, KEY, pumps="20990101T000000Z-0000"))
    live.load_all()
    fans, pumps = live.problems()
    assert "which is not pinned" in fans
    assert "is older than 20990101T000000Z-0000" in pumps
