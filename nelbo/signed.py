"""A bundle with a signature beside it."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nelbo.bundle import SIGNATURE, read_bundle, read_signed, replace_file
from nelbo.errors import BundleError
from nelbo.signature import Signature, sign


def sign_bundle(folder: Path, key: Ed25519PrivateKey) -> Signature:
    """Writes `manifest.sig`; the manifest stays as it is, and so does the bundle's digest.

    Raises:
        BundleError: the bundle does not hold, so nobody should vouch for it; or the file cannot be written.
    """
    text, _ = read_signed(folder)
    read_bundle(folder)
    if read_signed(folder)[0] != text:
        raise BundleError(f"bundle {folder}: manifest.json was changed while it was being signed")
    signature = sign(text, key)
    try:
        replace_file(folder / SIGNATURE, signature.to_json())
    except OSError as error:
        raise BundleError(f"bundle {folder}: {SIGNATURE} cannot be written: {error.strerror}") from error
    return signature
