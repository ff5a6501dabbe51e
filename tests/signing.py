"""Bundles that are signed, and files of pinned keys."""

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nelbo.signature import key_id_of, public_text
from nelbo.signed import sign_bundle
from nelbo.trust import Trust, read_trust

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OWNER = "Ann, pumps"


def trust_file(folder: Path, *keys: Ed25519PrivateKey, **minimum_versions: str) -> Path:
    """A file that pins the keys, all of the same owner."""
    pinned = {
        key_id_of(key.public_key()): {"owner": OWNER, "public_key": public_text(key.public_key())} for key in keys
    }
    path = folder / "trust.json"
    path.write_text(json.dumps({"keys": pinned, "minimum_versions": minimum_versions}))
    return path


def trust_in(folder: Path, *keys: Ed25519PrivateKey, **minimum_versions: str) -> Trust:
    """The trust that such a file states."""
    return read_trust(trust_file(folder, *keys, **minimum_versions))


def signed(folder: Path, key: Ed25519PrivateKey = KEY) -> Path:
    """The bundle with a signature beside it."""
    sign_bundle(folder, key)
    return folder
