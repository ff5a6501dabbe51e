"""Where a bundle comes from: who signed it, which table it was fitted on, which code fitted it."""

import hashlib
from pathlib import Path
from typing import Any

from nelbo.bundle import Bundle
from nelbo.errors import BundleError, TableError
from nelbo.sources import sources_digest

_SAME = "; the table at hand is the same"


def use_of(bundle: Bundle, table: Path) -> str:
    """What the bundle was made with this table: "fitted", or "calibrated" where that was done anew.

    Raises:
        BundleError: neither; the text has both digests.
        TableError: the table cannot be read.
    """
    try:
        with table.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TableError(f"{table}: cannot be read: {error.strerror}") from error
    data = bundle.manifest.data
    digests = {"fitted": data.get("digest"), "calibrated": data.get("calibration_digest")}
    for use, digest in digests.items():
        if digest == found:
            return use
    stated = (
        " and ".join(f"{use} on {digest}" for use, digest in digests.items() if digest) or "fitted on no named table"
    )
    raise BundleError(f"bundle '{bundle.label}' was {stated}, and {table} has the SHA-256 {found}")


def as_json(bundle: Bundle, *, is_signed: bool, use: str | None) -> dict[str, Any]:
    """All of it for programs.

    Args:
        bundle: with its signer, if one was asked for.
        is_signed: it has a signature, whether that was checked or not.
        use: of the table that was at hand; None where none was.
    """
    manifest, signer = bundle.manifest, bundle.signer
    return {
        "signature": {
            "is_there": is_signed,
            "is_checked": signer is not None,
            "key_id": signer and signer.key_id,
            "owner": signer and signer.owner,
        },
        "data": {**manifest.data, "checked": use},
        "code": manifest.code and {**manifest.code.model_dump(), "is_here": _is_here(bundle)},
        "libraries": manifest.libraries,
        "seed": manifest.seed,
        "created": manifest.created,
    }


def as_lines(bundle: Bundle, *, is_signed: bool, use: str | None) -> list[str]:
    """The same for people."""
    manifest, data = bundle.manifest, bundle.manifest.data
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items() if name != "nelbo")
    lines = [
        f"who:  {_who(bundle, is_signed=is_signed)}",
        f"data: {_table(data.get('source'), data.get('digest'))}{_SAME if use == 'fitted' else ''}",
    ]
    if "calibration_digest" in data:
        digest, source = data["calibration_digest"], data.get("calibration_source")
        lines.append(f"      calibrated on {_table(source, digest)}{_SAME if use == 'calibrated' else ''}")
    lines.append(f"code: {_which(bundle)}; {libraries}; seed {manifest.seed}; {manifest.created}")
    return lines


def _who(bundle: Bundle, *, is_signed: bool) -> str:
    if bundle.signer is not None:
        return f"signed by {bundle.signer.owner}, key {bundle.signer.key_id}"
    return "signed; by whom was not asked: --trust FILE" if is_signed else "not signed"


def _table(source: object, digest: object) -> str:
    return f"{source}, SHA-256 {digest}" if digest else "not named"


def _which(bundle: Bundle) -> str:
    code = bundle.manifest.code
    if code is None:
        return f"nelbo {bundle.manifest.libraries.get('nelbo', 'of before 0.1')}, sources not written down"
    where = "the same as here" if _is_here(bundle) else "others than here"
    return f"nelbo {code.version}, revision {code.revision or 'not known'}, sources {code.sources} ({where})"


def _is_here(bundle: Bundle) -> bool:
    return bundle.manifest.code is not None and bundle.manifest.code.sources == sources_digest()
