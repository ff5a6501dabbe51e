import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nelbo.bundle import MANIFEST, NEEDED, check_name, new_version, read_bundle, replace_file, sha256, write_bundle
from nelbo.errors import BundleError, one_line
from tests.bundles import VERSION, write_tiny_bundle
from tests.hostile import replaced, resealed

LABEL = f"bundle 'pumps@{VERSION}'"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as info:
        read_bundle(folder)
    return str(info.value)


# --- reading -----------------------------------------------------------------------------------------


def test_bundle_reads_back_as_it_was_written(original: Path) -> None:
    bundle = read_bundle(original)
    assert (bundle.name, bundle.version, bundle.label) == ("pumps", VERSION, f"pumps@{VERSION}")
    assert set(bundle.manifest.files) == {*NEEDED, "MODEL_CARD.md"}
    assert bundle.digest == json.loads((original / MANIFEST).read_bytes())["digest"]
    assert bundle.card.startswith("# pumps\n")
    assert len(bundle.golden) == 4


def test_no_flipped_bit_is_ever_loaded(bundle: Path) -> None:
    rng = np.random.default_rng(20261122)
    paths = sorted(bundle.iterdir())
    n_bits = sum(8 * path.stat().st_size for path in paths)
    for at in rng.choice(n_bits, size=400, replace=False):
        path, bit = next((p, at - before) for p, before, size in offsets(paths) if at < before + size)
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, int(bit)))
        text = refusal(bundle)
        assert path.name in text
        assert text.startswith((LABEL, f"bundle {bundle}: "))
        path.write_bytes(whole)
    read_bundle(bundle)


def offsets(paths: list[Path]) -> list[tuple[Path, int, int]]:
    sizes = [8 * path.stat().st_size for path in paths]
    return [(path, sum(sizes[:i]), sizes[i]) for i, path in enumerate(paths)]


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]


def test_flipped_bit_in_any_byte_of_the_manifest_is_refused(bundle: Path) -> None:
    whole = (bundle / MANIFEST).read_bytes()
    for byte in range(len(whole)):
        (bundle / MANIFEST).write_bytes(flipped(whole, 8 * byte + byte % 8))
        assert MANIFEST in refusal(bundle)


@pytest.mark.parametrize("name", [*NEEDED, "MODEL_CARD.md"])
def test_changed_truncated_and_missing_files_are_named(bundle: Path, name: str) -> None:
    whole = (bundle / name).read_bytes()
    changed = f"{LABEL}: {name} does not match its digest in the manifest; it was changed after export"
    for data in (whole[:-1], whole + b" ", b""):
        (bundle / name).write_bytes(data)
        assert refusal(bundle) == changed
    (bundle / name).unlink()
    assert refusal(bundle) == f"bundle {bundle}: {name} is missing"


def test_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"bundle {tmp_path}: manifest.json is missing"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_manifest_that_is_no_object_is_refused(bundle: Path, text: bytes) -> None:
    (bundle / MANIFEST).write_bytes(text)
    assert refusal(bundle).startswith(f"bundle {bundle}: manifest.json is not a JSON object: ")


@pytest.mark.parametrize("version", [2, 0, "1", None, 1.5])
def test_other_format_version_is_refused_before_anything_else(bundle: Path, version: object) -> None:
    resealed(bundle, lambda manifest: manifest.update(format=version, surprise=1))
    assert refusal(bundle) == (
        f"bundle {bundle}: manifest.json: expected format version 1, got {version!r}; "
        "it was written by another version of nelbo"
    )


def test_manifest_with_a_wrong_entry_is_refused_with_its_place(bundle: Path) -> None:
    resealed(bundle, lambda manifest: manifest.update(seed="one"))
    assert refusal(bundle).startswith(f"bundle {bundle}: manifest.json: seed: Input should be a valid integer")


@pytest.mark.parametrize("name", NEEDED)
def test_file_that_the_manifest_does_not_list_is_missed_though_it_is_there(bundle: Path, name: str) -> None:
    resealed(bundle, lambda manifest: manifest["files"].pop(name))
    assert refusal(bundle) == f"{LABEL}: the manifest does not list {name}"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", ".", "", "a/b", "a\x00b", "a\nb"])
def test_name_that_leads_out_of_the_folder_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_bytes(b"secret")
    resealed(bundle, lambda manifest: manifest["files"].update({name: sha256(b"secret")}))
    assert refusal(bundle) == f"{LABEL}: the manifest lists {name!r}, which is no file name"


def test_unlisted_file_is_passed_over(bundle: Path) -> None:
    (bundle / "evil.py").write_text("raise SystemExit")
    read_bundle(bundle)


def test_symbolic_link_is_not_followed_not_even_within_the_folder(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "score.onnx", tmp_path / "elsewhere")
    for target in (tmp_path / "elsewhere", Path("manifest.json"), Path("/dev/zero")):
        (bundle / "score.onnx").symlink_to(target)
        assert refusal(bundle) == f"bundle {bundle}: score.onnx is a symbolic link"
        (bundle / "score.onnx").unlink()


def test_hard_link_counts_by_its_bytes(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").hardlink_to(bundle / "score.onnx")
    read_bundle(bundle)
    (tmp_path / "elsewhere").write_bytes(b"other")
    assert "score.onnx does not match its digest" in refusal(bundle)


def test_what_is_no_regular_file_is_not_waited_for(bundle: Path) -> None:
    (bundle / "score.onnx").unlink()
    os.mkfifo(bundle / "score.onnx")
    assert refusal(bundle) == f"bundle {bundle}: score.onnx is not a file"
    (bundle / "score.onnx").unlink()
    (bundle / "score.onnx").mkdir()
    assert refusal(bundle) == f"bundle {bundle}: score.onnx is not a file"


def test_file_beyond_all_measure_is_not_read(bundle: Path) -> None:
    with (bundle / "score.onnx").open("r+b") as file:
        file.truncate(2**40)
    assert refusal(bundle) == f"bundle {bundle}: score.onnx is larger than 256 MiB"


def test_schema_other_than_the_manifests_is_refused(bundle: Path) -> None:
    resealed(bundle, lambda manifest: manifest.update(schema_digest="1" * 64))
    assert refusal(bundle) == f"{LABEL}: schema.json does not match the manifest's schema digest"


@pytest.mark.parametrize(
    ("name", "data", "detail"),
    [
        ("schema.json", b"{}", "schema.json: columns: Field required"),
        ("calibration.json", b"{}", "calibration.json: created: Field required"),
        ("reference.json", b"{}", "reference.json: Field required"),
        ("golden.ndjson", b"", "golden.ndjson holds no record to replay"),
        ("golden.ndjson", b"{}", "golden.ndjson: Object missing required field `record` - at `$[0]`"),
    ],
)
def test_file_that_is_whole_but_wrong_is_a_bundle_error_that_names_it(
    bundle: Path, name: str, data: bytes, detail: str
) -> None:
    assert refusal(replaced(bundle, name, data)) == f"{LABEL}: {detail}"


def test_model_of_a_name_that_no_model_may_have_is_refused(bundle: Path) -> None:
    resealed(bundle, lambda manifest: manifest.update(name="../pumps"))
    assert refusal(bundle).startswith("'../pumps' is not a model name: ")


# --- names and versions ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "pumps-2.b_c", "a" * 63])
def test_name_of_small_letters_digits_and_three_marks_is_allowed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", ".a", "-a", "a/b", "a b", "ä", "a" * 64, "a\n", "a@b", ".."])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BundleError) as info:
        check_name(name)
    assert str(info.value) == (
        f"'{one_line(name)}' is not a model name: expected 1 to 63 of a-z 0-9 . _ -, a letter or digit first"
    )


def test_versions_sort_by_age() -> None:
    moments = [datetime(2026, 3, 2, 8, 15, 9, tzinfo=UTC), datetime(2026, 3, 2, 8, 15, 10, tzinfo=UTC)]
    assert new_version("ffff", moments[0]) < new_version("0000", moments[1])


# --- writing -----------------------------------------------------------------------------------------


def parts(original: Path) -> tuple[Any, dict[str, bytes]]:
    names = [*NEEDED, "MODEL_CARD.md"]
    return read_bundle(original).manifest, {name: (original / name).read_bytes() for name in names}


def test_write_that_fails_at_any_file_leaves_nothing(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = parts(original)
    real_fsync, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise OSError(28, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    # One for each file, one for the folder of them.
    for n_good in range(len(files) + 2):
        calls = n_good
        with pytest.raises(BundleError, match=r"cannot be written: No space left on device$"):
            write_bundle(tmp_path / "models", manifest, files)
        assert list((tmp_path / "models").iterdir()) == []


def test_interrupted_write_leaves_nothing(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, files = parts(original)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "models", manifest, files)
    assert list((tmp_path / "models").iterdir()) == []


def test_version_that_is_there_already_is_kept(original: Path, tmp_path: Path) -> None:
    manifest, files = parts(original)
    target = write_bundle(tmp_path, manifest, files)
    with pytest.raises(BundleError, match=r"cannot be written: Directory not empty$"):
        write_bundle(tmp_path, manifest, files | {"MODEL_CARD.md": b"another"})
    assert [path.name for path in target.parent.iterdir()] == [VERSION]
    assert read_bundle(target).card.startswith("# pumps")


def test_same_contents_give_the_same_digest(original: Path, tmp_path: Path) -> None:
    manifest, files = parts(original)
    assert read_bundle(write_bundle(tmp_path, manifest, files)).digest == read_bundle(original).digest


def test_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "aliases.json"
    replace_file(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("aliases.json", b"old")]
