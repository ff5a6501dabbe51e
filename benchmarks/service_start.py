"""How long a service takes to its first answer, how much memory it holds, and whether torch is in it.

python -m benchmarks.service_start [--model machines] [--models models] [--starts 5]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import msgspec

from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.serving_process import serving
from nelbo.bundle import read_bundle
from nelbo.store import Store

_LONGEST_S, _MOST_MB = 1.5, 120.0  # what the project asks of itself
_POLL_S = 0.005


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        first_answer_s: from the start of the process to the first answered POST, in steps of 5 ms.
        pss_mb: proportional set size after that answer, MB of 10⁶ bytes; smaller where other processes on the
            machine share libraries with this one.
        rss_mb: resident set size, which counts shared pages whole.
        has_torch: a file of torch is mapped into the process.
    """

    first_answer_s: float
    pss_mb: float
    rss_mb: float
    has_torch: bool


def measure(models: Path, name: str) -> Start:
    """Starts a service and asks it once."""
    record = read_bundle(Store(models).live(name)).golden[0].record
    body = msgspec.json.encode({"records": [record]})
    started = time.perf_counter()
    with serving(models) as service:
        _answered(f"{service.url}/v1/models/{name}/score", body)
        first_answer_s = time.perf_counter() - started
        of_process = Path("/proc", str(service.process.pid))
        maps = (of_process / "maps").read_text(encoding="utf-8")
        return Start(round(first_answer_s, 3), _mb(of_process, "Pss"), _mb(of_process, "Rss"), "/torch/" in maps)


def _answered(url: str, body: bytes) -> None:
    """Posts until there is an answer: until the model is loaded it is 503."""
    headers = {"content-type": "application/json"}
    with httpx.Client() as client:
        while client.post(url, content=body, headers=headers).status_code != 200:
            time.sleep(_POLL_S)


def _mb(of_process: Path, name: str) -> float:
    lines = (of_process / "smaps_rollup").read_text(encoding="utf-8").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return round(kib * 1024 / 1e6, 1)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a start and the medians; 1 where they miss what is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_start")
    parser.add_argument("--model", default="machines")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        # One model, whatever else the store holds.
        shutil.copytree(options.models / options.model, Path(folder, options.model))
        starts = []
        for _ in range(options.starts):
            starts.append(measure(Path(folder), options.model))
            print(starts[-1], flush=True)
    first_answer_s = statistics.median(start.first_answer_s for start in starts)
    pss_mb = statistics.median(start.pss_mb for start in starts)
    has_torch = any(start.has_torch for start in starts)
    passes = first_answer_s <= _LONGEST_S and pss_mb <= _MOST_MB and not has_torch
    sentence = (
        f"Median of {len(starts)} starts with the model `{options.model}`: first answer after {first_answer_s:.2f} s "
        f"(asked for: {_LONGEST_S:g}), {pss_mb:.0f} MB PSS (asked for: {_MOST_MB:g}), "
        f"{'torch is' if has_torch else 'no torch'} in the process: {'passes' if passes else 'FAILS'}."
    )
    print(sentence)
    rows = [
        (f"{start.first_answer_s:.3f}", f"{start.pss_mb:.1f}", f"{start.rss_mb:.1f}", start.has_torch)
        for start in starts
    ]
    body = f"{sentence}\n\n{markdown_table(['first answer, s', 'PSS, MB', 'RSS, MB', 'torch'], rows)}"
    found = {
        "first_answer_s": first_answer_s,
        "pss_mb": pss_mb,
        "has_torch": has_torch,
        "passes": passes,
        "starts": [asdict(start) for start in starts],
    }
    command = f"python -m benchmarks.service_start --model {options.model} --starts {options.starts}"
    write_report("service_start", "Start of the service", command, found, body, results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())
