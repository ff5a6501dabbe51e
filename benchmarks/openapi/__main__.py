"""Thousands of requests a route, made from /openapi.json: `python -m benchmarks.openapi --cases 2000`.

Every answer is held to what the document declares: status, media type, schema, headers, methods; what fits its schema
is accepted, what does not is refused, and nothing is a failure of the service.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import write_report
from benchmarks.serving_process import serving, wait_until_ready

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Found:
    """What became of a run.

    Attributes:
        n_operations: that were tested.
        n_cases: that were generated.
        n_dropped: answers that no check judges: refused, or some of its records, for a reason that no schema can say.
        failures: a line each.
        output: all of what was printed.
    """

    n_operations: int
    n_cases: int
    n_dropped: int
    failures: tuple[str, ...]
    output: str


def run(url: str, n_cases: int, seed: int, timeout_s: float, path: str | None = None) -> Found:
    """Tests a service that is ready.

    Args:
        url: of its root.
        n_cases: the most a route and phase.
        seed: of what is generated.
        timeout_s: after which it is given up.
        path: of the document, to test alone; None for all.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color"]
    command += ["--max-examples", str(n_cases), "--seed", str(seed), "--continue-on-failure", "--no-shrink"]
    command += ["--generation-database", "none", "--request-timeout", "20"]
    command += [] if path is None else ["--include-path", path]
    hooks = {"SCHEMATHESIS_HOOKS": "benchmarks.openapi.hooks", "PYTHONPATH": str(_ROOT)}
    with tempfile.TemporaryDirectory() as folder:  # where it would leave its own
        done = subprocess.run(
            command, cwd=folder, env=os.environ | hooks, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    return found_in(done.stdout + done.stderr, done.returncode)


def found_in(output: str, code: int) -> Found:
    """What a run's output and exit code say."""
    tested = re.search(r"^ *Tested: (\d+)", output, re.MULTILINE)
    generated = re.search(r"([\d,]+) generated", output)
    failures = re.findall(r"^- (ST\d+ .*)$", output, re.MULTILINE)
    if code and not failures:
        failures = [f"schemathesis ended with {code}"]
    dropped = re.search(r"Filtered: ([\d,]+)", output)
    n_tested, n_generated, n_dropped = (int(it[1].replace(",", "")) if it else 0 for it in (tested, generated, dropped))
    return Found(n_tested, n_generated, n_dropped, tuple(failures), output)


def main(arguments: list[str]) -> int:
    """Runs it, writes what was found, and returns 1 where that is anything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openapi")
    parser.add_argument("--cases", type=int, default=2_000, help="of each route and phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", help="of the document, to test alone and without a report")
    parser.add_argument("--models", type=Path, default=Path("models"))
    options = parser.parse_args(arguments)
    with serving(options.models) as service:
        wait_until_ready(service.url)
        found = run(service.url, options.cases, options.seed, timeout_s=3600, path=options.path)
    print(found.output)
    figures = {
        "cases_a_route_and_phase": options.cases,
        "operations": found.n_operations,
        "cases": found.n_cases,
        "refused_beyond_a_schema": found.n_dropped,
        "findings": found.failures,
    }
    verdict = "held" if not found.failures else "MISSED"
    print(json.dumps(figures, indent=1))
    print(f"0 findings open: {verdict}")
    if options.path is not None:
        return int(bool(found.failures))
    body = (
        f"schemathesis made {found.n_cases:,} requests from /openapi.json, up to {options.cases:,} for each of "
        f"{found.n_operations} operations and phase, and held every answer to the document. Findings: "
        f"{len(found.failures)}. {found.n_dropped:,} were refused, or records of theirs, for reasons that no JSON "
        "schema can say (benchmarks/openapi/hooks.py lists them)."
    )
    command = f"make bench-openapi CASES={options.cases}"
    write_report("openapi", "Requests made from the OpenAPI document", command, figures, body)
    return int(bool(found.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
