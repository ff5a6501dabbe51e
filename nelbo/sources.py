"""Which code this is: the digest of its source files, and the revision of the checkout they are in."""

import hashlib
import importlib.metadata
import subprocess
from importlib.util import find_spec
from pathlib import Path

# What decides what a fit makes of a table. The service makes no bundle.
_PACKAGES = ("nelbo", "training")
_PATIENCE_S = 10.0


def version() -> str:
    """Of nelbo, as it is installed; "0" for a checkout that is not."""
    try:
        return importlib.metadata.version("nelbo")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def sources_digest() -> str:
    """SHA-256, in hex, of the list of source files and their digests.

    From the root of a checkout, the same is
    `find nelbo training -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    """
    files = {f"{package}/{path.relative_to(root)}": path for package, root in _roots() for path in root.rglob("*.py")}
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _roots() -> list[tuple[str, Path]]:
    found = []
    for package in _PACKAGES:
        spec = find_spec(package)  # finds it without importing it
        if spec is not None and spec.origin is not None:
            found.append((package, Path(spec.origin).parent))
    return found


def revision() -> str | None:
    """The commit of the checkout, with "-dirty" where files differ from it; None where there is no checkout or git."""
    checkout = _roots()[0][1].parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(  # noqa: S603  # no shell; git by the path that is searched for every command
            command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
