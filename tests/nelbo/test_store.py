import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nelbo.errors import StoreError, StoreWriteError, UnknownVersionError
from nelbo.store import Store, find_bundle

OLD, NEW = "20260101T000000Z-aaaa", "20260201T000000Z-bbbb"


def store(root: Path, *references: str) -> Store:
    """A store with bundles of which nothing but the manifest is there."""
    for reference in references:
        folder = root / reference.replace("@", "/")
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
    return Store(root)


def test_names_and_versions_leave_out_what_is_unfinished_or_no_model(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{NEW}", f"pumps@{OLD}", "Not-A-Name@1", f"pumps@.partial-{NEW}")
    (tmp_path / "pumps" / "20260301T000000Z-cccc").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").touch()
    assert models.names() == ["pumps"]
    assert models.versions("pumps") == [OLD, NEW]


@pytest.mark.parametrize("name", [b"\xff1", b"zz\n", b"z z", b"z" * 64])
def test_folder_of_a_name_that_no_version_may_have_is_none(name: bytes, tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@{os.fsdecode(name)}")
    assert (models.versions("pumps"), models.live("pumps").name) == ([OLD], OLD)


@pytest.mark.parametrize("name", ["..", "", "pumps/..", "."])
def test_name_that_is_none_has_no_versions(tmp_path: Path, name: str) -> None:
    assert store(tmp_path / "models", f"pumps@{OLD}").versions(name) == []


def test_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Store(tmp_path / "none").names() == []


def test_newest_version_is_meant_where_no_alias_says_otherwise(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@{NEW}")
    assert models.find("pumps").name == NEW
    assert models.live("pumps").name == NEW
    models.promote("pumps", OLD)
    assert models.find("pumps").name == OLD
    assert models.live("pumps").name == OLD
    assert models.find(f"pumps@{NEW}").name == NEW


def test_promote_remembers_what_was_live(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@{NEW}")
    models.promote("pumps", OLD)
    models.promote("pumps", NEW)
    models.promote("pumps", NEW)
    assert models.aliases("pumps") == {"live": NEW, "previous": OLD}
    assert models.find("pumps@previous").name == OLD


def test_promoted_alias_becomes_the_version_it_names(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@{NEW}")
    models.promote("pumps", OLD)
    models.promote("pumps", NEW)
    models.promote("pumps", "previous")
    assert models.aliases("pumps") == {"live": OLD, "previous": NEW}


def test_store_that_cannot_be_looked_through_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Store) -> list[str]:
        raise PermissionError(13, "Permission denied")

    models = store(tmp_path, f"pumps@{OLD}")
    monkeypatch.setattr(Store, "names", denied)
    with pytest.raises(StoreError, match="cannot be read: Permission denied"):
        models.live("fans")


def test_unknown_model_and_version_are_refused_with_what_there_is(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"fans@{NEW}")
    with pytest.raises(StoreError) as info:
        models.find("pump")
    assert str(info.value) == f"no model 'pump' in {tmp_path}; there: fans, pumps"
    models.promote("pumps", OLD)
    with pytest.raises(StoreError) as info:
        models.promote("pumps", NEW)
    assert str(info.value) == f"model 'pumps' in {tmp_path} has no version '{NEW}'; there: {OLD}; aliases: live"
    with pytest.raises(StoreError, match=r"/none is not there$"):
        Store(tmp_path / "none").live("pumps")


def test_what_cannot_be_told_of_one_entry_hides_no_other(tmp_path: Path) -> None:
    """A link to a name that no file system has is as good as one into a folder that only another user may enter."""
    models = store(tmp_path, f"pumps@{OLD}")
    (tmp_path / "zzz").symlink_to("a" * 300)
    (tmp_path / "pumps" / NEW).symlink_to("a" * 300)
    assert models.names() == ["pumps", "zzz"]
    assert models.versions("pumps") == [OLD, NEW]
    assert models.folder("pumps", OLD).name == OLD
    with pytest.raises(StoreError, match="cannot be read: File name too long"):
        models.versions("zzz")


def test_alias_that_points_nowhere_is_refused(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}")
    (tmp_path / "pumps" / "aliases.json").write_text(json.dumps({"live": NEW}))
    with pytest.raises(StoreError, match=f"has no version '{NEW}'"):
        models.live("pumps")


@pytest.mark.parametrize("text", ["", "[]", '{"live": 1}', "{"])
def test_aliases_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    models = store(tmp_path, f"pumps@{OLD}")
    (tmp_path / "pumps" / "aliases.json").write_text(text)
    with pytest.raises(StoreError, match=r"aliases\.json: cannot be read: "):
        models.find("pumps")


def test_bundle_is_a_folder_a_models_folder_or_a_name_in_the_store(tmp_path: Path) -> None:
    store(tmp_path, f"pumps@{OLD}", f"pumps@{NEW}")
    assert find_bundle(str(tmp_path / "pumps" / OLD), Path("nowhere")) == tmp_path / "pumps" / OLD
    assert find_bundle(str(tmp_path / "pumps"), Path("nowhere")) == tmp_path / "pumps" / NEW
    assert find_bundle(f"pumps@{OLD}", tmp_path) == tmp_path / "pumps" / OLD


def test_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"/No: no bundle there: manifest\.json is missing$"):
        find_bundle(str(tmp_path / "No"), tmp_path)


def test_first_promotion_remembers_the_version_that_was_live_for_being_the_newest(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@{NEW}")
    models.promote("pumps", OLD)
    assert models.aliases("pumps") == {"live": OLD, "previous": NEW}


def test_there_is_nothing_to_go_back_to_before_a_second_version_was_live(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}")
    models.promote("pumps", OLD)
    with pytest.raises(UnknownVersionError, match=r"model 'pumps' in .* has no previous version to go back to"):
        models.promote("pumps", "previous")


def test_promotions_at_once_lose_none_of_each_others_writes(tmp_path: Path) -> None:
    models = store(tmp_path, *(f"pumps@{version}" for version in "123456789"))
    (tmp_path / "pumps" / "aliases.json").write_text('{"live": "1", "shadow": "9"}')
    threads = [threading.Thread(target=models.promote, args=("pumps", version)) for version in "2345678"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    aliases = models.aliases("pumps")
    # Whichever came last went after another of them: none began from what was there before that one had written.
    assert aliases["shadow"] == "9"
    assert {aliases["live"], aliases["previous"]} <= set("2345678")
    assert aliases["live"] != aliases["previous"]


@pytest.mark.parametrize(
    ("put", "problem"),
    [
        (os.mkfifo, "is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a symbolic link"),
        (lambda path: path.write_bytes(b" " * (2**20 + 1)), "is larger than 1 MiB"),
    ],
    ids=["a pipe", "no end", "too long"],
)
def test_aliases_that_are_no_file_of_bounded_length_are_refused_at_once(
    put: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    models = store(tmp_path, f"pumps@{OLD}")
    put(tmp_path / "pumps" / "aliases.json")
    with pytest.raises(StoreError) as info:
        models.live("pumps")
    assert str(info.value) == f"model {tmp_path}/pumps: aliases.json {problem}"


def test_store_that_cannot_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}")
    (tmp_path / "pumps" / ".lock").mkdir()
    with pytest.raises(StoreWriteError) as info:
        models.promote("pumps", OLD)
    assert str(info.value) == f"model 'pumps' in {tmp_path} cannot be changed: Is a directory"


def test_retention_leaves_the_newest_and_whatever_has_an_alias(tmp_path: Path) -> None:
    models = store(tmp_path, *(f"pumps@{version}" for version in "123456"))
    (tmp_path / "pumps" / "aliases.json").write_text('{"live": "3", "previous": "2", "shadow": "1"}')
    assert models.prune("pumps", 1) == ["4", "5"]
    assert models.versions("pumps") == ["1", "2", "3", "6"]
    assert models.prune("pumps", 10) == []


def test_retention_without_an_alias_leaves_the_version_that_is_live_for_being_the_newest(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@{NEW}")
    assert models.prune("pumps", 1) == [OLD]
    assert models.live("pumps").name == NEW


def test_retention_finishes_what_a_killed_one_has_begun(tmp_path: Path) -> None:
    models = store(tmp_path, f"pumps@{OLD}", f"pumps@.removed-{NEW}-0a0b0c0d")
    assert models.versions("pumps") == [OLD]
    assert models.prune("pumps", 1) == []
    assert sorted(path.name for path in (tmp_path / "pumps").iterdir()) == [".lock", OLD]
