"""Known vulnerabilities of what is pinned: pip-audit, believed only where it could look things up.

pip-audit ends with 0 when it skipped every library, and so it does when a mirror knows each of them and the
vulnerabilities of none. Here a library that was skipped is a finding, and so is a service that does not know of a
vulnerability that everybody knows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from supply.pins import Pin, read_pins

# The example in pip-audit's own manual, vulnerable since 2018. Nothing here uses it.
_CANARY = Pin("flask", "0.5")
_PATIENCE_S = 600


def findings(report: dict[str, Any], asked: Iterable[Pin]) -> list[str]:
    """What speaks against the libraries that were asked about, or against the answer itself; empty if nothing does.

    Args:
        report: pip-audit's, as it writes it with `--format json`.
        asked: what it was to look up, the canary aside.
    """
    answers = {entry["name"]: entry for entry in report["dependencies"]}
    found = [_finding(pin, answers.get(pin.name)) for pin in sorted(asked, key=lambda pin: pin.name)]
    if not answers.get(_CANARY.name, {}).get("vulns"):
        found.append(
            f"the service knows no vulnerability of {_CANARY.name} {_CANARY.version}, which has had some for years: "
            "it looks nothing up, and that it knows none of the others means nothing"
        )
    return [text for text in found if text is not None]


def _finding(pin: Pin, answer: dict[str, Any] | None) -> str | None:
    if answer is None:
        return f"{pin.name} {pin.version}: not looked up; the report does not name it"
    if "skip_reason" in answer:
        return f"{pin.name} {pin.version}: not looked up; {answer['skip_reason']}"
    if answer["version"] != pin.version:
        return f"{pin.name} {pin.version}: not looked up; the report is about {answer['version']}"
    known = [f"{vuln['id']} (fixed in {', '.join(vuln['fix_versions']) or 'no version'})" for vuln in answer["vulns"]]
    return f"{pin.name} {pin.version}: {'; '.join(known)}" if known else None


def pip_audit(pins: Iterable[Pin], options: Sequence[str]) -> dict[str, Any]:
    """The report of the real one, canary included.

    Raises:
        RuntimeError: it wrote none, which it does when it reaches no service; the text ends with its last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "asked.txt"), Path(folder, "answered.json")
        asked.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in (*pins, _CANARY)), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(asked), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--output", str(answered), "--progress-spinner", "off", *options]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)  # noqa: S603  # no shell
        if not answered.exists():
            last = ended.stderr.strip().splitlines()[-1:] or ["no word"]
            raise RuntimeError(f"pip-audit ended with {ended.returncode} and without a report: {last[0]}")
        report: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        return report


def main(arguments: Sequence[str] | None = None) -> int:
    """What it exits with: 0 when each library was looked up and none is known to be vulnerable, else 1."""
    parser = argparse.ArgumentParser(prog="supply.audit", description="pip-audit, and whether it looked anything up")
    parser.add_argument("files", nargs="+", type=Path, help="locks and constraints; all their pins are looked up")
    chosen, options = parser.parse_known_args(arguments)
    pins = {pin for path in chosen.files for pin in read_pins(path).values()}
    unique = {Pin(pin.name, pin.version) for pin in pins}
    try:
        found = findings(pip_audit(unique, options), unique)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        found = [f"nothing was looked up: {error}"]
    sys.stdout.write("\n".join([*found, f"libraries: {len(unique)}, findings: {len(found)}", ""]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
