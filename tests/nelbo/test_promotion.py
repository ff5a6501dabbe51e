import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nelbo.errors import BundleError, SchemaChangedError, UnknownVersionError
from nelbo.promotion import Promotion, promote
from tests.bundles import versions, write_tiny_bundle


def test_a_version_that_is_sound_becomes_live(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    assert promote(store, "pumps", "2") == Promotion("pumps", "2", "1", changed=True)
    assert promote(store, "pumps", "2") == Promotion("pumps", "2", "1", changed=False)
    assert promote(store, "pumps", "previous") == Promotion("pumps", "1", "2", changed=True)


@pytest.mark.parametrize("file", ["manifest.json", "score.onnx", "golden.ndjson"])
def test_a_damaged_version_does_not_become_live(file: str, tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    (tmp_path / "pumps" / "2" / file).write_bytes(b"{}")
    with pytest.raises(BundleError):
        promote(store, "pumps", "2")
    assert store.aliases("pumps") == {"live": "1"}


def test_a_bundle_under_another_version_does_not_become_live(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    shutil.move(tmp_path / "pumps" / "2", tmp_path / "pumps" / "3")
    with pytest.raises(BundleError, match="bundle 'pumps@3': the manifest says it is 'pumps@2'"):
        promote(store, "pumps", "3")


def test_another_schema_becomes_live_only_where_it_is_forced(tmp_path: Path) -> None:
    store = versions(tmp_path, "1")
    write_tiny_bundle(tmp_path, version="2", unit="bar")
    with pytest.raises(SchemaChangedError, match="'pumps@2' reads other records than 'pumps@1', which is live"):
        promote(store, "pumps", "2")
    assert store.live("pumps").name == "1"
    assert promote(store, "pumps", "2", force=True).version == "2"


def test_a_live_version_that_cannot_be_read_keeps_no_other_from_its_place(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    (tmp_path / "pumps" / "1" / "schema.json").write_bytes(b"{")
    assert promote(store, "pumps", "2").changed


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["a pipe", "no end"])
def test_a_schema_of_the_live_version_that_is_no_file_is_not_waited_for(
    put: Callable[[Path], object], tmp_path: Path
) -> None:
    store = versions(tmp_path, "1", "2")
    (tmp_path / "pumps" / "1" / "schema.json").unlink()
    put(tmp_path / "pumps" / "1" / "schema.json")
    assert promote(store, "pumps", "2").changed


def test_an_alias_that_points_nowhere_is_mended_by_a_promotion(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    shutil.rmtree(tmp_path / "pumps" / "1")
    assert promote(store, "pumps", "2") == Promotion("pumps", "2", None, changed=True)


def test_old_versions_go_with_a_promotion_where_a_number_is_given(tmp_path: Path) -> None:
    store = versions(tmp_path, "3", "1", "2", "4")
    assert promote(store, "pumps", "4", keep=1).removed == ("1", "2")
    assert store.versions("pumps") == ["3", "4"]


def test_an_unknown_version_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownVersionError, match="has no version '9'"):
        promote(versions(tmp_path, "1"), "pumps", "9")
