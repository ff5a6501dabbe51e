"""The bill of materials of an environment: each library, its licence, the digest of the file it came from."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from supply.pins import normalised

# Their metadata name none that a program can read. Read from their licence files, November 2026.
_LICENCES = {"protobuf": "BSD-3-Clause", "pysimdjson": "MIT"}
_PATIENCE_S = 300


def digests(report: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the file that each library came from, by normalised name.

    Args:
        report: what `pip install --report` wrote.
    """
    archives = {entry["metadata"]["name"]: entry["download_info"].get("archive_info") for entry in report["install"]}
    return {normalised(name): _digest(archive) for name, archive in archives.items() if archive is not None}


def _digest(archive: Mapping[str, Any]) -> str:
    # pip 23.0, Debian 12's, writes the first form alone, later ones both, and the first one is deprecated.
    first: str = archive.get("hash", "").removeprefix("sha256=")
    return first or archive["hashes"]["sha256"]


def completed(bill: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The bill with the digests, and with the licences that metadata do not name.

    Args:
        bill: CycloneDX, of `cyclonedx-py environment`.
        known: SHA-256 by normalised name.
    """
    for component in [bill["metadata"]["component"], *bill.get("components", [])]:
        name = normalised(component["name"])
        if name in known:
            component["hashes"] = [{"alg": "SHA-256", "content": known[name]}]
        if name in _LICENCES:
            component.setdefault("licenses", [{"license": {"id": _LICENCES[name], "acknowledgement": "concluded"}}])
    return bill


def of_environment(python: Path, project: Path) -> dict[str, Any]:
    """CycloneDX of what this interpreter finds installed, without the digests.

    Args:
        python: the environment's interpreter.
        project: the `pyproject.toml` of what the bill is about.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python), "--pyproject", str(project)]
    command += ["--output-reproducible", "--no-validate", "--output-file", "-"]  # `write` does, when it is whole
    ended = subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE_S)  # noqa: S603  # no shell
    bill: dict[str, Any] = json.loads(ended.stdout)
    return bill


def write(bill: dict[str, Any], path: Path) -> None:
    """Writes a bill that is one.

    Raises:
        ValueError: it is none by CycloneDX's schema, and nothing is written; the text says where.
    """
    text = json.dumps(bill, indent=1) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ValueError(f"{path}: not CycloneDX 1.6: {wrong}")
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The bill of one environment, from the command line."""
    parser = argparse.ArgumentParser(prog="supply.sbom", description=__doc__)
    parser.add_argument("python", type=Path, help="the environment's interpreter")
    parser.add_argument("--reports", type=Path, nargs="+", required=True, help="what `pip install --report` wrote")
    parser.add_argument("--project", type=Path, default=Path("pyproject.toml"))
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    known: dict[str, str] = {}
    for report in chosen.reports:
        known |= digests(json.loads(report.read_text(encoding="utf-8")))
    write(completed(of_environment(chosen.python, chosen.project), known), chosen.output)


if __name__ == "__main__":
    main()
