"""Whose bundles are served: a file of pinned keys, and of the oldest versions that still are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nelbo.errors import BundleError, TrustError
from nelbo.signature import holds, key_id_of, parse_signature, public_key

# As `nelbo.bundle.new_version` writes them: only such versions sort by age.
_DATED = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")


@dataclass(frozen=True)
class Signer:
    """Who signed: a pinned key and its owner."""

    key_id: str
    owner: str


class PinnedKey(BaseModel):
    """A key whose signatures count.

    Attributes:
        owner: who it is, for people: "Ann, pumps".
        public_key: its 32 bytes, base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    owner: Annotated[str, Field(min_length=1, max_length=200)]
    public_key: str


class TrustFile(BaseModel):
    """The file, JSON.

    Attributes:
        keys: by key id.
        minimum_versions: by model: an older version is refused, though its signature holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    keys: Annotated[dict[str, PinnedKey], Field(min_length=1)]
    minimum_versions: dict[str, str] = {}


class Trust:
    """What a bundle must have to be read.

    Args:
        file: what an operator wrote.
        keys: the public key of each key id in it.
    """

    def __init__(self, file: TrustFile, keys: dict[str, Ed25519PublicKey]) -> None:
        self._file = file
        self._keys = keys

    def check_signature(self, manifest: bytes, signature: bytes | None, source: str) -> Signer:
        """Who signed the manifest; it is not looked into.

        Args:
            manifest: bytes of the file.
            signature: bytes of its `manifest.sig`; None where there is none.
            source: what to call the bundle in an error.

        Raises:
            BundleError: it is not signed, by no pinned key, or the signature is of other bytes.
        """
        if signature is None:
            raise BundleError(f"{source}: manifest.sig is missing; only signed bundles are read here")
        found = parse_signature(signature, f"{source}: manifest.sig")
        if found.key_id not in self._keys:
            pinned = ", ".join(sorted(self._keys))
            raise BundleError(
                f"{source}: manifest.sig is of the key {found.key_id}, which is not pinned; pinned: {pinned}"
            )
        owner = self._file.keys[found.key_id].owner
        if not holds(found, manifest, self._keys[found.key_id]):
            raise BundleError(
                f"{source}: manifest.sig is no signature of manifest.json by {owner} (key {found.key_id}); "
                "one of both was changed after it was signed"
            )
        return Signer(found.key_id, owner)

    @property
    def models(self) -> frozenset[str]:
        """The models that have a minimum version."""
        return frozenset(self._file.minimum_versions)

    def check_version(self, name: str, version: str) -> None:
        """Returns if the version is not older than the model's oldest that is served.

        Raises:
            BundleError: it is, or it does not say how old it is.
        """
        minimum = self._file.minimum_versions.get(name)
        if minimum is None:
            return
        if _DATED.fullmatch(version) is None or version < minimum:
            raise BundleError(
                f"bundle '{name}@{version}' is older than {minimum}, the oldest version of '{name}' that is read here"
            )


def read_trust(path: Path) -> Trust:
    """The trust that a file states.

    Raises:
        TrustError: the text lists every problem of the file, one a line.
    """
    try:
        file = TrustFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TrustError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise TrustError("\n".join(f"{path}: {_place(e['loc'])}: {e['msg']}" for e in error.errors())) from error
    keys, problems = {}, []
    for key_id, pinned in file.keys.items():
        try:
            keys[key_id] = public_key(pinned.public_key)
        except ValueError:
            problems.append(f"keys.{key_id}.public_key: expected the 32 bytes of an ed25519 key in base64, got no such")
            continue
        if key_id != key_id_of(keys[key_id]):
            problems.append(f"keys.{key_id}: expected the id of its public key, {key_id_of(keys[key_id])}")
    for name, version in file.minimum_versions.items():
        if _DATED.fullmatch(version) is None:
            problems.append(f"minimum_versions.{name}: expected a version like 20260302T081500Z-4f1c, got '{version}'")
    if problems:
        raise TrustError("\n".join(f"{path}: {problem}" for problem in problems))
    return Trust(file, keys)


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc)) or "the file"
