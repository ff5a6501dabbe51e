"""A bundle: the folder that an export writes and a scorer reads; ONNX and JSON, never code."""

import contextlib
import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from nelbo.calibration import CalibrationFile, parse_calibration
from nelbo.drift import Reference, parse_reference
from nelbo.errors import BundleError, SchemaError
from nelbo.schema import Schema, parse_schema

if sys.platform != "win32":
    import fcntl

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
NEEDED = ("schema.json", "score.onnx", "calibration.json", "reference.json", "golden.ndjson")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PARTIAL = ".partial-"  # what is not finished begins so: a folder of an export, a file; nothing reads it
_ZEROS = "0" * 64
_MAX_BYTES = 256 * 2**20  # no tabular model comes near; guards the memory of whoever loads a stranger's bundle


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
    key_id: str | None = None
    digest: str = _ZEROS


class Golden(msgspec.Struct, frozen=True):
    """A record and what the exporter's scorer said of it."""

    record: dict[str, Any]
    score: float
    elbo: float
    reconstruction_error: float


@dataclass(frozen=True)
class Bundle:
    """A bundle read whole and checked; what a scorer is made of."""

    manifest: Manifest
    schema: Schema
    graph: bytes
    calibration: CalibrationFile
    reference: Reference
    golden: tuple[Golden, ...]
    card: str

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


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder: digests first, then every file against what is expected of it.

    Raises:
        BundleError: naming the bundle, the file and what is wrong with it.
    """
    manifest = read_manifest(folder)
    label = f"bundle '{manifest.name}@{manifest.version}'"
    check_name(manifest.name)
    for name in NEEDED:
        if name not in manifest.files:
            raise BundleError(f"{label}: the manifest does not list {name}")
    contents = {name: _verified(folder, label, name, digest) for name, digest in manifest.files.items()}
    schema = _parse_schema(contents["schema.json"], label)
    if manifest.schema_digest != sha256(contents["schema.json"]):
        raise BundleError(f"{label}: schema.json does not match the manifest's schema digest")
    return Bundle(
        manifest=manifest,
        schema=schema,
        graph=contents["score.onnx"],
        calibration=parse_calibration(contents["calibration.json"], label),
        reference=parse_reference(contents["reference.json"], label),
        golden=_parse_golden(contents["golden.ndjson"], label),
        card=contents.get("MODEL_CARD.md", b"").decode(errors="replace"),
    )


def read_manifest(folder: Path) -> Manifest:
    """What a folder says its bundle is; the other files are not looked at.

    Raises:
        BundleError: it is missing, or was changed after export.
    """
    return _parse_manifest(_read(folder, MANIFEST), folder)


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        found = path.stat()
        # A pipe would keep us waiting, and /dev/zero has no end.
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"bundle {folder}: {name} is not a file")
        if found.st_size > _MAX_BYTES:
            raise BundleError(f"bundle {folder}: {name} is larger than {_MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"bundle {folder}: {name} is missing") from error
    except OSError as error:
        raise BundleError(f"bundle {folder}: {name} cannot be read: {error.strerror}") from error


def _parse_manifest(text: bytes, folder: Path) -> Manifest:
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
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"bundle {folder}: {MANIFEST}: {place}: {first['msg']}") from error
    if _own_digest(text, manifest.digest) != manifest.digest:
        raise BundleError(f"bundle {folder}: {MANIFEST} does not match its own digest; it was changed after export")
    return manifest


def _own_digest(text: bytes, digest: str) -> str:
    return sha256(text.replace(digest.encode(), _ZEROS.encode()))


def _verified(folder: Path, label: str, name: str, digest: str) -> bytes:
    """A file's bytes, if they are the ones that were exported.

    A file's name is looked up in the folder, never followed out of it.
    """
    if name != Path(name).name or name in ("", ".", "..") or not name.isprintable():
        raise BundleError(f"{label}: the manifest lists {name!r}, which is no file name")
    data = _read(folder, name)
    if sha256(data) != digest:
        raise BundleError(f"{label}: {name} does not match its digest in the manifest; it was changed after export")
    return data


def _parse_schema(text: bytes, label: str) -> Schema:
    try:
        return parse_schema(text, f"{label}: schema.json")
    except SchemaError as error:
        raise BundleError(str(error)) from error


def _parse_golden(text: bytes, label: str) -> tuple[Golden, ...]:
    try:
        golden = tuple(msgspec.json.Decoder(Golden).decode_lines(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{label}: golden.ndjson: {error}") from error
    if not golden:
        raise BundleError(f"{label}: golden.ndjson holds no record to replay")
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
