import shutil
from pathlib import Path

import pytest

from nelbo.store import Store
from service.live import Live
from tests.bundles import write_tiny_bundle
from tests.service.conftest import ClientFactory

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
    assert Live(Store(tmp_path)).problems() == ["the models in NELBO_MODELS are not known yet"]


def test_an_empty_store_is_not_ready(tmp_path: Path) -> None:
    assert loaded(tmp_path).problems() == ["no model in NELBO_MODELS"]


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
