"""What a key costs: processor time a request with an API key, over one without to a service that needs none.

python -m benchmarks.access [--rounds 8] [--seconds 3]

Two processes of the same kind serve the demo model, whose short requests make a key weigh most; they are loaded in
turn, round after round, by `wrk` from the other core.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.report import RESULTS, write_report
from benchmarks.serving.bodies import Body
from benchmarks.serving.process import Program
from benchmarks.serving.rounds import Cost, compared, running
from benchmarks.serving.single import table
from benchmarks.serving.targets import Target, free_port
from nelbo.bundle import read_bundle
from nelbo.store import Store
from service.keys import new_key, write_keys

_MODELS, _NAME = Path(__file__).parents[1] / "models", "machines"
_PATH = f"/v1/models/{_NAME}/score"
_CONNECTIONS = 32
_MOST = 1.05  # what the project asks of itself
_N_OTHERS = 999  # keys beside the one that is sent; chosen: more than most files hold
OPEN, KEYED = "without a key", "with a key"


def measure(folder: Path, rounds: int, seconds: int) -> list[Cost]:
    """Loads both."""
    record = read_bundle(Store(_MODELS).live(_NAME)).golden[0].record
    data = msgspec.json.encode({"records": [record]})
    now = datetime.now(UTC)
    text, key = new_key(["score"], "", now, None)
    write_keys(folder / "keys.json", [*(new_key(["score"], "", now, None)[1] for _ in range(_N_OTHERS)), key])
    bodies = {OPEN: Body(data), KEYED: Body(data, headers={"Authorization": f"Bearer {text}"})}
    programs = {OPEN: _program({}), KEYED: _program({"NELBO_KEYS": str(folder / "keys.json")})}
    targets = [Target(name, name, _PATH) for name in programs]
    with running(programs, {name: (_PATH, bodies[name]) for name in programs}, folder / "logs") as (servers, problems):
        if problems:
            raise SystemExit("\n".join(problems.values()))
        return compared(servers, targets, bodies, folder / "bodies", _CONNECTIONS, rounds, seconds)


def _program(environment: dict[str, str]) -> Program:
    port = free_port()
    settings = {"NELBO_MODELS": str(_MODELS), "NELBO_PORT": str(port)}
    return Program([sys.executable, "-P", "-m", "service"], port, settings | environment)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the costs and their ratio; 1 where it misses what is asked, or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.access")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder), options.rounds, options.seconds)
    without, keyed = costs
    ratio, n_failed = keyed.cpu_us / without.cpu_us, without.n_failed + keyed.n_failed
    passes = ratio <= _MOST and n_failed == 0
    sentence = (
        f"CPU a request with an API key over one without, {_CONNECTIONS} clients, {_N_OTHERS + 1:,} keys in the file: "
        f"{ratio:.3f} (asked for: at most {_MOST:g}); {n_failed} failed: {'passes' if passes else 'FAILS'}."
    )
    print(sentence)
    found = {"ratio": ratio, "passes": passes, "costs": [msgspec.to_builtins(cost) for cost in costs]}
    command = f"python -m benchmarks.access --rounds {options.rounds} --seconds {options.seconds}"
    write_report("access", "What a key costs", command, found, f"{sentence}\n\n{table(costs, 1)}", results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())
