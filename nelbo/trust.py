"""Whose bundles are served: a file of pinned keys, and of the oldest versions that still are."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nelbo.errors import BundleError, TrustError, one_line, shortened
from nelbo.named_file import parse, read, shown
from nelbo.signature import holds, key_id_of, parse_signature, public_key

# As `nelbo.bundle.new_version` writes them: only such versions sort by age.
_DATED = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")


@dataclass(frozen=True)
class Signer:
    """Who signed: a pinned key and its owner."""

    key_id: str
    owner: str


def _a_public_key(text: str) -> str:
    public_key(text)
    return text


def _a_version(text: str) -> str:
    if _DATED.fullmatch(text) is None:
        raise ValueError
    return text


class PinnedKey(BaseModel):
    """A key whose signatures count.

    Attributes:
        owner: who it is, for people: "Ann, pumps".
        public_key: its 32 bytes, base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    owner: Annotated[str, Field(min_length=1, max_length=200)]
    public_key: Annotated[str, AfterValidator(_a_public_key)]


class TrustFile(BaseModel):
    """The file, JSON.

    Attributes:
        keys: by key id.
        minimum_versions: by model: an older version is refused, though its signature holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    keys: Annotated[dict[str, PinnedKey], Field(min_length=1)]
    minimum_versions: dict[str, Annotated[str, AfterValidator(_a_version)]] = {}


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


# What belongs in each place of the file; * is any name.
_EXPECTED = {
    (): "an object with keys and, if wanted, minimum_versions",
    ("format",): "1",
    ("keys",): "an object with one pinned key or more, each by its id",
    ("keys", "*"): "an object with owner and public_key",
    ("keys", "*", "owner"): "a text of 1 to 200 characters",
    ("keys", "*", "public_key"): "the 32 bytes of an ed25519 key in base64",
    ("minimum_versions",): "an object of versions, each by its model's name",
    ("minimum_versions", "*"): "a version like 20260302T081500Z-4f1c",
}


def read_trust(path: Path) -> Trust:
    """The trust that a file states.

    Raises:
        TrustError: the text lists every problem of the file, one a line.
    """
    try:
        content = parse(read(path))
    except OSError as error:
        raise TrustError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TrustError(f"{path}: {error}") from error
    file, problems = None, []
    try:
        file = TrustFile.model_validate(content)
    except ValidationError as error:
        problems += [_problem(e["loc"], e["type"], e["input"]) for e in error.errors(include_url=False)]
    problems += _wrong_ids(content)
    if file is None or problems:
        raise TrustError("\n".join(f"{path}: {one_line(problem)}" for problem in problems))
    return Trust(file, {key_id: public_key(pinned.public_key) for key_id, pinned in file.keys.items()})


def _problem(loc: Sequence[int | str], kind: str, value: object) -> str:
    """What pydantic found, in our words: where, what was expected, what is there."""
    place = f"{_place(loc)}: " if loc else ""
    if kind == "extra_forbidden":
        names = (TrustFile if len(loc) == 1 else PinnedKey).model_fields
        return f"{place}expected no name but {', '.join(names)}, got another"
    expected = _EXPECTED[tuple("*" if depth == 1 else str(name) for depth, name in enumerate(loc))]
    if kind == "missing":
        return f"{place}expected {expected}, got nothing"
    # Not repeated: somebody may have put a private key in its place.
    is_hidden = loc[2:] == ("public_key",) and isinstance(value, str)
    return f"{place}expected {expected}, got {'no such' if is_hidden else shown(value)}"


def _wrong_ids(content: Any) -> Iterator[str]:
    """Of the keys that are such, whatever else is wrong."""
    keys = content.get("keys") if isinstance(content, dict) else None
    for key_id, pinned in keys.items() if isinstance(keys, dict) else ():
        try:
            expected = key_id_of(public_key(pinned["public_key"]))
        except (KeyError, TypeError, ValueError):  # which has a line already
            continue
        if key_id != expected:
            yield f"{_place(('keys', key_id))}: expected the id of its public key, {expected}"


def _place(loc: Sequence[int | str]) -> str:
    return ".".join(shortened(str(name)) for name in loc)
