"""Does the false-alarm rate hold on real tables? Fits on half of the normal records, counts alarms in the other half.

`python -m benchmarks.realised_rates --data FOLDER [--seeds 0 1 2] [--bundles FOLDER]`

The halves are those of `benchmarks.quality`. Tables too small to carry any of the rates are named and not fitted. Each
table and seed goes to a line of `results/realised_rates.jsonl`; a run that is started again skips those there.
"""

import argparse
import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import fftconvolve
from scipy.stats import betabinom

from benchmarks.false_alarms import Seed, sources_digest
from benchmarks.fitted import fitted_once, folder_of_fits
from benchmarks.quality.detectors import batches
from benchmarks.quality.protocol import find_tables, halves, read_dataset
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.calibration import n_flagged_allowed
from nelbo.decision import needed
from nelbo.scoring import Scorer
from training.config import Config, read_config
from training.data import MIN_RECORDS, file_digest
from training.split import sizes

_NAME = "realised_rates"
_BAND, _POOLED_BAND = 0.999, 0.99  # of a table, of all together; asked for
_MOST_DUPLICATED = 0.01  # of the normal records, before ties may explain too few alarms; asked for
_ALL, _DISTINCT = "all", "all with at most 1 % duplicated"


@dataclass(frozen=True)
class Run:
    """One table and one seed.

    Attributes:
        table: its name.
        seed: of the halves and the fit.
        version: of the bundle.
        duplicated: share of the normal records, of both halves, that equal an earlier one in every field.
        counts: the alarms, by the rate that was asked for; none of a rate that the table does not carry.
    """

    table: str
    seed: int
    version: str
    duplicated: float
    counts: dict[float, Seed]


def carried(n: int, rates: Sequence[float]) -> list[float]:
    """The rates that n normal records to fit on carry."""
    return [rate for rate in rates if n >= MIN_RECORDS and sizes(n)[1] >= needed(rate)]


def measure(
    table: str, train: pa.Table, held_out: pa.Table, seed: int, rates: Sequence[float], config: Config, folder: Path
) -> Run:
    """Fits one half, or takes the kept fit, and scores the normal records of the other through the bundle.

    Args:
        table: its name.
        train: normal records to fit on.
        held_out: normal records to score.
        seed: of the halves and the fit.
        rates: to ask for.
        config: of the fit.
        folder: of kept fits.
    """
    bundle = fitted_once(train, folder, table, seed, config)
    scorer = Scorer(bundle)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "held_out.parquet")
        pq.write_table(held_out, path)
        p_values = np.concatenate([scorer.score(batch).p_values["score"] for batch in batches(scorer, path)])
    n = scorer.decider.n
    counts = {
        rate: Seed(
            seed,
            n_held_out=held_out.num_rows,
            n_flagged=int((p_values <= scorer.decider.decide(rate).effective_rate).sum()),
            n_calibration=n,
            k=n_flagged_allowed(rate, n),
        )
        for rate in rates
    }
    both = pa.concat_tables([train, held_out])
    return Run(
        table, seed, bundle.version, duplicate_share(both, [field.name for field in scorer.schema.fields]), counts
    )


def duplicate_share(table: pa.Table, fields: Sequence[str]) -> float:
    """Share of records that equal an earlier one in every field.

    >>> duplicate_share(pa.table({"x": [1, 1, 1, 2], "id": [1, 2, 3, 4]}), ["x"])
    0.5
    """
    distinct = table.select(list(fields)).group_by(list(fields)).aggregate([])
    return 1.0 - float(distinct.num_rows) / float(table.num_rows)


# --- what chance alone does ---------------------------------------------------------------------------


def band(counts: Sequence[Seed], share: float) -> tuple[int, int]:
    """Where the sum of the counts lies with at least this probability, both ends included.

    Each is beta-binomial, since its calibration set is one draw, and they are independent. So are those of one table:
    its seeds share records, but every split is drawn anew, and given the table the count of a split has this
    distribution whatever the table and the other splits are.

    Args:
        counts: with their k and sizes; what was flagged is not looked at.
        share: probability; as much of the rest at most lies on either side.

    >>> band([Seed(0, n_held_out=1, n_flagged=0, n_calibration=99, k=5)], 0.9)
    (0, 0)
    """
    each = [betabinom.pmf(np.arange(s.n_held_out + 1), s.n_held_out, s.k, s.n_calibration + 1 - s.k) for s in counts]
    # Fourier's way leaves errors of 1e-16, also below 0.
    cumulated = np.cumsum(np.maximum(reduce(fftconvolve, each), 0.0))
    beyond = (1.0 - share) / 2
    low, high = np.searchsorted(cumulated, [beyond, 1.0 - beyond])
    return int(low), int(high)


@dataclass(frozen=True)
class Judged:
    """Some counts of one rate, and the band that they should lie in.

    Attributes:
        what: the table, or which of them.
        rate: asked for.
        counts: of each run.
        low, high: of the sum of the flagged, both included.
        duplicated: mean share of duplicated normal records.
        has_ties: whether these are enough to explain too few alarms.
    """

    what: str
    rate: float
    counts: tuple[Seed, ...]
    low: int
    high: int
    duplicated: float
    has_ties: bool

    @property
    def n_held_out(self) -> int:
        """Of all runs."""
        return sum(count.n_held_out for count in self.counts)

    @property
    def n_flagged(self) -> int:
        """Of all runs."""
        return sum(count.n_flagged for count in self.counts)

    @property
    def expected(self) -> float:
        """k/(n + 1), weighed by the held-out records."""
        return sum(count.n_held_out * count.expected for count in self.counts) / self.n_held_out

    @property
    def realised(self) -> float:
        """Share of the held-out records that were flagged."""
        return self.n_flagged / self.n_held_out

    @property
    def verdict(self) -> str:
        """Within the band, or how it is missed."""
        if self.n_flagged > self.high:
            return "ABOVE"
        if self.n_flagged < self.low:
            return "below: ties" if self.has_ties else "BELOW"
        return "within"

    @property
    def holds(self) -> bool:
        """Not above; below only where ties explain it."""
        return self.verdict not in {"ABOVE", "BELOW"}


def judged(what: str, rate: float, runs: Sequence[Run], share: float) -> Judged:
    """The runs that carry a rate, against the band of their sum."""
    counts = tuple(run.counts[rate] for run in runs)
    duplicated = {run.table: [other.duplicated for other in runs if other.table == run.table] for run in runs}
    has_ties = any(float(np.mean(of_table)) > _MOST_DUPLICATED for of_table in duplicated.values())
    return Judged(what, rate, counts, *band(counts, share), float(np.mean([r.duplicated for r in runs])), has_ties)


def judge(runs: Sequence[Run], rate: float) -> list[Judged]:
    """Each table that carries a rate, then all of them, then those without many duplicates."""
    those = [run for run in runs if rate in run.counts]
    by_table = {table: [run for run in those if run.table == table] for table in dict.fromkeys(r.table for r in those)}
    tables = [judged(table, rate, of, _BAND) for table, of in by_table.items()]
    distinct = [run for one in tables if not one.has_ties for run in by_table[one.what]]
    together = [judged(what, rate, of, _POOLED_BAND) for what, of in ((_ALL, those), (_DISTINCT, distinct)) if of]
    return [*tables, *together]


# --- runs ---------------------------------------------------------------------------------------------


def done(path: Path, run_id: str) -> dict[tuple[str, int], Run]:
    """The runs in a file of JSON lines that belong to the same table, settings and code."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    runs = [_run(line["one"]) for line in lines if line["run"] == run_id]
    return {(run.table, run.seed): run for run in runs}


def _run(line: dict[str, Any]) -> Run:
    return Run(**{**line, "counts": {float(rate): Seed(**count) for rate, count in line["counts"].items()}})


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line for each table and seed, then what holds; 1 where a band is missed."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    # Once: a run goes on with the code that it has read, whatever becomes of the files.
    settings = f"{options.rates!r} {config.model_dump_json()} {sources_digest()}"
    results.mkdir(exist_ok=True)
    lines = results / f"{_NAME}.jsonl"
    runs: list[Run] = []
    too_small: dict[str, int] = {}
    print("table  seed  flagged of held out (expected), for each rate")
    with folder_of_fits(options.bundles) as folder:
        for path, seed, train, held_out in _halves(options):
            rates = carried(train.num_rows, options.rates)
            if not rates:
                too_small[path.stem] = train.num_rows
                continue
            run_id = hashlib.sha256(f"{file_digest(path)} {settings}".encode()).hexdigest()[:16]
            run = done(lines, run_id).get((path.stem, seed))
            if run is None:
                run = measure(path.stem, train, held_out, seed, rates, config, folder)
                with lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"run": run_id, "one": asdict(run)}) + "\n")
            runs.append(run)
            print(_line(run), flush=True)
    return _conclude(options, runs, too_small, results)


def _halves(options: argparse.Namespace) -> Iterator[tuple[Path, int, pa.Table, pa.Table]]:
    """Each table's file, with each seed and the normal records of its halves."""
    for path in find_tables(options.data):
        if options.tables and path.stem not in options.tables:
            continue
        dataset = read_dataset(path)
        for seed in options.seeds:
            split = halves(dataset, seed)
            yield path, seed, split.train, split.test.filter(pa.array(~split.is_anomaly))


def _line(run: Run) -> str:
    counts = [f"{c.n_flagged} of {c.n_held_out} ({c.n_held_out * c.expected:.1f})" for c in run.counts.values()]
    return f"{run.table}  {run.seed}  {', '.join(counts)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realised_rates")
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz (X, y) or .csv (with a column label)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--bundles", type=Path, help="folder to keep the fits in, and to find them; none if not given")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="some of them; all if not given")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    return parser


def _conclude(options: argparse.Namespace, runs: Sequence[Run], too_small: dict[str, int], results: Path) -> int:
    found = {rate: judge(runs, rate) for rate in options.rates}
    body = _page(options, found, too_small)
    print(body)
    figures = {
        "config": None if options.config is None else read_config(options.config).model_dump(mode="json"),
        "judged": [
            {name: value for name, value in asdict(one).items() if name != "counts"}
            | {"n_held_out": one.n_held_out, "n_flagged": one.n_flagged, "expected": one.expected}
            | {"realised": one.realised, "verdict": one.verdict}
            for of in found.values()
            for one in of
        ],
        "too_small": too_small,
        "runs": [asdict(run) for run in runs],
    }
    title = "Realised false-alarm rates on held-out normal records"
    write_report(_NAME, title, _command(options), figures, body, results)
    return 0 if all(one.holds for of in found.values() for one in of) else 1


def _command(options: argparse.Namespace) -> str:
    """What makes the figures again, without the folders of this machine."""
    words = ["python", "-m", "benchmarks.realised_rates", "--data", "FOLDER", "--seeds", *map(str, options.seeds)]
    words += ["--rates", *map(str, options.rates), *(["--tables", *options.tables] if options.tables else [])]
    words += [] if options.config is None else ["--config", options.config.name]
    return shlex.join(words)


def _page(options: argparse.Namespace, found: dict[float, list[Judged]], too_small: dict[str, int]) -> str:
    seeds = ", ".join(map(str, options.seeds))
    parts = [
        f"Seeds {seeds}. A fit on half of a table's normal records, a tenth of them to calibrate; its alarms among the "
        f"other half, all seeds together, beside where chance alone puts them: {100 * _BAND:g} % of the time for a "
        f"table, as there are many, {100 * _POOLED_BAND:g} % for all tables together.",
        "A table must not be above its band, nor all together. Below it may be where more than "
        f"{100 * _MOST_DUPLICATED:g} % of its normal records repeat another one: ties count against the alarm.",
        "A band is that of a sum of beta-binomial counts. The splits of one table share its records, and so do their "
        "calibration sets. The band is exact all the same: each split is drawn anew, and given the table its count has "
        "this distribution whatever the other splits are.",
    ]
    for rate, of in found.items():
        parts.append(f"## {100 * rate:g} %\n{_sentence(of)}\n\n{markdown_table(_HEADINGS, [_row(one) for one in of])}")
        parts += [f"Not measured: {_absent(rate, found, too_small)}."] if _absent(rate, found, too_small) else []
    return "\n\n".join(parts)


_HEADINGS = ["table", "calibration records", "k", "held out", "expected", "realised", "band", "duplicated", "verdict"]


def _sentence(of: Sequence[Judged]) -> str:
    tables = [one for one in of if one.what not in {_ALL, _DISTINCT}]
    if not tables:
        return "No table carries it."
    everything = next(one for one in of if one.what == _ALL)
    missed = [f"{one.what} is {one.verdict}" for one in of if not one.holds]
    return (
        f"All {len(tables)} tables together: {everything.realised:.3%} flagged, expected {everything.expected:.3%}. "
        f"{'; '.join(missed) if missed else 'No band is missed'}."
    )


def _row(one: Judged) -> tuple[str, ...]:
    n_of_runs, ks = [c.n_calibration for c in one.counts], [c.k for c in one.counts]
    return (
        one.what,
        _span(n_of_runs),
        _span(ks),
        f"{one.n_held_out:,}",
        f"{one.expected:.2%}",
        f"{one.realised:.2%}",
        f"{one.low / one.n_held_out:.2%} – {one.high / one.n_held_out:.2%}",
        f"{one.duplicated:.1%}",
        one.verdict,
    )


def _span(values: Sequence[int]) -> str:
    """Of one run each.

    >>> _span([499, 499]), _span([499, 501])
    ('499', '499–501')
    """
    return str(min(values)) if min(values) == max(values) else f"{min(values)}–{max(values)}"


def _absent(rate: float, found: dict[float, list[Judged]], too_small: dict[str, int]) -> str:
    """The tables that other rates have, or none, with what this one needs."""
    there = {one.what for one in found[rate]}
    others = [one.what for of in found.values() for one in of if one.what not in there]
    names = sorted({*others, *too_small} - {_ALL, _DISTINCT})
    return f"{', '.join(names)}, with less than {needed(rate)} calibration records" if names else ""


if __name__ == "__main__":
    raise SystemExit(main())
