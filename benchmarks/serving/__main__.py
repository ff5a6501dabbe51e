"""What serving costs, beside the floor, its own parts alone, and peers. `make bench-serving`."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from benchmarks.machine import machine
from benchmarks.report import RESULTS, write_report
from benchmarks.serving import decoding, latency, overload, peers, single, start, thousand
from benchmarks.serving.bars import Bar
from benchmarks.serving.model import bundle
from benchmarks.serving.page import bars_table, put_into
from benchmarks.serving.process import LOAD_CORE
from benchmarks.serving.setup import Setup
from benchmarks.serving.targets import Place

_PARTS: dict[str, ModuleType] = {
    "single": single,
    "thousand": thousand,
    "decoding": decoding,
    "latency": latency,
    "overload": overload,
    "start": start,
}
_DOCS = Path(__file__).parents[2] / "docs" / "speed.md"
_INTRO = (
    "CPU is that of the server's whole process tree, divided by the requests that it answered. Ratios are of one run, "
    "in which all servers stand ready and are loaded in turn, so that what else the machine does hits all alike. The "
    "load runs on one core, the servers on another. [How to read it](../../docs/speed.md)"
)


class Kept(msgspec.Struct):
    """What is known of one part.

    Attributes:
        machine: what it was measured on, and when.
        bundle: which one.
        took_s: how long.
        found: its figures.
    """

    machine: dict[str, Any]
    bundle: str
    took_s: float
    found: Any


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Measures, writes the page, and puts the bars into the docs; 1 where one of them is not met."""
    options = _options(arguments)
    folder = options.folder.absolute()
    setup = Setup(
        Place(folder, options.peers.absolute()), bundle(folder), rounds=options.rounds, seconds=options.seconds
    )
    measured_on = machine()  # before any result is written, which would change the revision
    kept = _kept(results / "serving.json", set(_PARTS) - set(options.only))
    failed: list[str] = []
    for name in options.only:
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            kept[name] = _measured(_PARTS[name], setup, measured_on)
        except Exception:  # the edge of this program: one part that fails does not cost the others' minutes
            traceback.print_exc()
            failed.append(name)
    bars = _written(kept, results)
    print(bars_table(bars))
    is_met = all(bar.verdict == "met" for of_part in bars.values() for bar in of_part)
    return 0 if is_met and not failed else 1


def _written(kept: Mapping[str, Kept], results: Path) -> dict[str, list[Bar]]:
    """Writes the results; returns the bars by title."""
    parts = {name: module for name, module in _PARTS.items() if name in kept}
    bars: dict[str, list[Bar]] = {module.TITLE: module.bars(kept[name].found) for name, module in parts.items()}
    found = {
        "bars": [
            {"part": title, **msgspec.to_builtins(bar), "verdict": bar.verdict}
            for title, of_part in bars.items()
            for bar in of_part
        ],
        "parts": {name: msgspec.to_builtins(part, str_keys=True) for name, part in kept.items()},
    }
    table = bars_table(bars)
    body = "\n\n".join([_INTRO, table, *(_section(module, kept[name]) for name, module in parts.items())])
    write_report("serving", "Speed of serving", "make bench-serving", found, body, results)
    if results == RESULTS:
        put_into(_DOCS, table)
    return bars


def _measured(part: ModuleType, setup: Setup, measured_on: dict[str, Any]) -> Kept:
    cores, before = os.sched_getaffinity(0), time.perf_counter()
    os.sched_setaffinity(0, {LOAD_CORE})  # what is started here and not told otherwise stays off the servers' core
    try:
        found = part.measure(setup)
    finally:
        os.sched_setaffinity(0, cores)
    return Kept(measured_on, setup.bundle.label, round(time.perf_counter() - before, 1), found)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(_PARTS), default=list(_PARTS), help="parts to measure anew")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="of each load in each round")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/serving"), help="of the bundle and the servers' logs"
    )
    parser.add_argument("--peers", type=Path, default=peers.FOLDER, help="of their environments")
    return parser.parse_args(arguments)


def _kept(path: Path, names: Set[str]) -> dict[str, Kept]:
    """What earlier runs found of these parts."""
    if not path.exists():
        return {}
    parts: Mapping[str, Kept] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])["parts"]
    kept = {name: msgspec.convert(part, Kept) for name, part in parts.items() if name in names}
    for name, part in kept.items():
        part.found = msgspec.convert(part.found, _PARTS[name].Found, str_keys=True)
    return kept


def _section(module: ModuleType, kept: Kept) -> str:
    measured = kept.machine
    when = f"Measured on {measured['date']}, revision {measured['revision']}, `{kept.bundle}`, in {kept.took_s:.0f} s."
    return f"## {module.TITLE}\n\n{module.section(kept.found)}\n\n{when}"


if __name__ == "__main__":
    sys.exit(main())
