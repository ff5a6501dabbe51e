import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nelbo import sources
from nelbo.bundle import Bundle, Code, read_bundle
from nelbo.errors import BundleError, TableError
from nelbo.provenance import as_json, as_lines, use_of
from nelbo.sources import revision, sources_digest
from nelbo.trust import Signer
from tests.bundles import VERSION, write_tiny_bundle

TABLE = b"pressure\n5.0\n"
DIGEST = hashlib.sha256(TABLE).hexdigest()
CODE = Code(version="0.1.0", sources="1" * 64, revision="2" * 40)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models")))


def of(bundle: Bundle, **data: str) -> Bundle:
    """The same of another table, by known code."""
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"data": data, "code": CODE}))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "pumps.csv").write_bytes(TABLE)
    return tmp_path / "pumps.csv"


def test_table_of_the_fit_is_known_by_its_bytes(original: Bundle, table: Path) -> None:
    assert use_of(of(original, source="p.csv", digest=DIGEST), table) == "fitted"


def test_table_of_a_later_calibration_is_known_too(original: Bundle, table: Path) -> None:
    assert use_of(of(original, digest="3" * 64, calibration_digest=DIGEST), table) == "calibrated"


def test_another_table_is_refused_with_both_digests(original: Bundle, table: Path) -> None:
    with pytest.raises(BundleError) as info:
        use_of(of(original, digest="3" * 64), table)
    assert str(info.value) == (
        f"bundle 'pumps@{VERSION}' was fitted on {'3' * 64}, and {table} has the SHA-256 {DIGEST}"
    )


def test_bundle_that_names_no_table_matches_none(original: Bundle, table: Path) -> None:
    with pytest.raises(BundleError, match="was fitted on no named table"):
        use_of(of(original), table)


def test_table_that_cannot_be_read_is_an_error_of_the_table(original: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"nowhere\.csv: cannot be read: No such file or directory$"):
        use_of(original, tmp_path / "nowhere.csv")


def test_lines_say_who_what_and_by_which_code(original: Bundle) -> None:
    bundle = replace(of(original, source="p.csv", digest=DIGEST), signer=Signer("ab12", "Ann"))
    who, data, code = as_lines(bundle, is_signed=True, use="fitted")
    assert who == "who:  signed by Ann, key ab12"
    assert data == f"data: p.csv, SHA-256 {DIGEST}; the table at hand is the same"
    assert code.startswith(f"code: nelbo 0.1.0, revision {'2' * 40}, sources {'1' * 64} (others than here); onnx ")
    assert code.endswith("; seed 0; 2026-03-02T08:15:00+00:00")


def test_lines_say_what_is_not_known(original: Bundle) -> None:
    unsigned = as_lines(original, is_signed=False, use=None)
    assert unsigned[:2] == ["who:  not signed", "data: not named"]
    assert "sources not written down" in unsigned[2]
    assert as_lines(original, is_signed=True, use=None)[0] == "who:  signed; by whom was not asked: --trust FILE"


def test_calibration_on_other_records_has_a_line(original: Bundle) -> None:
    bundle = of(original, source="p.csv", digest="3" * 64, calibration_source="q.csv", calibration_digest=DIGEST)
    line = as_lines(bundle, is_signed=False, use="calibrated")[2]
    assert line == f"      calibrated on q.csv, SHA-256 {DIGEST}; the table at hand is the same"


def test_json_has_the_same(original: Bundle) -> None:
    bundle = replace(of(original, digest=DIGEST), signer=Signer("ab12", "Ann"))
    found = as_json(bundle, is_signed=True, use="fitted")
    assert found["signature"] == {"is_there": True, "is_checked": True, "key_id": "ab12", "owner": "Ann"}
    assert found["data"] == {"digest": DIGEST, "checked": "fitted"}
    assert found["code"] == {"version": "0.1.0", "sources": "1" * 64, "revision": "2" * 40, "is_here": False}
    assert as_json(original, is_signed=False, use=None)["code"] is None


# --- the code ----------------------------------------------------------------------------------------


def test_digest_of_the_sources_is_the_one_that_a_shell_finds() -> None:
    root = Path(sources.__file__).parents[1]
    command = "find nelbo training -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=True, timeout=60)  # noqa: S602  # as in the docstring
    assert done.stdout.split()[0] == sources_digest()


def test_digest_of_the_sources_changes_with_any_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(sources, "_roots", lambda: [("a", tmp_path)])
    before = sources_digest()
    (tmp_path / "a.py").write_text("2")
    assert sources_digest() != before


def test_revision_is_of_the_checkout_and_says_if_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_roots", lambda: [("nelbo", tmp_path / "nelbo")])
    assert revision() is None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    (tmp_path / "file").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    assert revision() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert revision() == git("rev-parse", "HEAD") + "-dirty"
