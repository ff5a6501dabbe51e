"""What `nelbo score` takes for a file of 30 numbers a record, beside onnxruntime alone on the same batches.

python -m benchmarks.score_files [--rows 10000000] [--text-rows 1000000] [--spread-rows 300000] [--only MEASURE]

The processor's time counts, of one core. The command is halted again and again, and meanwhile the bare session runs on
the same core, over records of the same file: so both meet the same machine.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks.fit_cost import correlated_table
from benchmarks.machine import machine
from benchmarks.report import RESULTS, markdown_table, write_report

_BUILD = Path("build/score_files")
_N_FIT = 20_000
_CHUNK = 1_000_000  # records that are made at once, and in a row group, as most writers have it
_N_ALONE = 100_000  # records of a round of the bare session
_N_ROUNDS = 5
_LEAST, _MOST_GB = 0.5, 1.0  # what the project asks of itself


@dataclass(frozen=True)
class Run:
    """What a command took.

    Attributes:
        cpu_s: processor's seconds, of user and system.
        wall_s: seconds, without those in which it was halted.
        peak_gb: of memory, resident.
        alone_us: processor's microseconds a record of the bare session, of each round meanwhile.
    """

    cpu_s: float
    wall_s: float
    peak_gb: float
    alone_us: list[float]


def bundle() -> Path:
    """A bundle of the default fit."""
    models = _BUILD / "models"
    if not models.exists():
        models.mkdir(parents=True)
        pq.write_table(correlated_table(_N_FIT, 0), _BUILD / "fit.parquet")
        subprocess.run([*_nelbo(), "fit", _BUILD / "fit.parquet", "--name", "files", "--models", models], check=True)
    return next(path for path in (models / "files").iterdir() if path.is_dir())


def table(n_rows: int, suffix: str) -> Path:
    """A table of so many records, made chunk by chunk."""
    path = _BUILD / f"records-{n_rows}{suffix}"
    _BUILD.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        partial = path.with_name("partial")
        {".parquet": _write_parquet, ".csv": _write_csv, ".ndjson": _write_ndjson}[suffix](partial, n_rows)
        partial.rename(path)
    return path


def _chunks(n_rows: int) -> Iterator[pa.Table]:
    for i, start in enumerate(range(0, n_rows, _CHUNK)):
        yield correlated_table(min(_CHUNK, n_rows - start), 1_000 + i)


def _write_parquet(path: Path, n_rows: int) -> None:
    with pq.ParquetWriter(path, correlated_table(1, 0).schema) as file:
        for chunk in _chunks(n_rows):
            file.write_table(chunk)


def _write_csv(path: Path, n_rows: int) -> None:
    with pa_csv.CSVWriter(path, correlated_table(1, 0).schema) as file:
        for chunk in _chunks(n_rows):
            file.write_table(chunk)


def _write_ndjson(path: Path, n_rows: int) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for chunk in _chunks(n_rows):
            for batch in chunk.to_batches(10_000):
                file.write(encoder.encode_lines(batch.to_pylist()))


def _nelbo() -> list[str]:
    return [sys.executable, "-c", "from nelbo.cli import main; main()"]


def scored(
    path: Path, suffix: str, *options: str, core: int | None, round_s: float | None = None, n_rows: int = 0
) -> Run:
    """A run of `nelbo score`, on one core or on all; halted after each `round_s` of its own for the bare session."""
    output = _BUILD / f"out{suffix}"
    command = [*_nelbo(), "score", str(bundle()), str(path), "-o", str(output), *options]
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    shutil.rmtree(_BUILD / f".out{suffix}.partial", ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen([*pinned, *command], stderr=subprocess.DEVNULL)
    alone: list[float] = []
    halted_s, peak_gb = 0.0, 0.0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.05)
        peak_gb = max(peak_gb, _peak_gb(process.pid))
        if round_s is not None and len(alone) < _N_ROUNDS and _cpu_s(process.pid) > (1 + len(alone)) * round_s:
            process.send_signal(signal.SIGSTOP)
            before = time.perf_counter()
            alone.append(_alone(path, (len(alone) * n_rows) // _N_ROUNDS, core))
            halted_s += time.perf_counter() - before
            process.send_signal(signal.SIGCONT)
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start - halted_s
    assert status == 0, f"nelbo score ended with {status}"
    output.unlink()
    return Run(used.ru_utime + used.ru_stime, wall_s, peak_gb, alone)


def _peak_gb(pid: int) -> float:
    """Memory that a process has had at most; what the kernel counts of its children would include ours before exec."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 / 1e9 if found else 0.0  # nothing of one that is ending


def _cpu_s(pid: int) -> float:
    """Seconds that a process has taken so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _alone(path: Path, first: int, core: int | None) -> float:
    """Microseconds a record of the bare session, on a core."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.session_alone"]
    arguments = [str(bundle()), str(path), str(first), str(_N_ALONE)]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout)) * 1e6


def against_alone(path: Path, n_rows: int, core: int, *options: str) -> dict[str, object]:
    """The command over a table beside the bare session."""
    # For rounds all through it, a guess of how long it takes: three times as long where records are explained.
    round_s = n_rows * (20e-6 if options else 60e-6) / (_N_ROUNDS + 1)
    run = scored(path, ".parquet", "--jobs", "1", *options, core=core, round_s=round_s, n_rows=n_rows)
    ours, alone = run.cpu_s / n_rows * 1e6, statistics.median(run.alone_us)
    return {
        "n": n_rows,
        "us_a_record": round(ours, 2),
        "session_alone_us": round(alone, 2),
        "session_alone_rounds_us": [round(value, 2) for value in run.alone_us],
        "ratio": round(alone / ours, 3),
        "peak_gb": round(run.peak_gb, 3),
        "wall_s": round(run.wall_s, 1),
    }


def of_text(suffix: str, n_rows: int, core: int) -> dict[str, object]:
    """The command over a table of text, into the same format, without explanations."""
    run = scored(table(n_rows, suffix), suffix, "--jobs", "1", "--no-explain", core=core)
    return {
        "n": n_rows,
        "us_a_record": round(run.cpu_s / n_rows * 1e6, 2),
        "records_a_core_second": round(n_rows / run.cpu_s),
        "peak_gb": round(run.peak_gb, 3),
    }


def spread(path: Path, n_rows: int) -> dict[str, object]:
    """All cores against one, alternating."""
    runs: dict[int, list[Run]] = {1: [], (os.cpu_count() or 1): []}
    for _ in range(3):
        for jobs, of in runs.items():
            of.append(scored(path, ".parquet", "--no-explain", "--jobs", str(jobs), core=None))
    one, all_ = (
        {key: statistics.median(asdict(run)[key] for run in of) for key in ("cpu_s", "wall_s")} for of in runs.values()
    )
    return {
        "n": n_rows,
        "jobs": max(runs),
        "wall_speed_up": round(one["wall_s"] / all_["wall_s"], 2),
        "cpu_ratio": round(all_["cpu_s"] / one["cpu_s"], 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Makes the tables, scores them, writes the figures; those that are there stay unless they are made again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--text-rows", type=int, default=1_000_000)
    parser.add_argument("--spread-rows", type=int, default=300_000)
    parser.add_argument("--only", choices=["none", "flagged", "csv", "ndjson", "spread"])
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    core = options.core
    measures = {
        "none": lambda: against_alone(table(options.rows, ".parquet"), options.rows, core, "--no-explain"),
        "flagged": lambda: against_alone(table(options.rows, ".parquet"), options.rows, core),
        "csv": lambda: of_text(".csv", options.text_rows, core),
        "ndjson": lambda: of_text(".ndjson", options.text_rows, core),
        "spread": lambda: spread(table(options.spread_rows, ".parquet"), options.spread_rows),
    }
    kept = RESULTS / "score_files.json"
    found = json.loads(kept.read_text()) if kept.exists() and options.only else {}
    found = {name: found[name] for name in measures if name in found}
    for name in [options.only] if options.only else measures:
        found[name] = measures[name]() | {"revision": machine()["revision"]}
        print(name, found[name], flush=True)
        write_report("score_files", "`nelbo score` over files", "make bench-score-files", found, _page(found))


def _page(found: dict[str, dict[str, object]]) -> str:
    rows = []
    for name, shown in (("none", "none (`--no-explain`)"), ("flagged", "flagged ones (the default)")):
        if name in found:
            of = found[name]
            is_fine = float(str(of["ratio"])) >= _LEAST and float(str(of["peak_gb"])) <= _MOST_GB
            cells = [shown, of["n"], of["us_a_record"], of["session_alone_us"], of["ratio"], of["peak_gb"]]
            rows.append([*cells, "yes" if is_fine else "no"])
    headings = ["explained", "records", "µs a record", "session alone, µs", "ratio", "peak GB", "≥ 0.5 and ≤ 1 GB"]
    parts = [f"Parquet to Parquet, one core, processor's time:\n\n{markdown_table(headings, rows)}"]
    rows = [
        [name.upper(), *(found[name][key] for key in ("n", "us_a_record", "records_a_core_second", "peak_gb"))]
        for name in ("csv", "ndjson")
        if name in found
    ]
    headings = ["format, in and out", "records", "µs a record", "records a core-second", "peak GB"]
    parts.append(f"Text, without explanations:\n\n{markdown_table(headings, rows)}")
    if "spread" in found:
        of = found["spread"]
        parts.append(
            f"{of['jobs']} processes over {of['n']} records take {of['cpu_ratio']} times the processor's time of one, "
            f"and are done {of['wall_speed_up']} times as fast, at a load average of {of['load_average']}."
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
