"""Where the promised false-alarm rate ends for records in time, and whether drift says so.

`python -m benchmarks.time_order --data FOLDER [--seed 0] [--config FILE.toml]`

FOLDER holds runs of one machine as CSV: `anomaly-free*.csv` to fit on, and others whose column `anomaly` says which of
their records are normal. The fit is made with the time as the order of the split, without it, and over several runs.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import betabinom, rankdata

from benchmarks.quality.detectors import batches
from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.time_order_picture import Mark, draw
from nelbo.bundle import Bundle, read_bundle
from nelbo.calibration import n_flagged_allowed
from nelbo.decision import needed
from nelbo.errors import TableError
from nelbo.inference import infer_schema
from nelbo.judgement import BUDGET_MARTINGALE, judge
from nelbo.martingale import Martingale
from nelbo.records import Batch, take
from nelbo.schema import Column, Schema
from nelbo.scoring import Scorer
from nelbo.tables import open_table, read_columns
from nelbo.verdict import State, Verdict, verdict
from nelbo.watch import Watch
from nelbo.window import Window
from training.config import Config, read_config
from training.pipeline import Request, recalibrate, run

RATES = (0.01, 0.05)  # asked for
_BAND = 0.999  # of the counts that chance gives, two-sided; asked for
_FIT, _TIME, _LABEL, _LABELS = "anomaly-free*.csv", "datetime", "anomaly", ("anomaly", "changepoint")
_HELD_OUT = 0.1  # of the fit run, at its end and once more at random; chosen
_STEP = 10  # records between two looks of a watch; chosen
_FEWEST = 3 * needed(min(RATES))  # records of a run: a third of them must carry every rate

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """False alarms among normal records, beside the promise.

    Attributes:
        nominal: the rate asked for.
        expected: the effective one, k / (n + 1).
        n: normal records.
        n_flagged: of them.
        low, high: counts within which 99.9 % lie, if the records were exchangeable with the calibration's.
    """

    nominal: float
    expected: float
    n: int
    n_flagged: int
    low: int
    high: int

    @property
    def realised(self) -> float:
        """The share flagged."""
        return self.n_flagged / self.n

    @property
    def is_broken(self) -> bool:
        """More false alarms than chance gives."""
        return self.n_flagged > self.high

    @property
    def is_below(self) -> bool:
        """Fewer than chance gives: nothing that was promised, but not the rate that was asked for."""
        return self.n_flagged < self.low


@dataclass(frozen=True)
class Found:
    """What one fit says of the normal records of one run.

    Attributes:
        run: its name.
        is_own: held out of the run that was fitted on.
        n: records.
        rates: at each of `RATES`.
        state, reason: of `nelbo drift` on all of them, at the bundle's own rate.
        field: that the reason names first.
        delay: records after which a watch would have said more than "fresh"; None if it never did.
        lag_1: autocorrelation of the score's ranks from one record to the next.
        n_effective: as many independent records tell as much about the mean rank.
        recalibrated: at each of `RATES`, calibrated anew on the first third in time, on the other two thirds.
        state_after: of those two thirds by the new bundle.
        shuffled: as `recalibrated`, with a third drawn at random.
    """

    run: str
    is_own: bool
    n: int
    rates: tuple[Rate, ...]
    state: State
    reason: str
    field: str | None
    delay: int | None
    lag_1: float
    n_effective: float
    recalibrated: tuple[Rate, ...]
    state_after: State
    shuffled: tuple[Rate, ...]

    @property
    def is_broken(self) -> bool:
        """The promise breaks at one of the rates."""
        return any(rate.is_broken for rate in self.rates)


@dataclass(frozen=True)
class Runs:
    """Normal records in order of time, without labels.

    Attributes:
        fit: of the run to fit on, without those that another run holds too.
        others: by name, in order of time.
        n_shared: records that were left out of `fit`.
    """

    fit: pa.Table
    others: dict[str, pa.Table]
    n_shared: int


# --- the runs -----------------------------------------------------------------------------------------


def read_runs(folder: Path) -> Runs:
    """The normal records of a folder's runs.

    Raises:
        TableError: there is nothing to fit on or to score, or a run is too short to calibrate on a third of it.
    """
    paths = sorted(folder.glob("*.csv"))
    to_fit = sorted(folder.glob(_FIT))
    if not to_fit or len(paths) < len(to_fit) + 2:
        raise TableError(f"{folder}: expected {_FIT} and at least two other runs, got {len(paths)} files of CSV")
    others = {path.stem: _normal(path) for path in paths if path not in to_fit}
    for name, table in others.items():
        if table.num_rows < _FEWEST:
            raise TableError(f"run '{name}': expected at least {_FEWEST} normal records, got {table.num_rows}")
    fit = _sorted(pa.concat_tables(_normal(path) for path in to_fit))
    # SKAB's other_5 begins with the last 572 records of the run to fit on. A fit must not see what it is tested on.
    seen = {record for table in others.values() for record in _records(table)}
    apart = np.array([record not in seen for record in _records(fit)])
    ordered = dict(sorted(others.items(), key=lambda item: item[1][_TIME][0].as_py()))
    return Runs(fit.filter(pa.array(apart)), ordered, int((~apart).sum()))


def _normal(path: Path) -> pa.Table:
    table = read_columns(open_table(path))
    if _LABEL in table.column_names:
        table = table.filter(pc.equal(table[_LABEL].cast(pa.float64()), 0.0))
    return _sorted(table.drop_columns([name for name in _LABELS if name in table.column_names]))


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by(_TIME)


def _records(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def held_out(fit: pa.Table, seed: int) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The run to fit on without two tenths; and these: one drawn at random, in order and out of it, and the last.

    Raises:
        TableError: a tenth is too short to calibrate on a third of it.
    """
    n = fit.num_rows
    n_out = round(_HELD_OUT * n)
    if n_out < _FEWEST:
        raise TableError(f"the run to fit on: expected at least {_FEWEST / _HELD_OUT:.0f} records, got {n}")
    earlier = np.random.default_rng([seed, 91]).permutation(n - n_out)
    drawn, rest = earlier[:n_out], np.sort(earlier[n_out:])
    parts = {
        "fit run: a tenth, shuffled": fit.take(pa.array(drawn)),
        "fit run: the same, in order": fit.take(pa.array(np.sort(drawn))),
        "fit run: its last tenth": fit.slice(n - n_out),
    }
    return fit.take(pa.array(rest)), parts


# --- fits ---------------------------------------------------------------------------------------------


def fitted(records: pa.Table, folder: Path, seed: int, config: Config, *, by_time: bool) -> Bundle:
    """A bundle through the whole pipeline.

    Args:
        records: normal ones.
        folder: for files; its store is `models`.
        seed: of the split and the fit.
        config: of the fit.
        by_time: split by time, as inference wants it; else the time is ignored, and the split is random.
    """
    table = folder / "fit.parquet"
    pq.write_table(records, table)
    schema = None
    if not by_time:
        schema = folder / "schema.json"
        schema.write_bytes(without_time(infer_schema(records)).to_json())
    bundle = run(Request(table, "runs", folder / "models", schema=schema, config=config, seed=seed)).bundle
    assert bool(bundle.schema.with_role("time")) == by_time
    return bundle


def without_time(schema: Schema) -> Schema:
    """Roles and kinds of a schema, its time ignored."""
    columns = (
        Column(name=column.name, role="ignored" if column.role == "time" else column.role, kind=column.kind)
        for column in schema.columns
    )
    return Schema(columns=tuple(columns))


# --- what is measured of a run ------------------------------------------------------------------------


def measure(bundle: Bundle, name: str, records: pa.Table, folder: Path, *, is_own: bool, seed: int) -> Found:
    """All that one fit says of one run.

    Args:
        bundle: of the fit.
        name: of the run.
        records: normal ones, in order of time.
        folder: as `fitted` takes it.
        is_own: held out of the run that was fitted on.
        seed: of the third that is drawn at random.
    """
    scorer = Scorer(bundle)
    batch = _decoded(scorer, records, folder)
    scores = scorer.score(batch).statistics["score"]
    said = drift_of(scorer, batch)
    n, third = len(batch), len(batch) // 3
    shuffled = np.random.default_rng([seed, 92]).permutation(n)
    recalibrated, after = _recalibrated(bundle, records, np.arange(n), third, folder)
    at_random, _ = _recalibrated(bundle, records, shuffled, third, folder)
    return Found(
        run=name,
        is_own=is_own,
        n=n,
        rates=rates_of(scorer, batch),
        state=said.state,
        reason=said.reason,
        field=_named(said),
        delay=delay_of(scorer, batch),
        lag_1=lag_1(scores),
        n_effective=n_effective(scores),
        recalibrated=recalibrated,
        state_after=after,
        shuffled=at_random,
    )


def _decoded(scorer: Scorer, records: pa.Table, folder: Path) -> Batch:
    """Records as `nelbo score` reads them."""
    path = folder / "records.parquet"
    pq.write_table(records, path)
    (batch,) = batches(scorer, path)
    return batch


def rates_of(scorer: Scorer, batch: Batch) -> tuple[Rate, ...]:
    """False alarms at each of `RATES`, and the band of the promise."""
    found, n = [], len(batch)
    for rate in RATES:
        decision = scorer.decider.decide(rate)
        low, high = band(n, n_flagged_allowed(rate, scorer.decider.n), scorer.decider.n)
        n_flagged = int(scorer.score(batch, decision).flagged.sum())
        found.append(Rate(rate, decision.effective_rate, n, n_flagged, low, high))
    return tuple(found)


def band(n: int, k: int, n_calibration: int) -> tuple[int, int]:
    """Counts of flagged records within which 99.9 % lie, the calibration set being one draw.

    >>> band(700, 9, 900)
    (0, 23)
    """
    tails = (1 - _BAND) / 2
    low, high = betabinom(n, k, n_calibration + 1 - k).ppf([tails, 1 - tails])
    return int(low), int(high)


def drift_of(scorer: Scorer, batch: Batch) -> Verdict:
    """What `nelbo drift` says of records, on the day of the calibration."""
    scored = scorer.score(batch)
    window = Window(scorer.schema, scorer.bundle.reference, scorer.decider.decide())
    window.add(scored)
    calibration_scores = scorer.decider.calibrations["score"].scores
    martingale = Martingale(calibration_scores, np.random.default_rng(0), BUDGET_MARTINGALE)
    martingale.add(scored.statistics["score"])
    return verdict(scorer.bundle, judge(window), martingale.p_value >= BUDGET_MARTINGALE, _day(scorer))


def delay_of(scorer: Scorer, batch: Batch) -> int | None:
    """Records after which a running watch says more than "fresh"; None if it never does."""
    watch = Watch(scorer, np.random.default_rng(0))
    for start in range(0, len(batch), _STEP):
        stop = min(len(batch), start + _STEP)
        watch.add(scorer.score(take(batch, np.arange(start, stop))))
        if watch.verdict(_day(scorer)).state != "fresh":
            return stop
    return None


def _day(scorer: Scorer) -> datetime:
    return datetime.fromisoformat(scorer.bundle.calibration.created)


def _named(said: Verdict) -> str | None:
    """The field that a reason begins with."""
    if said.state == "fresh":
        return None
    first = next(iter(said.judgement.changed), said.judgement.most_different)
    return None if first is None else first.field


def _recalibrated(
    bundle: Bundle, records: pa.Table, order: Rows, n: int, folder: Path
) -> tuple[tuple[Rate, ...], State]:
    """`nelbo calibrate` on the first n records of an order: the rates on the others, and what drift says of these."""
    path = folder / "calibrate.parquet"
    pq.write_table(records.take(pa.array(order[:n])), path)
    again = Scorer(read_bundle(recalibrate(bundle, path, None, None, folder / "models")))
    others = _decoded(again, records.take(pa.array(np.sort(order[n:]))), folder)
    return rates_of(again, others), drift_of(again, others).state


def lag_1(scores: Scores) -> float:
    """Autocorrelation of the ranks of a series, from one to the next.

    >>> round(lag_1(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), 6)
    0.4
    """
    return float(_autocorrelation(scores)[1])


def n_effective(scores: Scores) -> float:
    """So many independent records would tell the mean rank as well as these that follow each other.

    n / (1 + 2 Σ ρ), the sum taken in pairs of lags until one is no longer positive.

    Source: Geyer, Practical Markov chain Monte Carlo, Statistical Science 7(4), 1992, 3.3.
    """
    rho = _autocorrelation(scores)
    pairs = rho[: rho.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs[: int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else pairs.size]
    return float(scores.size / max(1.0, 2 * positive.sum() - 1))


def _autocorrelation(scores: Scores) -> Scores:
    """Of the ranks: a score's own tail is so heavy that a few records would decide."""
    centred = rankdata(scores) - (scores.size + 1) / 2
    spectrum = np.abs(np.fft.rfft(centred, 2 * scores.size)) ** 2
    covariance = np.fft.irfft(spectrum)[: scores.size]
    return np.asarray(covariance / covariance[0])


# --- all fits -----------------------------------------------------------------------------------------


def by_fit(runs: Runs, seed: int, config: Config) -> dict[str, list[Found]]:
    """What each fit says of every run that it has not seen."""
    rest, own = held_out(runs.fit, seed)
    names = list(runs.others)
    # Every run is tested once: by the fit over the others of every second one.
    halves = (names[::2], names[1::2])
    several = [
        (pa.concat_tables([rest, *(runs.others[name] for name in seen)]), unseen)
        for seen, unseen in (halves, halves[::-1])
    ]
    return {
        "split by time": _tested(rest, own, runs.others, seed, config, by_time=True),
        "time ignored": _tested(rest, own, runs.others, seed, config, by_time=False),
        "several runs": [
            found
            for table, unseen in several
            for found in _tested(table, {}, {n: runs.others[n] for n in unseen}, seed, config, by_time=False)
        ],
    }


def _tested(
    table: pa.Table,
    own: Mapping[str, pa.Table],
    others: Mapping[str, pa.Table],
    seed: int,
    config: Config,
    *,
    by_time: bool,
) -> list[Found]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = fitted(table, folder, seed, config, by_time=by_time)
        print(f"fitted {bundle.manifest.data['n_normal']} records, by time: {by_time}", flush=True)
        found = [measure(bundle, run, part, folder, is_own=True, seed=seed) for run, part in own.items()]
        found += [measure(bundle, run, part, folder, is_own=False, seed=seed) for run, part in others.items()]
    return found


def summary(found: Sequence[Found]) -> dict[str, float]:
    """How many runs break the promise, and what is said of them; parts of the fit run do not count."""
    runs = [one for one in found if not one.is_own]
    broken = [one for one in runs if one.is_broken]
    is_stale, own_rate = [one.state == "stale" for one in runs], [one.rates[0].is_broken for one in runs]
    # A run of which the watch says nothing takes for ever.
    delays = [float("inf") if one.delay is None else one.delay for one in broken] or [0.0]
    return {
        "runs": len(runs),
        "median_realised": float(np.median([one.rates[0].realised for one in runs])),
        "broken": len(broken),
        **{f"broken_at_{rate:g}": sum(one.rates[i].is_broken for one in runs) for i, rate in enumerate(RATES)},
        "broken_and_not_fresh": sum(one.state != "fresh" for one in broken),
        "broken_and_watched": sum(one.delay is not None for one in broken),
        "longest_delay": max(delays),
        "held": len(runs) - len(broken),
        "held_and_fresh": sum(one.state == "fresh" for one in runs if not one.is_broken),
        "fewer_than_chance": sum(any(rate.is_below for rate in one.rates) for one in runs),
        "stale": sum(is_stale),
        "stale_and_broken_at_own": sum(map(all, zip(is_stale, own_rate, strict=True))),
        "recalibrated_broken": sum(any(rate.is_broken for rate in one.recalibrated) for one in runs),
        "recalibrated_median_realised": float(np.median([one.recalibrated[0].realised for one in runs])),
        "recalibrated_stale": sum(one.state_after == "stale" for one in runs),
        "recalibrated_fresh": sum(one.state_after == "fresh" for one in runs),
        "shuffled_broken": sum(any(rate.is_broken for rate in one.shuffled) for one in runs),
        "median_lag_1": float(np.median([one.lag_1 for one in runs])),
        "median_n_effective": float(np.median([one.n_effective for one in runs])),
    }


# --- the page -----------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the tables; 1 where the promise of some run breaks and its drift state is fresh."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    runs = read_runs(options.data)
    found = by_fit(runs, options.seed, config)
    body = _page(options.data, runs, found)
    print(body)
    command = f"python -m benchmarks.time_order --data {options.data.name} --seed {options.seed}"
    command += "" if options.config is None else f" --config {options.config.name}"
    figures = {
        "config": None if options.config is None else config.model_dump(mode="json"),
        "n_shared": runs.n_shared,
        "summary": {fit: summary(some) for fit, some in found.items()},
        "runs": {fit: [asdict(one) for one in some] for fit, some in found.items()},
    }
    results.mkdir(exist_ok=True)
    draw({fit: _marks(some) for fit, some in found.items()}, RATES[0], results / "time_order.png")
    write_report("time_order", "Records in time: where the promise ends", command, figures, body, results)
    return 1 if any(one.is_broken and one.state == "fresh" for some in found.values() for one in some) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_order")
    parser.add_argument("--data", type=Path, required=True, help=f"folder of runs, CSV: {_FIT} and others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    return parser


def _marks(found: Sequence[Found]) -> list[Mark]:
    """At the first of the rates, the bundle's own."""
    return [
        Mark(one.run, r.realised, r.low / r.n, r.high / r.n, one.state, one.recalibrated[0].realised)
        for one in found
        for r in one.rates[:1]
    ]


_MEANING = {
    "runs": "runs that the fit has not seen",
    "median_realised": f"flagged of their normal records at {RATES[0]:.0%}, median",
    "broken": "**the promise breaks**: above the band at a rate",
    **{f"broken_at_{rate:g}": f"… at {rate:.0%}" for rate in RATES},
    "broken_and_not_fresh": "of the broken: drift is `drifting` or `stale`",
    "broken_and_watched": "of the broken: a watch says so before the run ends",
    "longest_delay": "… after so many records at most",
    "held": "the promise holds",
    "held_and_fresh": "of these: drift is `fresh`",
    "fewer_than_chance": "below the band at a rate",
    "stale": f"drift is `stale`: too many flagged at {RATES[0]:.0%}",
    "stale_and_broken_at_own": f"… and the promise breaks at {RATES[0]:.0%}",
    "recalibrated_broken": "calibrated anew on the first third: breaks on the rest",
    "recalibrated_median_realised": f"… flagged of the rest at {RATES[0]:.0%}, median",
    "recalibrated_stale": "… drift of the rest is `stale`",
    "recalibrated_fresh": "… drift of the rest is `fresh`",
    "shuffled_broken": "calibrated anew on a third at random: breaks on the rest",
    "median_lag_1": "autocorrelation of the score from one record to the next, median",
    "median_n_effective": "independent records that a run is worth, median",
}


def _page(data: Path, runs: Runs, found: Mapping[str, Sequence[Found]]) -> str:
    n_normal = sum(table.num_rows for table in runs.others.values())
    first = (
        f"`{data.name}`: {len(runs.others)} runs with {n_normal:,} normal records, and one without a fault to fit on, "
        f"of {runs.fit.num_rows:,} records; {runs.n_shared} more stand in another run too and were left out. The fit "
        "is made three times: with the time as role `time`, so that the newest records calibrate; with the time "
        "ignored, so that the split is random; and, ignored too, over this run and every second other one, twice, so "
        "that each run is tested by a fit that has not seen it. Two tenths of the run to fit on are held out of every "
        "fit."
    )
    second = (
        "A band holds 99.9 % of the counts that chance gives (beta-binomial: one calibration set is one draw), if "
        "records are exchangeable with those of the calibration. **Bold** is above it: the promise breaks. Drift is "
        "what `nelbo drift` says of all normal records of the run, at the bundle's own rate; the watch is what a "
        f"running service has, looked at every {_STEP} records."
    )
    picture = f"![False alarms of every run at {RATES[0]:.0%}, marked by the state of drift](time_order.png)"
    parts = [first, second, _summary_table(found), _own_sentence(found), picture]
    for fit, some in found.items():
        parts += [f"## Fit: {fit}", _runs_table(some), "Calibrated anew:", _again_table(some)]
    return "\n\n".join(parts)


def _summary_table(found: Mapping[str, Sequence[Found]]) -> str:
    sums = {fit: summary(some) for fit, some in found.items()}
    rows = [(text, *(_figure(key, one[key]) for one in sums.values())) for key, text in _MEANING.items()]
    return markdown_table(["", *sums], rows)


def _figure(key: str, value: float) -> str:
    return f"{value:.1%}" if key.endswith("realised") else f"{value:.2f}" if "lag" in key else f"{value:.0f}"


def _own_sentence(found: Mapping[str, Sequence[Found]]) -> str:
    """Of the run that was fitted on, where nothing has changed but the time."""
    said = []
    for fit, some in found.items():
        for one in some:
            if one.is_own:
                shares = " and ".join(f"{rate.realised:.1%} at {rate.nominal:.0%}" for rate in one.rates)
                state = f"drift `{one.state}`, lag 1 {one.lag_1:.2f}, worth {one.n_effective:.0f} of {one.n} records"
                said.append(f"- {fit}, {one.run}: {shares}; {state}")
    return "\n".join(["Within the run that was fitted on:", "", *said])


def _runs_table(found: Sequence[Found]) -> str:
    said = ["drift", "field named first", "watch says so after", "lag 1", "worth"]
    headings = ["run", "normal records", *(f"flagged at {rate:.0%}" for rate in RATES), *said]
    rows = []
    for one in found:
        delay, dependence = one.delay or "–", (f"{one.lag_1:.2f}", f"{one.n_effective:.0f}")
        rows.append((one.run, one.n, *map(_cell, one.rates), one.state, one.field or "–", delay, *dependence))
    return markdown_table(headings, rows)


def _again_table(found: Sequence[Found]) -> str:
    first = [f"on its first third, at {rate:.0%}" for rate in RATES]
    at_random = [f"on a third at random, at {rate:.0%}" for rate in RATES]
    rows = [(one.run, *map(_cell, one.recalibrated), one.state_after, *map(_cell, one.shuffled)) for one in found]
    return markdown_table(["run", *first, "drift", *at_random], rows)


def _cell(rate: Rate) -> str:
    said = f"{rate.realised:.1%} ({rate.low / rate.n:.1%}–{rate.high / rate.n:.1%})"
    return f"**{said}**" if rate.is_broken else said


if __name__ == "__main__":
    raise SystemExit(main())
