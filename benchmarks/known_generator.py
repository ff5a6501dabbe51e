"""Does the false-alarm rate hold where normal records never run out? Many fits of one known source, fresh records each.

`python -m benchmarks.known_generator [--seeds 20] [--fresh 100000]`

Each fit has records of its own, and each is asked for several rates, with and without a confidence. Each seed goes to
a line of `results/known_generator.jsonl`; a run that is started again skips those there.
"""

import argparse
import hashlib
import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import betabinom

from benchmarks.false_alarms import Pooled, Seed, pooled, sources_digest
from benchmarks.quality.detectors import batches, fitted
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.calibration import n_flagged_allowed
from nelbo.decision import n_flagged_with, needed
from nelbo.scoring import Scorer
from training.config import Config, read_config
from training.split import sizes

_NAME = "known_generator"
# Leaves 2,999 calibration records: 3,000 times each rate is whole, and 2,302 carry 0.1 % with 90 % confidence.
_N_RECORDS = 29_990
_N_FRESH = 100_000  # asked for
_N_ERRORS = 2.0  # standard errors of the share of runs above the rate; asked for
_NUMBERS = tuple(f"x{j}" for j in range(6))
_OFFSET = {"north": 0.0, "south": 4.0, "west": 10.0}  # of the torque, by line


@dataclass(frozen=True)
class Promise:
    """What is asked of a bundle.

    Attributes:
        rate: false-alarm rate.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.
    """

    rate: float
    confidence: float | None = None

    def __str__(self) -> str:
        return f"{100 * self.rate:g} %" + ("" if self.confidence is None else f" with confidence {self.confidence:g}")

    def k(self, n: int) -> int:
        """How many of n calibration records may lie beyond the threshold; 0 where they are too few."""
        if self.confidence is None:
            return n_flagged_allowed(self.rate, n)
        return n_flagged_with(self.rate, n, self.confidence)


PROMISES = tuple(Promise(rate, confidence) for confidence in (None, 0.9) for rate in (0.05, 0.01, 0.001))


def source(n: int, rng: np.random.Generator) -> pa.Table:
    """Six numbers of three causes, two with heavy tails, a number that a category shifts, missing values."""
    causes = np.random.default_rng(0).normal(size=(3, len(_NUMBERS)))  # of the source, not of its records
    z = rng.normal(size=(n, 3))
    x = z @ causes + 0.5 * rng.normal(size=(n, len(_NUMBERS)))
    line = rng.choice(list(_OFFSET), n, p=[0.5, 0.3, 0.2])
    torque = 40 + 3 * z[:, 0] + np.array([_OFFSET[name] for name in line]) + 0.5 * rng.normal(size=n)
    grade = np.where(z[:, 1] > 0.5, "fine", np.where(rng.random(n) < 0.4, "coarse", "usual"))
    grade = np.where(rng.random(n) < 0.002, "odd lot", grade)
    return pa.table(
        {
            **{name: x[:, j] for j, name in enumerate(_NUMBERS[:-1])},
            _NUMBERS[-1]: pa.array(x[:, -1], mask=rng.random(n) < 0.05),
            "line": line,
            "torque": pa.array(torque, mask=(line == "west") & (rng.random(n) < 0.2)),
            "delay": 2 * rng.standard_t(3, n) + z[:, 1],
            "flow": rng.lognormal(0.5 * z[:, 2], 0.8),
            "grade": pa.array(grade, mask=rng.random(n) < 0.01),
            "guarded": z[:, 1] + rng.normal(size=n) > 0,
        }
    )


def measure(seed: int, n_records: int, n_fresh: int, promises: Sequence[Promise], config: Config) -> list[Seed]:
    """Fits records of the source and counts alarms among fresh ones, for each promise.

    Args:
        seed: of the records and the fit.
        n_records: to fit on.
        n_fresh: normal records to score through the bundle.
        promises: that this many records carry.
        config: of the fit.
    """
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name, "fresh.parquet")
        pq.write_table(source(n_fresh, np.random.default_rng([seed, 91])), fresh)
        scorer = Scorer(fitted(source(n_records, np.random.default_rng([seed, 90])), Path(name), seed, config))
        p_values = np.concatenate([scorer.score(batch).p_values["score"] for batch in batches(scorer, fresh)])
    n = scorer.decider.n
    decisions = [scorer.decider.decide(promise.rate, promise.confidence) for promise in promises]
    flagged = [int((p_values <= decision.effective_rate).sum()) for decision in decisions]
    return [
        Seed(seed, n_fresh, n_flagged, n, promise.k(n)) for promise, n_flagged in zip(promises, flagged, strict=True)
    ]


# --- what the seeds say together ----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One promise over all runs.

    Attributes:
        promise: which.
        pooled: the rate of all runs together.
        n_runs: how many.
        n_above: of them, those whose realised rate is above the rate asked for.
        expected_above: share of runs of which that is expected: the count is beta-binomial.
    """

    promise: Promise
    pooled: Pooled
    n_runs: int
    n_above: int
    expected_above: float

    @property
    def most_above(self) -> float | None:
        """Share of runs that may be above the rate; None where nothing is promised of a single run."""
        if self.promise.confidence is None:
            return None
        share = 1.0 - self.promise.confidence
        return share + _N_ERRORS * sqrt(share * (1 - share) / self.n_runs)

    @property
    def holds(self) -> bool:
        """In the mean within three standard errors; with a confidence, as few runs above the rate as may be."""
        return self.pooled.holds if self.most_above is None else self.n_above / self.n_runs <= self.most_above


def outcome(promise: Promise, seeds: Sequence[Seed]) -> Outcome:
    """What the seeds say of a promise.

    >>> seeds = [Seed(seed, n_held_out=100, n_flagged=seed, n_calibration=99, k=1) for seed in range(4)]
    >>> outcome(Promise(0.01), seeds).n_above
    2
    """
    above = [
        float(
            betabinom.sf(
                n_flagged_allowed(promise.rate, s.n_held_out - 1), s.n_held_out, s.k, s.n_calibration + 1 - s.k
            )
        )
        for s in seeds
    ]
    n_above = sum(seed.realised > promise.rate for seed in seeds)
    return Outcome(promise, pooled(seeds), len(seeds), n_above, float(np.mean(above)))


# --- runs ---------------------------------------------------------------------------------------------


def done(path: Path, run_id: str) -> dict[int, list[Seed]]:
    """The seeds in a file of JSON lines that belong to the same settings and code."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["seed"]: [Seed(**one) for one in line["promises"]] for line in lines if line["run"] == run_id}


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a seed, then what holds; 1 where a promise does not."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    n = sizes(options.records)[1]
    promises = [promise for promise in PROMISES if promise.k(n)]
    settings = f"{options.records} {options.fresh} {promises!r} {config.model_dump_json()} {_own_digest()}"
    run_id = hashlib.sha256(f"{settings} {sources_digest()}".encode()).hexdigest()[:16]
    results.mkdir(exist_ok=True)
    lines = results / f"{_NAME}.jsonl"
    found = done(lines, run_id)
    print(f"seed  flagged of {options.fresh:,}, for {'; '.join(map(str, promises))}")
    for seed in range(options.seeds):
        if seed not in found:
            found[seed] = measure(seed, options.records, options.fresh, promises, config)
            line = {"run": run_id, "seed": seed, "promises": [asdict(one) for one in found[seed]]}
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        print(f"{seed:4}  {'  '.join(f'{one.n_flagged:6}' for one in found[seed])}", flush=True)
    by_promise = zip(*(found[seed] for seed in range(options.seeds)), strict=True)
    of_promises = {promise: list(seeds) for promise, seeds in zip(promises, by_promise, strict=True)}
    return _conclude(options, of_promises, n, results)


def _own_digest() -> str:
    """Of this file: another source has other records."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_generator")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--records", type=int, default=_N_RECORDS, help=f"to fit on; {_N_RECORDS:,} if not given")
    parser.add_argument("--fresh", type=int, default=_N_FRESH, help=f"to score; {_N_FRESH:,} if not given")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the defaults if not given")
    return parser


def _conclude(options: argparse.Namespace, of_promises: dict[Promise, list[Seed]], n: int, results: Path) -> int:
    outcomes = [outcome(promise, seeds) for promise, seeds in of_promises.items()]
    body = _page(options, outcomes, of_promises, n)
    print(body)
    words = ["python", "-m", "benchmarks.known_generator", "--seeds", options.seeds, "--records", options.records]
    words += ["--fresh", options.fresh, *([] if options.config is None else ["--config", options.config.name])]
    figures = {
        "config": None if options.config is None else read_config(options.config).model_dump(mode="json"),
        "promises": [
            asdict(one)
            | {"most_above": one.most_above, "holds": one.holds, "seeds": list(map(asdict, of_promises[one.promise]))}
            for one in outcomes
        ],
    }
    title = "False alarms among fresh records of a known source"
    write_report(_NAME, title, shlex.join(map(str, words)), figures, body, results)
    return 0 if all(one.holds for one in outcomes) else 1


def _page(
    options: argparse.Namespace, outcomes: Sequence[Outcome], of_promises: dict[Promise, list[Seed]], n: int
) -> str:
    network = "the default settings" if options.config is None else f"the settings of {options.config.name}"
    first = (
        f"{options.seeds} fits with {network} of {options.records:,} records each, {n:,} of which give the p-values; "
        f"then {options.fresh:,} fresh normal records through each bundle. Source: numbers that go together, heavy "
        "tails, a category that shifts a number, missing values. No run shares a record with another."
    )
    lost = [
        f"{promise} needs {needed(promise.rate, promise.confidence):,} calibration records and was not measured."
        for promise in PROMISES
        if promise not in of_promises
    ]
    mean = [
        (
            one.promise,
            of_promises[one.promise][0].k,
            f"{one.pooled.realised:.4%}",
            f"{one.pooled.expected:.4%}",
            f"{one.pooled.standard_error:.4%}",
            f"{(one.pooled.realised - one.pooled.expected) / one.pooled.standard_error:+.1f}",
            f"{one.n_above} of {one.n_runs}",
            f"{one.expected_above:.0%}",
            "" if one.most_above is None else f"{one.most_above:.1%}",
            "holds" if one.holds else "DOES NOT HOLD",
        )
        for one in outcomes
    ]
    headings = ["asked for", "k", "realised, all runs", "k/(n + 1)", "standard error", "standard errors off"]
    headings += ["runs above", "expected share", "may be", "verdict"]
    legend = (
        "The count of a run is beta-binomial, since its calibration set is one draw. A rate holds where all runs "
        "together are within three standard errors of k/(n + 1), with a confidence where no more runs are above the "
        "rate than one minus the confidence and two standard errors; without one, nothing is promised of a single run."
    )
    each = [
        (seed, *(f"{of_promises[one.promise][seed].realised:.3%}" for one in outcomes)) for seed in range(options.seeds)
    ]
    by_seed = markdown_table(["seed", *(str(one.promise) for one in outcomes)], each)
    return "\n\n".join([first, *lost, markdown_table(headings, mean), legend, "Realised, by run:", by_seed])


if __name__ == "__main__":
    raise SystemExit(main())
