"""A closed loop of requests: each connection sends its next one when it has the answer to the last."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.serving.process import LOAD_CORE

_SCRIPT = Path(__file__).with_suffix(".lua")


class Load(msgspec.Struct, frozen=True):
    """What wrk saw.

    Attributes:
        n_requests: answered, with whatever status.
        seconds: that it took.
        p50_ms: median latency.
        p99_ms: of the latency.
        n_refused: answers of status 400 and above.
        n_broken: connections that were refused or cut, and answers that did not come.
    """

    n_requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    n_refused: int
    n_broken: int


def loaded(url: str, body: Path, headers: Mapping[str, str], n_connections: int, seconds: int) -> Load:
    """Posts one body again and again, from the core that servers are not on."""
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{n_connections}", f"-d{seconds}s", "--timeout", "20s"]
    lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
    environment = os.environ | {"BODY": str(body), "HEADERS": lines}
    run = subprocess.run(
        [*command, "--latency", "-s", _SCRIPT, url], env=environment, capture_output=True, text=True, check=True
    )
    return load_of(run.stdout)


def load_of(output: str) -> Load:
    """What wrk printed: its own words, and the script's line of JSON."""
    return msgspec.json.decode(next(line for line in output.splitlines() if line.startswith("{")), type=Load)
