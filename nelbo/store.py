"""Where bundles live: `models/<name>/<version>/`, and `aliases.json` that says which version is live."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from nelbo.bundle import MANIFEST, NAME, replace_file
from nelbo.errors import StoreError

ALIASES = "aliases.json"
LIVE, PREVIOUS = "live", "previous"


@dataclass(frozen=True)
class Store:
    """A folder of models.

    Args:
        root: `models/`.
    """

    root: Path

    def names(self) -> list[str]:
        """The models that have at least one version."""
        if not self.root.is_dir():
            return []
        found = sorted(path.name for path in self.root.iterdir() if path.is_dir() and NAME.fullmatch(path.name))
        return [name for name in found if self.versions(name)]

    def versions(self, name: str) -> list[str]:
        """A model's versions, oldest first; unfinished exports are none."""
        folder = self.root / name
        if NAME.fullmatch(name) is None or not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and (p / MANIFEST).is_file())

    def aliases(self, name: str) -> dict[str, str]:
        """Version by alias.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        path = self.root / name / ALIASES
        if path.exists() and not path.is_file():  # a pipe would keep us waiting
            raise StoreError(f"{path}: expected a file")
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def live(self, name: str) -> Path:
        """The folder of a model's live version, or of its newest where no alias says.

        Raises:
            StoreError: there is no such model, or its alias points nowhere.
        """
        version = self.aliases(name).get(LIVE) if name in self.names() else None
        return self.find(f"{name}@{version}" if version else name)

    def find(self, reference: str) -> Path:
        """The folder of `NAME`, `NAME@version`, `NAME@alias`; `NAME` alone is the live version.

        Raises:
            StoreError: there is none; the text lists what there is.
        """
        name, _, version = reference.partition("@")
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise StoreError(f"no model '{name}' in {self.root}; there: {known}")
        aliases = self.aliases(name)
        wanted = aliases.get(version or LIVE, version or versions[-1])
        if wanted not in versions:
            raise StoreError(
                f"model '{name}' in {self.root} has no version '{wanted}'; there: {', '.join(versions)}"
                + (f"; aliases: {', '.join(sorted(aliases))}" if aliases else "")
            )
        return self.root / name / wanted

    def promote(self, name: str, version: str) -> None:
        """Makes a version the live one; the one that was becomes `previous`.

        Args:
            name: of the model.
            version: or an alias of it.

        Raises:
            StoreError: the version is not in the store.
        """
        version = self.find(f"{name}@{version}").name
        aliases = self.aliases(name)
        if aliases.get(LIVE) == version:
            return
        if LIVE in aliases:
            aliases[PREVIOUS] = aliases[LIVE]
        aliases[LIVE] = version
        replace_file(self.root / name / ALIASES, msgspec.json.format(msgspec.json.encode(aliases), indent=1) + b"\n")


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
