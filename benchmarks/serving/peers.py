"""Environments of the servers that are compared, one each. `python -m benchmarks.serving.peers [FOLDER]` makes them."""

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path("build/peers")
_LONGEST_S = 600
_ERROR = "error.txt"
# What each needs. FastAPI's own advice is the uvicorn that has uvloop and httptools; PyOD's VAE imports tqdm, and PyOD
# does not ask for it.
REQUIREMENTS = {
    "naive": ("fastapi", "uvicorn[standard]", "onnxruntime", "torch", "pyod", "tqdm", "joblib"),
    "mlserver": ("mlserver", "onnxruntime"),
    "bentoml": ("bentoml", "onnxruntime"),
    "litserve": ("litserve", "onnxruntime"),
}
_RUNTIMES = ("onnxruntime", "torch")
_VERSIONS = (
    "fastapi",
    "pydantic",
    "uvicorn",
    "uvloop",
    "torch",
    "pyod",
    "mlserver",
    "bentoml",
    "litserve",
    "onnxruntime",
)


def install(name: str, folder: Path) -> str | None:
    """Makes a peer's environment; one that is there already stays.

    Returns:
        Why that failed, or None.
    """
    place = folder / name
    if (place / _ERROR).exists() or not python(folder, name).exists():
        error = _made(name, place)
        if error is not None:
            (place / _ERROR).write_text(error, encoding="utf-8")
            return error
        (place / _ERROR).unlink(missing_ok=True)
    return None


def problem(folder: Path, name: str) -> str | None:
    """Why a peer cannot be started, or None."""
    error = folder / name / _ERROR
    if error.exists():
        return error.read_text(encoding="utf-8")
    return None if python(folder, name).exists() else "not installed: make bench-serving-peers"


def python(folder: Path, name: str) -> Path:
    """A peer's interpreter."""
    return folder.absolute() / name / "bin" / "python"


def versions(folder: Path, name: str) -> dict[str, str]:
    """What an environment holds, of what matters here."""
    if problem(folder, name) is not None:
        return {}
    listed = subprocess.run(
        [python(folder, name), "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    found = {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}
    return {package: found[package] for package in _VERSIONS if package in found}


def _made(name: str, place: Path) -> str | None:
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run(
            [*pip, *map(_as_here, REQUIREMENTS[name])], check=True, timeout=_LONGEST_S, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return f"not installed within {_LONGEST_S} s"
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().splitlines()[-1]
    return None


def _as_here(package: str) -> str:
    """The runtimes in the release that this environment has: only what is around them may differ."""
    return f"{package}=={importlib.metadata.version(package).partition('+')[0]}" if package in _RUNTIMES else package


def main(arguments: Sequence[str] | None = None) -> int:
    """Installs all; 1 where one of them will not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.peers", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = parser.parse_args(arguments).folder
    errors = {name: install(name, folder) for name in REQUIREMENTS}
    for name, error in errors.items():
        print(f"{name}: {error or versions(folder, name)}", flush=True)
    return 1 if any(errors.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
