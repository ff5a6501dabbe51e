from pathlib import Path

import pytest

from nelbo.store import Store
from service.marks import Marks, differ, marks_of
from tests.bundles import write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version in a store at `tmp_path`."""
    return write_tiny_bundle(tmp_path)


def test_files_that_nobody_touched_are_as_they_were(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not differ(marks_of(store, "pumps").at(folder), store, "pumps")


@pytest.mark.parametrize("file", ["manifest.json", "score.onnx", "golden.ndjson"])
def test_a_file_of_the_live_version_that_is_written_again_is_noticed(file: str, folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    marks = marks_of(store, "pumps").at(folder)
    (folder / file).write_bytes((folder / file).read_bytes() + b"\n")
    assert differ(marks, store, "pumps")


def test_another_alias_and_another_version_are_noticed(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = marks_of(store, "pumps").at(folder)
    write_tiny_bundle(tmp_path, version="2")
    assert differ(before, store, "pumps")
    before = marks_of(store, "pumps").at(folder)
    store.promote("pumps", "2")
    assert differ(before, store, "pumps")


def test_a_model_that_is_gone_is_noticed(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = marks_of(store, "pumps").at(folder)
    (tmp_path / "pumps").rename(tmp_path / "fans")
    assert differ(before, store, "pumps")


def test_aliases_without_an_end_are_as_none(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    (folder.parent / "aliases.json").symlink_to("/dev/zero")
    assert marks_of(store, "pumps").aliases is None


@pytest.mark.parametrize("name", ["..", "../pumps", "", "."])
def test_a_name_that_is_none_is_no_path(name: str, folder: Path, tmp_path: Path) -> None:
    assert marks_of(Store(tmp_path / "pumps"), name) == Marks(None, None)
