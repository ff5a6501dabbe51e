"""Where bundles live: `models/<name>/<version>/`, and `aliases.json` that says which version is live."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nelbo.bundle import MANIFEST, NAME, VERSION, replace_file, sync_folder
from nelbo.errors import BundleError, StoreError, StoreWriteError, UnknownVersionError
from nelbo.folder import opened
from nelbo.lock import locked

ALIASES = "aliases.json"
LIVE, PREVIOUS = "live", "previous"
_MOST_BYTES = 1 << 20  # of the aliases; nelbo writes some hundred
_REMOVED = ".removed-"  # a version on its way out; nothing reads it


@dataclass(frozen=True)
class Store:
    """A folder of models.

    Args:
        root: `models/`.
    """

    root: Path

    @property
    def is_there(self) -> bool:
        """Whether there is a folder, or that cannot be told."""
        return _may_be(self.root.is_dir)

    def names(self) -> list[str]:
        """The models that have at least one version, or of which that cannot be told.

        Raises:
            OSError: the folder cannot be read.
        """
        if not self.is_there:
            return []
        entries = (path for path in self.root.iterdir() if NAME.fullmatch(path.name))
        found = sorted(path.name for path in entries if _may_be(path.is_dir))
        return [name for name in found if self._may_have_versions(name)]

    def has(self, name: str) -> bool:
        """Whether there is a folder for a model of this name, with or without a version.

        Not where that cannot be told: any text could then be a model's name.
        """
        return NAME.fullmatch(name) is not None and os.path.isdir(self.root / name)

    def _may_have_versions(self, name: str) -> bool:
        try:
            return next(self._versions(name), None) is not None
        except OSError:  # which is no reason for the others not to be found
            return True

    def versions(self, name: str) -> list[str]:
        """A model's versions, oldest first; unfinished exports are none, nor is what no version may be called.

        Raises:
            StoreError: they cannot be read.
        """
        try:
            return sorted(self._versions(name))
        except OSError as error:
            raise StoreError(f"{self.root / name}: cannot be read: {error.strerror}") from error

    def _versions(self, name: str) -> Iterator[str]:
        folder = self.root / name
        if NAME.fullmatch(name) is not None and folder.is_dir():
            entries = (path for path in folder.iterdir() if VERSION.fullmatch(path.name))
            yield from (path.name for path in entries if _may_be((path / MANIFEST).is_file))

    def aliases(self, name: str) -> dict[str, str]:
        """Version by alias.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        text = self.aliases_text(name)
        try:
            return {} if text is None else msgspec.json.decode(text, type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(
                f"{self.root / name / ALIASES}: cannot be read: {error}; without the file the newest version is live"
            ) from error

    def aliases_text(self, name: str) -> bytes | None:
        """The file that aliases are read from; None where there is none.

        Raises:
            StoreError: it is there and cannot be read; no pipe is waited for, and no link followed.
        """
        try:
            with opened(self.root / name, "model") as folder:
                return folder.read_if_there(ALIASES, _MOST_BYTES)
        except BundleError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise StoreError(str(error)) from error.__cause__

    def live(self, name: str) -> Path:
        """The folder of a model's live version, or of its newest where no alias says.

        Raises:
            UnknownVersionError: there is no such model, or its alias points nowhere.
        """
        return self.folder(name, LIVE)

    def find(self, reference: str) -> Path:
        """The folder of `NAME`, `NAME@version`, `NAME@alias`; `NAME` alone is the live version.

        Raises:
            UnknownVersionError: there is none; the text lists what there is.
        """
        name, _, version = reference.partition("@")
        return self.folder(name, version or LIVE)

    def folder(self, name: str, version: str) -> Path:
        """The folder of a version.

        Args:
            name: of the model; any text, for it is looked up and no part of a path before it is found.
            version: or an alias of it, likewise; `live` is the newest version where no alias says.

        Raises:
            UnknownVersionError: there is none; the text lists what there is.
            StoreError: that cannot be told.
        """
        versions = self.versions(name)
        if not versions:
            raise UnknownVersionError(f"no model '{name}' in {self.root}; there: {self._known()}")
        aliases = self.aliases(name)
        if version == PREVIOUS and PREVIOUS not in aliases:
            raise UnknownVersionError(f"model '{name}' in {self.root} has no previous version to go back to")
        wanted = aliases.get(version, versions[-1] if version == LIVE else version)
        if wanted not in versions:
            raise UnknownVersionError(
                f"model '{name}' in {self.root} has no version '{wanted}'; there: {', '.join(versions)}"
                + (f"; aliases: {', '.join(sorted(aliases))}" if aliases else "")
            )
        return self.root / name / wanted

    def _known(self) -> str:
        if not self.is_there:
            raise StoreError(f"{self.root} is not there")
        try:
            return ", ".join(self.names()) or "none"
        except OSError as error:
            raise StoreError(f"{self.root}: cannot be read: {error.strerror}") from error

    # --- changing -------------------------------------------------------------------------------------

    def promote(self, name: str, version: str) -> None:
        """Makes a version the live one; the one that was becomes `previous`.

        Args:
            name: of the model.
            version: or an alias of it: `previous` goes back.

        Raises:
            UnknownVersionError: the version is not in the store.
            StoreWriteError: the alias cannot be written; it is as it was.
        """
        version = self.folder(name, version).name
        if self.aliases(name).get(LIVE) == version:
            return
        with self._changing(name):
            version, versions, aliases = self.folder(name, version).name, self.versions(name), self.aliases(name)
            before = aliases.get(LIVE, versions[-1])
            if before != version and before in versions:
                aliases[PREVIOUS] = before
            aliases[LIVE] = version
            text = msgspec.json.format(msgspec.json.encode(aliases), indent=1) + b"\n"
            replace_file(self.root / name / ALIASES, text)

    def prune(self, name: str, keep: int) -> list[str]:
        """Removes a model's old versions, none that an alias names.

        A version loses its name before its files, so that nobody finds half of one; what a killed process left of
        that is removed too.

        Args:
            name: of the model.
            keep: how many of the newest to leave, at least 1.

        Returns:
            The versions that are gone.

        Raises:
            StoreWriteError: one of them cannot be removed.
        """
        with self._changing(name):
            named = set(self.aliases(name).values())
            gone = [version for version in self.versions(name)[:-keep] if version not in named]
            folder = self.root / name
            for version in gone:
                (folder / version).rename(folder / f"{_REMOVED}{version}-{secrets.token_hex(4)}")
            sync_folder(folder)  # else a power failure could give a name back to half of a version
            for leftover in folder.glob(f"{_REMOVED}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            return gone

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Keeps a model's aliases and versions from being changed by others meanwhile."""
        try:
            with locked(self.root / name):
                yield
        except OSError as error:
            raise StoreWriteError(
                f"model '{name}' in {self.root} cannot be changed: {error.strerror or error}"
            ) from error


def _may_be(is_so: Callable[[], bool]) -> bool:
    """Whether something is so; also where that cannot be told: whoever reads it then says why, and of it alone."""
    try:
        return is_so()
    except OSError:
        return True


def find_bundle(reference: str, models: Path) -> Path:
    """The folder that a command's BUNDLE means: a folder, else `NAME[@version|@alias]` in the store.

    Raises:
        StoreError: neither.
    """
    folder = Path(reference)
    if (folder / MANIFEST).is_file():
        return folder
    if "/" not in reference:
        return Store(models).find(reference)
    if NAME.fullmatch(folder.name):
        return Store(folder.parent).find(folder.name)
    raise StoreError(f"{reference}: no bundle there: {MANIFEST} is missing")
