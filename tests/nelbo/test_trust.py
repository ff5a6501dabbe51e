import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nelbo.bundle import MANIFEST, SIGNATURE, read_bundle, sha256, write_bundle
from nelbo.errors import BundleError, TrustError
from nelbo.signature import key_id_of, new_key, public_text, read_key
from nelbo.signed import sign_bundle
from nelbo.trust import Trust, read_trust
from tests.bundles import VERSION, write_tiny_bundle
from tests.hostile import resealed
from tests.signing import KEY, OTHER_KEY, OWNER, signed, trust_file, trust_in

KEY_ID = key_id_of(KEY.public_key())
OTHER_ID = key_id_of(OTHER_KEY.public_key())


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed(write_tiny_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    return trust_in(tmp_path, KEY)


def refusal(folder: Path, trust: Trust) -> str:
    with pytest.raises(BundleError) as info:
        read_bundle(folder, trust)
    return str(info.value)


# --- signatures --------------------------------------------------------------------------------------


def test_signed_bundle_says_who_signed_it(bundle: Path, trust: Trust) -> None:
    signer = read_bundle(bundle, trust).signer
    assert signer is not None
    assert (signer.key_id, signer.owner) == (KEY_ID, OWNER)


def test_signing_changes_no_file_and_no_digest(bundle: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != SIGNATURE}
    digest = read_bundle(bundle).digest
    sign_bundle(bundle, OTHER_KEY)
    assert {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != SIGNATURE} == before
    assert read_bundle(bundle).digest == digest


def test_without_trust_a_signature_is_not_looked_at(bundle: Path) -> None:
    (bundle / SIGNATURE).write_bytes(b"nonsense")
    assert read_bundle(bundle).signer is None


def test_unsigned_bundle_is_refused(bundle: Path, trust: Trust) -> None:
    (bundle / SIGNATURE).unlink()
    assert refusal(bundle, trust) == f"bundle {bundle}: manifest.sig is missing; only signed bundles are read here"


def test_bundle_signed_by_a_key_that_is_not_pinned_is_refused(bundle: Path, trust: Trust) -> None:
    sign_bundle(bundle, OTHER_KEY)
    assert refusal(bundle, trust) == (
        f"bundle {bundle}: manifest.sig is of the key {OTHER_ID}, which is not pinned; pinned: {KEY_ID}"
    )


def test_signature_of_another_key_under_a_pinned_keys_id_is_refused(bundle: Path, trust: Trust) -> None:
    forged = sign_bundle(bundle, OTHER_KEY).model_copy(update={"key_id": KEY_ID})
    (bundle / SIGNATURE).write_bytes(forged.to_json())
    assert refusal(bundle, trust) == (
        f"bundle {bundle}: manifest.sig is no signature of manifest.json by {OWNER} (key {KEY_ID}); "
        "one of both was changed after it was signed"
    )


def test_signature_of_another_bundle_is_refused(bundle: Path, trust: Trust, tmp_path: Path) -> None:
    other = signed(write_tiny_bundle(tmp_path / "other", seed=7))
    shutil.copy(other / SIGNATURE, bundle / SIGNATURE)
    assert "is no signature of manifest.json" in refusal(bundle, trust)


def test_manifest_of_a_wrong_signature_is_not_parsed(bundle: Path, trust: Trust) -> None:
    (bundle / MANIFEST).write_bytes(b"no JSON at all")
    assert "is no signature of manifest.json" in refusal(bundle, trust)


def test_resealed_bundle_is_refused(bundle: Path, trust: Trust) -> None:
    resealed(bundle, lambda manifest: manifest.update(seed=1))
    read_bundle(bundle)
    assert "is no signature of manifest.json" in refusal(bundle, trust)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 4000, b'{"format":1,"algorithm":"none","key_id":"","signature":""}'],
)
def test_signature_that_is_none_is_refused(bundle: Path, trust: Trust, text: bytes) -> None:
    (bundle / SIGNATURE).write_bytes(text)
    assert refusal(bundle, trust).startswith(f"bundle {bundle}: manifest.sig: ")


def test_signature_is_no_larger_than_a_signature(bundle: Path, trust: Trust) -> None:
    (bundle / SIGNATURE).write_bytes(b" " * 5000)
    assert refusal(bundle, trust) == f"bundle {bundle}: manifest.sig is larger than 4096 bytes"


def test_signature_that_is_a_link_is_refused(bundle: Path, trust: Trust, tmp_path: Path) -> None:
    (bundle / SIGNATURE).rename(tmp_path / "elsewhere")
    (bundle / SIGNATURE).symlink_to(tmp_path / "elsewhere")
    assert refusal(bundle, trust) == f"bundle {bundle}: manifest.sig is a symbolic link"


def test_no_flipped_bit_of_any_file_is_ever_loaded_and_each_refusal_names_the_file(bundle: Path, trust: Trust) -> None:
    rng = np.random.default_rng(20261125)
    paths = sorted(bundle.iterdir())
    # As many in each file, however short it is: 64 of the signature, 64 of the manifest.
    for path in paths:
        whole = path.read_bytes()
        for at in rng.choice(8 * len(whole), size=64, replace=False):
            flipped = bytearray(whole)
            flipped[at // 8] ^= 1 << (at % 8)
            path.write_bytes(flipped)
            text = refusal(bundle, trust)
            assert path.name in text
            assert str(bundle) in text or f"bundle 'pumps@{VERSION}'" in text
        path.write_bytes(whole)
    assert len(paths) * 64 >= 400
    read_bundle(bundle, trust)


def test_no_flipped_bit_of_a_signature_is_ever_accepted(bundle: Path, trust: Trust) -> None:
    whole = (bundle / SIGNATURE).read_bytes()
    for at in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << (at % 8)
        (bundle / SIGNATURE).write_bytes(flipped)
        assert SIGNATURE in refusal(bundle, trust)


# --- versions ----------------------------------------------------------------------------------------


def test_version_older_than_the_minimum_is_refused_though_its_signature_holds(bundle: Path, tmp_path: Path) -> None:
    trust = trust_in(tmp_path, KEY, pumps="20260302T081500Z-4f1d")
    assert refusal(bundle, trust) == (
        f"bundle 'pumps@{VERSION}' is older than 20260302T081500Z-4f1d, the oldest version of 'pumps' that is read here"
    )


@pytest.mark.parametrize("minimum", [VERSION, "20260302T081459Z-ffff"])
def test_version_as_new_as_the_minimum_is_read(bundle: Path, tmp_path: Path, minimum: str) -> None:
    assert read_bundle(bundle, trust_in(tmp_path, KEY, pumps=minimum, fans="20990101T000000Z-0000")).name == "pumps"


def test_version_that_is_not_dated_is_refused_where_there_is_a_minimum(tmp_path: Path) -> None:
    folder = signed(write_tiny_bundle(tmp_path, version="zzz"))
    assert "'pumps@zzz' is older than" in refusal(folder, trust_in(tmp_path, KEY, pumps=VERSION))
    read_bundle(folder, trust_in(tmp_path, KEY))


def test_old_version_is_refused_before_any_other_file_is_read(bundle: Path, tmp_path: Path) -> None:
    for path in bundle.iterdir():
        if path.name not in (MANIFEST, SIGNATURE):
            path.unlink()
    assert "is older than" in refusal(bundle, trust_in(tmp_path, KEY, pumps="20260302T081500Z-4f1d"))


# --- the file of pinned keys -------------------------------------------------------------------------


def problems(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> list[str]:
    path = trust_file(tmp_path, KEY, OTHER_KEY)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(TrustError) as info:
        read_trust(path)
    return [line.removeprefix(f"{path}: ") for line in str(info.value).splitlines()]


def test_each_of_several_keys_counts(bundle: Path, tmp_path: Path) -> None:
    trust = trust_in(tmp_path, OTHER_KEY, KEY)
    assert read_bundle(bundle, trust).signer is not None
    assert read_bundle(signed(bundle, OTHER_KEY), trust).signer is not None


def test_every_problem_of_the_file_is_listed(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["keys"][KEY_ID]["public_key"] = "short"
        content["keys"]["0" * 16] = content["keys"].pop(OTHER_ID)
        content["minimum_versions"] = {"pumps": "newest"}

    assert problems(tmp_path, change) == [
        f"keys.{KEY_ID}.public_key: expected the 32 bytes of an ed25519 key in base64, got no such",
        "minimum_versions.pumps: expected a version like 20260302T081500Z-4f1c, got 'newest'",
        f"keys.{'0' * 16}: expected the id of its public key, {OTHER_ID}",
    ]


def test_what_is_wrong_with_the_structure_hides_no_other_problem(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        del content["keys"][KEY_ID]["owner"]
        content["keys"]["0" * 16] = content["keys"].pop(OTHER_ID)
        content.update(minimum_versions={"pumps": "newest", "fans": 3}, more=1)

    version = "expected a version like 20260302T081500Z-4f1c"
    assert problems(tmp_path, change) == [
        f"keys.{KEY_ID}.owner: expected a text of 1 to 200 characters, got nothing",
        f"minimum_versions.pumps: {version}, got 'newest'",
        f"minimum_versions.fans: {version}, got 3",
        "more: expected no name but format, keys, minimum_versions, got another",
        f"keys.{'0' * 16}: expected the id of its public key, {OTHER_ID}",
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda c: c.update(keys={}),
            "keys: expected an object with one pinned key or more, each by its id, got an empty object",
        ),
        (lambda c: c.pop("keys"), "keys: expected an object with one pinned key or more, each by its id, got nothing"),
        (
            lambda c: c.update(required=False),
            "required: expected no name but format, keys, minimum_versions, got another",
        ),
        (lambda c: c.update(format=2), "format: expected 1, got 2"),
        (
            lambda c: c.update(minimum_versions=["x"]),
            "minimum_versions: expected an object of versions, each by its model's name, got a list",
        ),
        (
            lambda c: c["keys"][KEY_ID].update(owner=""),
            f"keys.{KEY_ID}.owner: expected a text of 1 to 200 characters, got ''",
        ),
        (
            lambda c: c["keys"][KEY_ID].update(owner="x" * 201),
            f"keys.{KEY_ID}.owner: expected a text of 1 to 200 characters, got '{'x' * 60}…'",
        ),
        (
            lambda c: c["keys"][KEY_ID].update(public_key=7),
            f"keys.{KEY_ID}.public_key: expected the 32 bytes of an ed25519 key in base64, got 7",
        ),
        (
            lambda c: c["keys"][KEY_ID].update(private_key="s"),
            f"keys.{KEY_ID}.private_key: expected no name but owner, public_key, got another",
        ),
        (lambda c: c["keys"].update({"a\nb": 1}), r"keys.a\nb: expected an object with owner and public_key, got 1"),
    ],
)
def test_file_that_says_something_else_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    assert problems(tmp_path, change) == [text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7", "expected an object with keys and, if wanted, minimum_versions, got 7"),
        ('{"keys": {},\n ]', "expected JSON, got none from line 2, column 2 on"),
        ("[" * 100_000, "expected JSON, got too deep a nesting"),
        ("1" * 5_000, "expected JSON, got too long a number"),
    ],
    ids=["number", "bracket", "deep", "digits"],
)
def test_file_that_holds_no_object_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "trust.json").write_text(text)
    with pytest.raises(TrustError) as info:
        read_trust(tmp_path / "trust.json")
    assert str(info.value) == f"{tmp_path}/trust.json: {said}"


@pytest.mark.parametrize(("make", "what"), [(Path.mkdir, "folder"), (os.mkfifo, "pipe")])
def test_what_is_no_file_of_pinned_keys_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], object], what: str
) -> None:
    make(tmp_path / "trust.json")
    with pytest.raises(TrustError) as info:
        read_trust(tmp_path / "trust.json")
    assert str(info.value) == f"{tmp_path}/trust.json: cannot be read: expected a file, got a {what}"


def test_link_to_a_file_of_pinned_keys_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(trust_file(tmp_path, KEY).name)
    read_trust(tmp_path / "link.json")


def test_file_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrustError) as info:
        read_trust(tmp_path / "nowhere.json")
    assert str(info.value) == f"{tmp_path}/nowhere.json: cannot be read: No such file or directory"


# --- keys --------------------------------------------------------------------------------------------


def test_new_key_is_readable_by_its_owner_alone_and_reads_back(tmp_path: Path) -> None:
    made = new_key(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert public_text(read_key(tmp_path / "key.pem").public_key()) == public_text(made.public_key())


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    with pytest.raises(TrustError, match=r"key\.pem: is there already; a key is never overwritten$"):
        new_key(tmp_path / "key.pem")


@pytest.mark.parametrize("text", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_file_that_is_no_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.pem").write_text(text)
    with pytest.raises(TrustError) as info:
        read_key(tmp_path / "key.pem")
    assert str(info.value) == (
        f"{tmp_path}/key.pem: expected an ed25519 private key in PEM without a passphrase, got none"
    )


def test_bundle_that_does_not_hold_is_not_signed(bundle: Path) -> None:
    (bundle / SIGNATURE).unlink()
    (bundle / "score.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="does not match its digest"):
        sign_bundle(bundle, KEY)
    assert not (bundle / SIGNATURE).exists()


def test_copy_of_a_bundle_is_unsigned(bundle: Path, tmp_path: Path) -> None:
    read = read_bundle(bundle)
    files = {name: (bundle / name).read_bytes() for name in read.manifest.files}
    copy = write_bundle(tmp_path / "models", read.manifest, files)
    assert not (copy / SIGNATURE).exists()


def test_openssl_agrees(bundle: Path, tmp_path: Path) -> None:
    """The signature is the plain one of the manifest's bytes, which any tool checks."""
    import base64  # noqa: PLC0415

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    raw = base64.b64decode(json.loads((bundle / SIGNATURE).read_text())["signature"])
    (tmp_path / "raw").write_bytes(raw)
    # RFC 8410: the 12 bytes that precede the 32 of a public key.
    der = bytes.fromhex("302a300506032b6570032100") + base64.b64decode(public_text(KEY.public_key()))
    (tmp_path / "key.der").write_bytes(der)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", str(tmp_path / "key.der")]
    command += ["-rawin", "-in", str(bundle / MANIFEST), "-sigfile", str(tmp_path / "raw")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_service_that_asks_for_no_signature_does_not_load_the_library_for_it() -> None:
    code = "import sys, service.app, nelbo.bundle; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_key_id_is_the_beginning_of_the_digest_of_the_key() -> None:
    assert sha256(bytes.fromhex(KEY.public_key().public_bytes_raw().hex()))[:16] == KEY_ID
