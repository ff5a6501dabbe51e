"""A bundle: the folder that an export writes and a scorer reads; ONNX and JSON, never code."""

import contextlib
import glob
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from nelbo.admission import admit
from nelbo.bounds import first_fault, too_much
from nelbo.calibration import CalibrationFile, parse_calibration
from nelbo.drift import Reference, misfit, parse_reference
from nelbo.errors import BundleError, SchemaError
from nelbo.folder import Folder, opened
from nelbo.schema import Schema, parse_schema

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from nelbo.trust import Signer, Trust

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
NEEDED = ("schema.json", "score.onnx", "calibration.json", "reference.json", "golden.ndjson")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial-"  # what is not finished begins so: a folder of an export, a file; nothing reads it
_ZEROS = "0" * 64

# Bytes of a file at most: no tabular model comes near, and whoever loads a stranger's bundle has memory for its parsed
# form. What is in no table is only digested.
_MOST_BYTES = {
    MANIFEST: 2**20,
    SIGNATURE: 2**12,
    "schema.json": 16 * 2**20,
    "score.onnx": 256 * 2**20,
    "calibration.json": 64 * 2**20,
    "reference.json": 16 * 2**20,
    "golden.ndjson": 16 * 2**20,
}
_MOST_OF_OTHERS = 64 * 2**20
_MOST_TOGETHER = 512 * 2**20
_MOST_FILES = 64
_MOST_COLUMNS = 2_500  # each costs an explanation a run of the graph
_MOST_GOLDEN = 1_000  # an export writes 16


class Code(BaseModel):
    """The code that made a bundle.

    Attributes:
        version: of nelbo.
        sources: digest of the source files of the packages `nelbo` and `training`.
        revision: of the checkout that it was run from, with "-dirty" where files differ from it; None for an
            installed package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    sources: str
    revision: str | None = None


class Manifest(BaseModel):
    """`manifest.json`: what the bundle is, and the digest of every other file in it.

    Attributes:
        created: UTC, ISO 8601.
        schema_digest: of `schema.json`.
        files: SHA-256 in hex, by file name.
        opset: of `score.onnx`.
        libraries: versions that made it, by name.
        data: the training table: digest of its bytes, counts of records by use.
        config: what the fit was told.
        metrics: what the fit measured.
        code: what fitted it; None in a bundle of before it was written down.
        key_id: never set; a signature names its own key, since it comes after the manifest.
        digest: SHA-256 of this file's own bytes with zeros in the digest's place; it names the bundle, since
            it covers the digest of every file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: str
    version: str
    created: str
    schema_digest: str
    files: dict[str, str]
    opset: int
    libraries: dict[str, str]
    seed: int
    data: dict[str, str | int]
    config: dict[str, Any]
    metrics: dict[str, Any]
    code: Code | None = None
    key_id: None = None
    digest: str = _ZEROS


class Golden(msgspec.Struct, frozen=True):
    """A record and what the exporter's scorer said of it."""

    record: dict[str, Any]
    score: float
    elbo: float
    reconstruction_error: float


@dataclass(frozen=True)
class Bundle:
    """A bundle read whole and checked; what a scorer is made of.

    Attributes:
        signer: who signed the manifest, if it was asked whether a pinned key did.
    """

    manifest: Manifest
    schema: Schema
    graph: bytes
    calibration: CalibrationFile
    reference: Reference
    golden: tuple[Golden, ...]
    card: str
    signer: "Signer | None" = None

    @property
    def digest(self) -> str:
        """The manifest's digest of itself."""
        return self.manifest.digest

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.manifest.version

    @property
    def label(self) -> str:
        """`name@version`, as errors and logs call it."""
        return f"{self.name}@{self.version}"


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def new_version(digest: str, now: datetime | None = None) -> str:
    """A version: UTC time and the first letters of a digest, so that versions sort by age.

    >>> new_version("4f1c99", datetime(2026, 3, 2, 8, 15, tzinfo=UTC))
    '20260302T081500Z-4f1c'
    """
    return f"{(now or datetime.now(UTC)):%Y%m%dT%H%M%SZ}-{digest[:4]}"


def check_name(name: str) -> str:
    """The name, if a model may be called so.

    Raises:
        BundleError: it may not.
    """
    if NAME.fullmatch(name) is None:
        raise BundleError(f"'{name}' is not a model name: expected 1 to 63 of a-z 0-9 . _ -, a letter or digit first")
    return name


# --- reading -----------------------------------------------------------------------------------------


def read_bundle(folder: Path, trust: "Trust | None" = None) -> Bundle:
    """The bundle in a folder: signature and digests first, then every file against what is expected of it.

    Args:
        folder: of the bundle.
        trust: whose signature it must have; None asks for none.

    Raises:
        BundleError: naming the bundle, the file and what is wrong with it.
    """
    with opened(folder) as inside:
        manifest, signer = _manifest(inside, trust)
        label = f"bundle '{manifest.name}@{manifest.version}'"
        contents = _contents(inside, label, manifest.files)
    for name in ("schema.json", "calibration.json", "reference.json", "golden.ndjson"):
        if (problem := too_much(contents[name])) is not None:
            raise BundleError(f"{label}: {name}: {problem}")
    schema = _parse_schema(contents["schema.json"], label)
    if manifest.schema_digest != sha256(contents["schema.json"]):
        raise BundleError(f"{label}: schema.json does not match the manifest's schema digest")
    _admit(contents["score.onnx"], label)
    reference = parse_reference(contents["reference.json"], label)
    if (problem := misfit(reference, schema)) is not None:
        raise BundleError(f"{label}: reference.json: {problem}")
    return Bundle(
        manifest=manifest,
        schema=schema,
        graph=contents["score.onnx"],
        calibration=parse_calibration(contents["calibration.json"], label),
        reference=reference,
        golden=_parse_golden(contents["golden.ndjson"], label),
        card=contents.get("MODEL_CARD.md", b"").decode(errors="replace"),
        signer=signer,
    )


def read_manifest(folder: Path, trust: "Trust | None" = None) -> Manifest:
    """What a folder says its bundle is; the other files are not looked at.

    Raises:
        BundleError: it is missing, was changed after export, or is not signed as it must be.
    """
    with opened(folder) as inside:
        return _manifest(inside, trust)[0]


def _manifest(inside: Folder, trust: "Trust | None") -> "tuple[Manifest, Signer | None]":
    """The manifest, which is not parsed before its signature holds."""
    text = inside.read(MANIFEST, _MOST_BYTES[MANIFEST])
    signer = None if trust is None else _signer(inside, text, trust)
    manifest = _parse_manifest(text, inside.path)
    check_name(manifest.name)
    if trust is not None:
        trust.check_version(manifest.name, manifest.version)
    return manifest, signer


def read_signed(folder: Path) -> tuple[bytes, bytes | None]:
    """The manifest's bytes and those of its signature, if it has one; neither is looked into."""
    with opened(folder) as inside:
        text = inside.read(MANIFEST, _MOST_BYTES[MANIFEST])
        return text, inside.read_if_there(SIGNATURE, _MOST_BYTES[SIGNATURE])


def _signer(inside: Folder, text: bytes, trust: "Trust") -> "Signer":
    signature = inside.read_if_there(SIGNATURE, _MOST_BYTES[SIGNATURE])
    return trust.check_signature(text, signature, f"bundle {inside.path}")


def _contents(inside: Folder, label: str, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Every file of the bundle, each as it was exported."""
    for name in NEEDED:
        if name not in digests:
            raise BundleError(f"{label}: the manifest does not list {name}")
    if len(digests) > _MOST_FILES:
        raise BundleError(f"{label}: expected at most {_MOST_FILES} files, the manifest lists {len(digests)}")
    left = _MOST_TOGETHER
    contents = {}
    for name, digest in digests.items():
        contents[name] = _verified(inside, label, name, digest, left)
        left -= len(contents[name])
    return contents


def _parse_manifest(text: bytes, folder: Path) -> Manifest:
    if (problem := too_much(text)) is not None:
        raise BundleError(f"bundle {folder}: {MANIFEST}: {problem}")
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"bundle {folder}: {MANIFEST} is not a JSON object: {error}") from error
    if found.get("format") != FORMAT:
        raise BundleError(
            f"bundle {folder}: {MANIFEST}: expected format version {FORMAT}, got {found.get('format')!r}; "
            "it was written by another version of nelbo"
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        place, detail = first_fault(error)
        raise BundleError(f"bundle {folder}: {MANIFEST}: {place}: {detail}") from error
    if VERSION.fullmatch(manifest.version) is None:
        raise BundleError(f"bundle {folder}: {MANIFEST}: '{manifest.version}' is not a version")
    if _DIGEST.fullmatch(manifest.digest) is None or _own_digest(text, manifest.digest) != manifest.digest:
        raise BundleError(f"bundle {folder}: {MANIFEST} does not match its own digest; it was changed after export")
    return manifest


def _own_digest(text: bytes, digest: str) -> str:
    return sha256(text.replace(digest.encode(), _ZEROS.encode()))


def _verified(inside: Folder, label: str, name: str, digest: str, left: int) -> bytes:
    """A file's bytes, if they are the ones that were exported."""
    if name != Path(name).name or name in ("", ".", "..") or not name.isprintable():
        raise BundleError(f"{label}: the manifest lists {name!r}, which is no file name")
    data = inside.read(name, _MOST_BYTES.get(name, _MOST_OF_OTHERS))
    if len(data) > left:
        raise BundleError(f"{label}: its files are larger than {_MOST_TOGETHER // 2**20} MiB together")
    if sha256(data) != digest:
        raise BundleError(f"{label}: {name} does not match its digest in the manifest; it was changed after export")
    return data


def _admit(graph: bytes, label: str) -> None:
    try:
        admit(graph)
    except BundleError as error:
        raise BundleError(f"{label}: score.onnx: {error}") from error


def _parse_schema(text: bytes, label: str) -> Schema:
    try:
        schema = parse_schema(text, f"{label}: schema.json")
    except SchemaError as error:
        raise BundleError(str(error)) from error
    if len(schema.columns) > _MOST_COLUMNS:
        raise BundleError(f"{label}: schema.json: expected at most {_MOST_COLUMNS} columns, got {len(schema.columns)}")
    return schema


def _parse_golden(text: bytes, label: str) -> tuple[Golden, ...]:
    try:
        golden = tuple(msgspec.json.Decoder(Golden).decode_lines(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{label}: golden.ndjson: {error}") from error
    if not golden:
        raise BundleError(f"{label}: golden.ndjson holds no record to replay")
    if len(golden) > _MOST_GOLDEN:
        raise BundleError(f"{label}: golden.ndjson: expected at most {_MOST_GOLDEN} records, got {len(golden)}")
    return golden


# --- writing -----------------------------------------------------------------------------------------


def write_bundle(models: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Writes a bundle to `models/name/version`, whole or not at all.

    Args:
        models: the store's folder.
        manifest: `files` and the digests in it are set here.
        files: contents by name, all of `NEEDED` among them.

    Returns:
        The folder.

    Raises:
        BundleError: it cannot be written; nothing is left behind.
    """
    digests = {name: sha256(data) for name, data in files.items()}
    unsealed = {"files": digests, "schema_digest": digests["schema.json"], "digest": _ZEROS}
    text = manifest.model_copy(update=unsealed).model_dump_json(indent=1).encode() + b"\n"
    contents = {**files, MANIFEST: text.replace(_ZEROS.encode(), sha256(text).encode())}
    target = models / check_name(manifest.name) / manifest.version
    partial = target.parent / f"{_PARTIAL}{manifest.version}-{secrets.token_hex(4)}"
    try:
        _make_folder(target.parent)
        with _writing_in(target.parent, f"{_PARTIAL}*"):
            partial.mkdir()
            for name, data in contents.items():
                _write_durably(partial / name, data)
            sync_folder(partial)
            partial.rename(target)
            sync_folder(target.parent)
    except OSError as error:
        _remove(partial)
        raise BundleError(f"bundle {target}: cannot be written: {error.strerror}") from error
    except BaseException:
        _remove(partial)
        raise
    return target


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it; their names are on the disk before anything is in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _remove(partial: Path) -> None:
    """Takes back what an export has begun, the model's folder too if nothing else is in it."""
    shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):
        partial.parent.rmdir()


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replaces a small file, so that a reader sees the old one or the new one and nothing between.

    Args:
        path: of the file.
        data: all that it will hold.
        mode: its permissions; None for what the process gives any file.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}-{secrets.token_hex(4)}")
    with _writing_in(path.parent, f"{_PARTIAL}{glob.escape(path.name)}-????????"):
        try:
            if mode is not None:
                partial.touch(mode=0o600)  # nobody else reads it before it has them
                partial.chmod(mode)
            _write_durably(partial, data)
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing_in(folder: Path, left: str) -> Iterator[None]:
    """While something is written in a folder; before, what killed processes have left there is removed.

    Whoever writes shares a lock on the folder, which the system takes back from a process that is killed: who gets it
    alone knows that nobody is writing what lies there. Where the file system has no locks, it stays.

    Args:
        folder: that is there.
        left: pattern of the names of what is not finished.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in list(folder.glob(left)):
                    _discard(path)
            # Without waiting: our own caller may hold the folder, as `nelbo keys` does.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    """Removes a file or folder, which is another's first: should somebody be writing it after all, he is told."""
    if path.is_dir():
        path = path.rename(path.with_name(f"{_PARTIAL}{secrets.token_hex(8)}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
