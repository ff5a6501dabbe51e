"""What a model of 30 numeric fields costs: the fit, the bundle on disk, one record on one core.

`python -m benchmarks.fit_cost [--repeat] [--config FILE.toml]`; with `--repeat` it fits twice with one seed and says
how far the scores differ.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.detectors import batches, fitted, statistics_of
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.bundle import Bundle
from nelbo.records import Batch
from nelbo.scoring import Scorer
from training.config import Config, read_config

_N_FIELDS, _N_CAUSES = 30, 6  # fields; what they have in common. Chosen
_WARM_UP = 200  # calls before the clock starts; chosen
_N_SCORED = 1_000  # records that two fits are compared on; chosen


def correlated_table(n: int, seed: int) -> pa.Table:
    """Thirty numbers of six causes and some noise of their own."""
    causes = np.random.default_rng(0).normal(size=(_N_CAUSES, _N_FIELDS))  # of the table, not of its records
    rng = np.random.default_rng([seed, 23])
    x = rng.normal(size=(n, _N_CAUSES)) @ causes + 0.3 * rng.normal(size=(n, _N_FIELDS))
    return pa.table({f"x{j}": x[:, j] for j in range(_N_FIELDS)})


def median_us(call: Callable[[], object], n: int, warm_up: int = _WARM_UP) -> float:
    """Median of the microseconds that a call takes, after a warm-up."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * 1e6


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process on one of its cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def bare_run(bundle: Bundle, batch: Batch) -> Callable[[], object]:
    """The graph of a bundle run on a batch, and nothing else."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
    hidden = np.zeros((len(batch), len(bundle.schema.fields)), dtype=np.bool_)
    known = {"numbers": batch.numbers, "codes": batch.codes, "hidden": hidden}
    feed = {node.name: known[node.name] for node in session.get_inputs()}  # without codes there is no such input
    return lambda: session.run(None, feed)


def largest_differences(one: Bundle, other: Bundle, table: Path) -> dict[str, float]:
    """Of each statistic, over the records of a file."""
    first, second = (statistics_of(Scorer(bundle), table) for bundle in (one, other))
    return {name: float(np.abs(first[name] - second[name]).max()) for name in first}


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the figures; 1 where two fits with one seed differ."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        normal = correlated_table(options.records, options.seed)
        fresh = folder / "fresh.parquet"
        pq.write_table(correlated_table(_N_SCORED, options.seed + 1), fresh)
        start = time.perf_counter()
        bundle = fitted(normal, folder, options.seed, config)
        figures: dict[str, float] = {"fit_s": round(time.perf_counter() - start, 1)}
        figures |= _sizes(folder) | _times(bundle, fresh, options.calls)
        if options.repeat:
            again = fitted(normal, folder, options.seed, config)
            figures |= {f"difference, {k}": v for k, v in largest_differences(bundle, again, fresh).items()}
    return _conclude(options, figures, results)


def _sizes(folder: Path) -> dict[str, float]:
    graph = next((folder / "models").glob("*/*/score.onnx"))
    files = [file for file in graph.parent.iterdir() if file.is_file()]
    return {
        "bundle_kb": round(sum(file.stat().st_size for file in files) / 1e3, 1),
        "score_onnx_kb": round(graph.stat().st_size / 1e3, 1),
    }


def _times(bundle: Bundle, records: Path, n: int) -> dict[str, float]:
    scorer = Scorer(bundle)
    batch = batches(scorer, records)[0]
    one = Batch(batch.numbers[:1], batch.codes[:1], batch.index[:1], [None], {})
    with one_core():
        score_us, bare_us = median_us(lambda: scorer.score(one), n), median_us(bare_run(bundle, one), n)
    return {"score_us": round(score_us, 1), "bare_run_us": round(bare_us, 1)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit_cost")
    parser.add_argument("--records", type=int, default=10_000, help="to fit on; 10,000 if not given")
    parser.add_argument("--calls", type=int, default=5_000, help="of the scorer, for the median; 5,000 if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", action="store_true", help="fit twice and compare the scores")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    return parser


_MEANING = {
    "fit_s": "fit, export and calibration, s",
    "bundle_kb": "bundle on disk, kB",
    "score_onnx_kb": "`score.onnx`, kB",
    "score_us": "one record through `Scorer.score`, µs (median)",
    "bare_run_us": "one record through the bare graph, µs (median)",
}


def _conclude(options: argparse.Namespace, figures: dict[str, float], results: Path) -> int:
    rows = [(_MEANING.get(name, f"two fits, one seed: largest {name}"), value) for name, value in figures.items()]
    sentence = f"{options.records:,} synthetic records of {_N_FIELDS} correlated numbers; records scored on one core."
    body = f"{sentence}\n\n{markdown_table(['what', 'figure'], rows)}"
    print(body)
    command = f"python -m benchmarks.fit_cost --records {options.records} --calls {options.calls} --seed {options.seed}"
    command += " --repeat" if options.repeat else ""
    command += "" if options.config is None else f" --config {options.config.name}"
    config = None if options.config is None else read_config(options.config).model_dump(mode="json")
    found = {"config": config, "figures": figures}
    write_report("fit_cost", f"Cost of a model of {_N_FIELDS} numeric fields", command, found, body, results)
    return 1 if any(value for name, value in figures.items() if name.startswith("difference")) else 0


if __name__ == "__main__":
    raise SystemExit(main())
