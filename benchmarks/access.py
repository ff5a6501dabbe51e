"""What a key costs: processor time a request with an API key, over one without to a service that needs none.

python -m benchmarks.access [--rounds 40] [--seconds 1]

Two processes of the same kind serve the demo model, whose short requests make a key weigh most; `wrk` loads them from
the other core. A round loads each once, in one order and then in the other, and has a ratio of its own; the median of
many short rounds is what the rest of the machine disturbs least.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.serving.bodies import Body
from benchmarks.serving.process import Program, Server
from benchmarks.serving.rounds import running
from benchmarks.serving.targets import free_port
from benchmarks.serving.wrk import loaded
from nelbo.bundle import read_bundle
from nelbo.store import Store
from service.keys import new_key, write_keys

_MODELS, _NAME = Path(__file__).parents[1] / "models", "machines"
_PATH = f"/v1/models/{_NAME}/score"
_CONNECTIONS = 32
_MOST = 1.05  # what the project asks of itself
_N_OTHERS = 999  # keys beside the one that is sent; chosen: more than most files hold
OPEN, KEYED = "without a key", "with a key"


def measure(folder: Path, rounds: int, seconds: int) -> dict[str, list[float]]:
    """CPU time a request, µs, of each round.

    Raises:
        RuntimeError: a request was not answered, or with another status than 200.
    """
    record = read_bundle(Store(_MODELS).live(_NAME)).golden[0].record
    data = msgspec.json.encode({"records": [record]})
    now = datetime.now(UTC)
    text, key = new_key(["score"], "", now, None)
    write_keys(folder / "keys.json", [*(new_key(["score"], "", now, None)[1] for _ in range(_N_OTHERS)), key])
    bodies = {OPEN: Body(data), KEYED: Body(data, headers={"Authorization": f"Bearer {text}"})}
    programs = {OPEN: _program({}), KEYED: _program({"NELBO_KEYS": str(folder / "keys.json")})}
    found: dict[str, list[float]] = {OPEN: [], KEYED: []}
    with running(programs, {name: (_PATH, bodies[name]) for name in programs}, folder / "logs") as (servers, problems):
        if problems:
            raise RuntimeError("; ".join(problems.values()))
        for number in range(rounds + 1):
            for name in sorted(found, reverse=number % 2 == 1):
                cpu_us = _cpu_us(servers[name], bodies[name], folder, seconds)
                if number:  # the first one warms up
                    found[name].append(cpu_us)
    return found


def _cpu_us(server: Server, body: Body, folder: Path, seconds: int) -> float:
    headers = {"Content-Type": body.content_type, **body.headers}
    before = server.cpu_s()
    load = loaded(server.url + _PATH, body.kept_in(folder, "body"), headers, _CONNECTIONS, seconds)
    if load.n_refused or load.n_broken:
        raise RuntimeError(f"expected every request to be answered with 200, got {load}")
    return 1e6 * (server.cpu_s() - before) / load.n_requests


def _program(environment: dict[str, str]) -> Program:
    port = free_port()
    settings = {"NELBO_MODELS": str(_MODELS), "NELBO_PORT": str(port)}
    return Program([sys.executable, "-P", "-m", "service"], port, settings | environment)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the costs and their ratio; 1 where it misses what is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.access")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder), options.rounds, options.seconds)
    ratios = sorted(keyed / without for without, keyed in zip(costs[OPEN], costs[KEYED], strict=True))
    ratio, (low, _, high) = statistics.median(ratios), statistics.quantiles(ratios)
    passes = ratio <= _MOST
    sentence = (
        f"CPU a request with an API key over one without, {_CONNECTIONS} clients, {_N_OTHERS + 1:,} keys in the file: "
        f"{ratio:.3f}, half of {len(ratios)} rounds within {low:.3f} and {high:.3f} (asked for: at most {_MOST:g}): "
        f"{'passes' if passes else 'FAILS'}."
    )
    print(sentence)
    rows = [(name, f"{statistics.median(of):.1f}", f"{min(of):.1f}", f"{max(of):.1f}") for name, of in costs.items()]
    body = f"{sentence}\n\n{markdown_table(['', 'CPU a request, µs', 'lowest', 'highest'], rows)}"
    command = f"python -m benchmarks.access --rounds {options.rounds} --seconds {options.seconds}"
    found = {"ratio": ratio, "passes": passes, "cpu_us": costs}
    write_report("access", "What a key costs", command, found, body, results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())
