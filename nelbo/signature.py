"""A signature over a manifest, which covers every file of its bundle: ed25519, `manifest.sig`."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from nelbo.bounds import first_fault
from nelbo.errors import BundleError, TrustError

_RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


class Signature(BaseModel):
    """`manifest.sig`.

    Attributes:
        key_id: of the key that signed, see `key_id_of`.
        signature: of the manifest's bytes, base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key_id: str
    signature: str

    def to_json(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def parse_signature(text: bytes, source: str) -> Signature:
    """A signature from the bytes of its file.

    Raises:
        BundleError: it is not written as signatures are.
    """
    try:
        found = Signature.model_validate_json(text)
    except ValidationError as error:
        place, detail = first_fault(error)
        raise BundleError(f"{source}: {place}: {detail}") from error
    if found.to_json() != text:  # one signature is one file: no byte of it can be another
        raise BundleError(f"{source}: is not written as a signature is; it was changed after it was made")
    return found


def sign(manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """A signature of a manifest's bytes."""
    return Signature(key_id=key_id_of(key.public_key()), signature=_base64(key.sign(manifest)))


def holds(signature: Signature, manifest: bytes, key: Ed25519PublicKey) -> bool:
    """Whether the key made the signature for these bytes."""
    try:
        key.verify(_bytes(signature.signature), manifest)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_id_of(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the key's 32 bytes."""
    return hashlib.sha256(key.public_bytes(*_RAW)).hexdigest()[:16]


def public_text(key: Ed25519PublicKey) -> str:
    """The key's 32 bytes in base64, as a trust file has them."""
    return _base64(key.public_bytes(*_RAW))


def public_key(text: str) -> Ed25519PublicKey:
    """The key of such a text.

    Raises:
        ValueError: it is none.
    """
    return Ed25519PublicKey.from_public_bytes(_bytes(text))


def new_key(path: Path) -> Ed25519PrivateKey:
    """A new private key in a new file that its owner alone may read: PEM, PKCS #8, without a passphrase.

    Raises:
        TrustError: the file is there already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
    except FileExistsError as error:
        raise TrustError(f"{path}: is there already; a key is never overwritten") from error
    except OSError as error:
        raise TrustError(f"{path}: cannot be written: {error.strerror}") from error
    return key


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a file.

    Raises:
        TrustError: it cannot be read, or is no such key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise TrustError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:  # no PEM; one with a passphrase
        raise TrustError(f"{path}: expected an ed25519 private key in PEM without a passphrase, got none") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(f"{path}: expected an ed25519 private key, got another kind")
    return key


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    """What a base64 text means, if written as we write it: its last letter has bits that most readers pass over."""
    data = base64.b64decode(text, validate=True)
    if _base64(data) != text:
        raise ValueError("unused bits are set")
    return data
