"""Ten minutes of coverage-guided fuzzing, shared by all targets: `python -m benchmarks.fuzzing --seconds 600`.

What is found stays in build/fuzz; it becomes a seed in tests/fuzz/found, and so a test, together with its repair.
"""

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import markdown_table, write_report

_ROOT = Path(__file__).parents[1]
_ARTIFACTS = _ROOT / "build" / "fuzz"
# More time where there is more to find.
SHARES = {
    "records": 3,
    "request": 2,
    "protocol": 2,
    "lines": 1,
    "csv": 1,
    "arrow": 1,
    "bundle": 1,
    "graph": 1,
    "schema": 1,
    "objects": 0.5,
    "query": 0.5,
}


@dataclass(frozen=True)
class Fuzzed:
    """What became of one target.

    Attributes:
        target: its name.
        seconds: that it was fuzzed.
        n_inputs: that were tried.
        coverage: places of the code that were reached, as libFuzzer counts them.
        is_clean: no input broke a promise.
    """

    target: str
    seconds: int
    n_inputs: int
    coverage: int
    is_clean: bool


def fuzzed(target: str, seconds: int, seed: int) -> Fuzzed:
    """Fuzzes a target in a process of its own, which a crash ends."""
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--artifacts", str(_ARTIFACTS)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 120,
        check=False,
    )
    output = done.stdout + done.stderr
    if done.returncode:
        print(f"{target} ended with {done.returncode}", done.stdout[-3_000:], done.stderr[-3_000:], sep="\n")
    return Fuzzed(
        target,
        seconds,
        _last(r"number_of_executed_units: (\d+)", output),
        _last(r"cov: (\d+)", output),
        not done.returncode,
    )


def _last(pattern: str, output: str) -> int:
    found = re.findall(pattern, output)
    return int(found[-1]) if found else 0


def main(arguments: list[str]) -> int:
    """Fuzzes all targets, writes what was found, and returns 1 where that is anything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzzing")
    parser.add_argument("--seconds", type=int, default=600, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    found = []
    for target, share in SHARES.items():
        found.append(fuzzed(target, max(1, round(options.seconds * share / sum(SHARES.values()))), options.seed))
        print(found[-1], flush=True)
    n_findings = sum(not it.is_clean for it in found)
    print(f"0 findings open: {'held' if not n_findings else f'MISSED, {n_findings}: see build/fuzz'}")
    rows = [(it.target, it.seconds, f"{it.n_inputs:,}", it.coverage, "no" if it.is_clean else "YES") for it in found]
    table = markdown_table(["target", "seconds", "inputs", "places reached", "a finding"], rows)
    body = (
        f"atheris, {options.seconds} s in all, findings: {n_findings}. What each target promises is in tests/fuzz.\n\n"
    )
    figures = {
        "seconds": options.seconds,
        "seed": options.seed,
        "findings": n_findings,
        "targets": [vars(it) for it in found],
    }
    write_report("fuzzing", "Coverage-guided fuzzing", f"make fuzz SECONDS={options.seconds}", figures, body + table)
    return int(n_findings > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
