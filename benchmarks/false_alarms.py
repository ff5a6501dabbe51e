"""Does the false-alarm rate hold? Fits on part of the normal records, counts alarms among the rest, over many seeds.

`python -m benchmarks.false_alarms TABLE --label COLUMN --normal VALUE [--seeds 20] [--rate 0.01]`

Each seed goes to a line of `results/false_alarms_<table>.jsonl`; a run that is started again skips those there.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.bundle import read_bundle
from nelbo.calibration import n_flagged_allowed
from nelbo.scoring import Scorer
from nelbo.tables import labels, open_table, read_batches, read_columns
from training.config import Config, read_config
from training.data import file_digest
from training.pipeline import Request, run

_HELD_OUT = 0.2  # of the normal records; chosen
_N_ERRORS = 3.0  # standard errors; a sound calibration fails this once in 370 runs


@dataclass(frozen=True)
class Seed:
    """One split's outcome.

    Attributes:
        seed: of the split and the fit.
        n_held_out: normal records that the bundle has not seen.
        n_flagged: of them.
        n_calibration: records of calibration-b.
        k: how many of these lie beyond the threshold, or on it.
    """

    seed: int
    n_held_out: int
    n_flagged: int
    n_calibration: int
    k: int

    @property
    def realised(self) -> float:
        """Share of the held-out records that were flagged."""
        return self.n_flagged / self.n_held_out

    @property
    def expected(self) -> float:
        """The rate that split-conformal calibration promises on average, without ties."""
        return self.k / (self.n_calibration + 1)

    @property
    def variance(self) -> float:
        """Of the count: BetaBinomial(n_held_out, k, n + 1 − k), since the calibration set is one draw too."""
        m, a, b = self.n_held_out, self.k, self.n_calibration + 1 - self.k
        return m * a * b * (a + b + m) / ((a + b) ** 2 * (a + b + 1))


@dataclass(frozen=True)
class Pooled:
    """All seeds together.

    Attributes:
        realised: flagged share of all held-out records.
        expected: likewise, as promised.
        standard_error: of `realised`, as if the seeds were independent.
    """

    realised: float
    expected: float
    standard_error: float

    @property
    def holds(self) -> bool:
        """Within three standard errors."""
        return abs(self.realised - self.expected) <= _N_ERRORS * self.standard_error


def pooled(seeds: Sequence[Seed]) -> Pooled:
    """The rate over all seeds, and how far from its expectation chance may take it.

    >>> rate = pooled([Seed(0, n_held_out=100, n_flagged=2, n_calibration=99, k=1)])
    >>> f"{rate.realised:.3f} {rate.expected:.3f} {rate.standard_error:.4f}"
    '0.020 0.010 0.0140'
    """
    total = sum(seed.n_held_out for seed in seeds)
    return Pooled(
        realised=sum(seed.n_flagged for seed in seeds) / total,
        expected=sum(seed.n_held_out * seed.expected for seed in seeds) / total,
        standard_error=sqrt(sum(seed.variance for seed in seeds)) / total,
    )


def measure(normal: pa.Table, seed: int, rate: float, config: Config) -> Seed:
    """Fits on four fifths of the normal records and scores the others through the bundle that this leaves.

    Args:
        normal: the normal records, without their label.
        seed: of the split and the fit.
        rate: the nominal false-alarm rate.
        config: of the fit.
    """
    # The third stream of this seed: the fit draws from the others.
    order = np.random.default_rng([seed, 7]).permutation(normal.num_rows)
    n_held_out = round(_HELD_OUT * normal.num_rows)
    with tempfile.TemporaryDirectory() as folder:
        rest = _written(normal, order[n_held_out:], Path(folder, "rest.parquet"))
        held_out = _written(normal, order[:n_held_out], Path(folder, "held_out.parquet"))
        fitted = run(Request(rest, "bench", Path(folder, "models"), config=config, seed=seed))
        scorer = Scorer(read_bundle(fitted.folder))
        batches = list(read_batches(open_table(held_out), scorer.decoder, 8192))
    decision = scorer.decider.decide(rate)
    n_faulty = sum(len(batch.errors) for batch in batches)
    assert n_faulty == 0, f"{n_faulty} held-out records cannot be read"
    n_flagged = sum(int(scorer.score(batch, decision).flagged.sum()) for batch in batches)
    return Seed(seed, n_held_out, n_flagged, scorer.decider.n, n_flagged_allowed(rate, scorer.decider.n))


def _written(table: pa.Table, rows: NDArray[np.int64], path: Path) -> Path:
    pq.write_table(table.take(pa.array(rows)), path)
    return path


def normal_records(path: Path, label: str, normal: str) -> pa.Table:
    """The normal records of a table, without their label."""
    table = open_table(path)
    rows = np.flatnonzero(labels(table, label, normal).is_normal)
    return read_columns(table).take(pa.array(rows)).drop_columns([label])


# --- seeds that are done ----------------------------------------------------------------------------


def sources_digest() -> str:
    """Of the code that decides: figures of another version are not resumed from."""
    root = Path(__file__).parents[1]
    files = sorted([*root.glob("nelbo/*.py"), *root.glob("training/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def done(path: Path, run_id: str) -> dict[int, Seed]:
    """The seeds in a file of JSON lines that belong to the same table, settings and code."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["seed"]["seed"]: Seed(**line["seed"]) for line in lines if line["run"] == run_id}


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a seed, then the pooled rate; 1 where the promise does not hold."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    settings = f"{options.label} {options.normal} {options.rate!r} {config.model_dump_json()}"
    run_id = hashlib.sha256(f"{file_digest(options.table)} {settings} {sources_digest()}".encode()).hexdigest()[:16]
    name = f"false_alarms_{options.table.stem}"
    results.mkdir(exist_ok=True)
    lines = results / f"{name}.jsonl"
    found = done(lines, run_id)
    normal = normal_records(options.table, options.label, options.normal)
    print("seed  held out  flagged  realised  expected")
    for seed in range(options.seeds):
        if seed not in found:
            found[seed] = measure(normal, seed, options.rate, config)
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": run_id, "seed": asdict(found[seed])}) + "\n")
        one = found[seed]
        figures = f"{one.n_flagged:7}  {one.realised:8.3%}  {one.expected:8.3%}"
        print(f"{seed:4}  {one.n_held_out:8}  {figures}", flush=True)
    return _conclude(name, options, [found[seed] for seed in range(options.seeds)], results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.false_alarms")
    parser.add_argument("table", type=Path)
    parser.add_argument("--label", required=True)
    parser.add_argument("--normal", required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the defaults if not given")
    return parser


def _conclude(name: str, options: argparse.Namespace, seeds: list[Seed], results: Path) -> int:
    rate = pooled(seeds)
    verdict = "holds" if rate.holds else "DOES NOT HOLD"
    distance = (rate.realised - rate.expected) / rate.standard_error
    sentence = (
        f"Pooled over {len(seeds)} seeds, {rate.realised:.3%} of the held-out normal records were flagged; expected "
        f"k/(n + 1) = {rate.expected:.3%}, standard error {rate.standard_error:.3%}: {distance:+.1f} standard errors, "
        f"so at three of them the promise {verdict}."
    )
    caution = (
        "The standard error is that of independent seeds. These share one table, so their held-out sets overlap, "
        "and so do their calibration sets: the true error is somewhat larger."
    )
    print(f"{sentence}\n{caution}")
    rows = [(s.seed, s.n_held_out, s.n_flagged, f"{s.realised:.3%}", f"{s.expected:.3%}") for s in seeds]
    table = markdown_table(["seed", "held out", "flagged", "realised rate", "expected"], rows)
    figures = {
        "rate": options.rate,
        "pooled": asdict(rate) | {"holds": rate.holds},
        "seeds": [asdict(seed) for seed in seeds],
    }
    command = (
        f"python -m benchmarks.false_alarms {options.table.name} --label {options.label} --normal {options.normal} "
        f"--seeds {options.seeds} --rate {options.rate:g}"
    )
    title = f"False alarms on {options.table.name} at a nominal rate of {options.rate:g}"
    write_report(name, title, command, figures, f"{sentence}\n{caution}\n\n{table}", results)
    return 0 if rate.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
