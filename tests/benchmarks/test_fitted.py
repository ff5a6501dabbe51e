from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.fitted import fitted_once, folder_of_fits
from nelbo.bundle import Bundle, read_bundle
from tests.bundles import write_tiny_bundle
from training.config import Config

Fit = Callable[..., str]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """The version that a kept fit has; every fit that is made leaves a tiny bundle with the next number."""
    numbers = count()

    def made(normal: pa.Table, folder: Path, *settings: object) -> Bundle:
        return read_bundle(write_tiny_bundle(folder / "models", version=str(next(numbers))))

    def version(values: list[float], seed: int = 0, **settings: Any) -> str:
        return fitted_once(pa.table({"x": values}), tmp_path / "fits", "pumps", seed, **settings).version

    monkeypatch.setattr("benchmarks.fitted.fitted", made)
    return version


def test_a_fit_of_the_same_records_and_settings_is_made_once(fit: Fit) -> None:
    assert [fit([1.0, 2.0]), fit([1.0, 2.0]), fit([1.0, 2.0], config=Config())] == ["0", "0", "0"]


def test_each_seed_has_a_fit_of_its_own(fit: Fit) -> None:
    assert [fit([1.0], seed=0), fit([1.0], seed=1), fit([1.0], seed=0)] == ["0", "1", "0"]


def test_other_records_settings_or_schema_are_fitted_anew(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    versions = [fit([1.0]), fit([2.0]), fit([2.0], config=Config(steps=7))]
    versions += [fit([2.0], config=Config(steps=7), schema=tmp_path / "schema.json")]
    assert versions == ["0", "1", "2", "3"]


@pytest.mark.parametrize("name", ["score.onnx", "manifest.json"])
def test_a_damaged_bundle_is_fitted_anew(fit: Fit, tmp_path: Path, name: str) -> None:
    assert fit([1.0]) == "0"
    (file,) = tmp_path.glob(f"fits/pumps-0/models/*/0/{name}")
    file.write_bytes(file.read_bytes()[:-2] + b"?")
    assert [fit([1.0]), fit([1.0])] == ["1", "1"]


def test_a_fit_that_was_cut_off_is_made_again(fit: Fit, tmp_path: Path) -> None:
    fit([1.0])
    (tmp_path / "fits" / "pumps-0" / "fit.json").write_text('{"made_of"')
    assert fit([1.0]) == "1"


def test_the_same_records_in_other_chunks_are_the_same(fit: Fit, tmp_path: Path) -> None:
    assert fit([1.0, 2.0, 3.0]) == "0"
    in_chunks = pa.table({"x": pa.chunked_array([[1.0], [2.0, 3.0]])})
    assert fitted_once(in_chunks, tmp_path / "fits", "pumps", 0).version == "0"


def test_fits_are_kept_where_a_folder_is_named_and_gone_where_none_is(tmp_path: Path) -> None:
    with folder_of_fits(tmp_path) as named:
        assert named == tmp_path
    with folder_of_fits(None) as unnamed:
        assert unnamed.is_dir()
    assert not unnamed.exists()
