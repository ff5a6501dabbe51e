"""How often a watch alarms without cause, and how soon with one.

`python -m benchmarks.drift [--fits 4] [--streams 50] [--changed 50]`

Fits a table of known source several times, for a calibration set is one draw. Streams of fresh records of the same
source go through each bundle's scorer and a watch; then streams that change after 2,500 records.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import beta

from benchmarks.quality.detectors import fitted
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.bundle import Bundle
from nelbo.judgement import MIN_RECORDS
from nelbo.records import Batch
from nelbo.scoring import Scorer
from nelbo.verdict import Verdict
from nelbo.watch import Watch
from training.config import Config, read_config

# A small network, so that six million records are scored in minutes; whoever has hours can give another config.
_SMALL = Config(encoder=(64,), decoder=(64,), n_exemplars=256)
_N_STREAM = 20_000  # records of a stream without a change; asked for
_BEFORE, _AFTER = 2_500, 10_000  # records before a change, and those in which it may be found; chosen
_FALSE_ALARMS = 0.01  # share of streams; asked for
_NAMED = 0.95  # share of changes whose field is named first; asked for
_NUMBERS = tuple(f"x{j}" for j in range(6))
_SHIFTED, _NEW = "x2", "colour"

Columns = dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]
Change = Callable[[Columns, np.random.Generator], None]


def source(n: int, rng: np.random.Generator) -> Columns:
    """Six numbers of two causes, one of them left out at times; three categories, one of them rare at its end."""
    causes = np.random.default_rng(0).normal(size=(2, len(_NUMBERS)))  # of the source, not of its records
    z = rng.normal(size=(n, 2))
    x = z @ causes + 0.5 * rng.normal(size=(n, len(_NUMBERS)))
    columns: Columns = {name: x[:, j] for j, name in enumerate(_NUMBERS)}
    columns["x5"] = np.where(rng.random(n) < 0.05, np.nan, x[:, 5])
    columns["line"] = np.where(z[:, 0] > 0.5, "north", np.where(rng.random(n) < 0.3, "west", "south"))
    columns["colour"] = rng.choice(["red", "green", "blue", "black"], n, p=[0.5, 0.3, 0.19, 0.01])
    columns["is_new"] = z[:, 1] + rng.normal(size=n) > 0
    return columns


def shift(columns: Columns, rng: np.random.Generator) -> None:
    """One number moved by half of its standard deviation."""
    del rng
    causes = np.random.default_rng(0).normal(size=(2, len(_NUMBERS)))
    sd = math.sqrt(float((causes[:, 2] ** 2).sum()) + 0.25)
    columns[_SHIFTED] = np.asarray(columns[_SHIFTED], dtype=np.float64) + 0.5 * sd


def new_category(columns: Columns, rng: np.random.Generator) -> None:
    """One record in fifty has a category that no fit has seen."""
    columns[_NEW] = np.where(rng.random(columns[_NEW].size) < 0.02, "violet", columns[_NEW])


CHANGES: dict[str, tuple[Change, str]] = {
    "number moved by 0.5 sd": (shift, _SHIFTED),
    "new category in 2 %": (new_category, _NEW),
}


@dataclass(frozen=True)
class Alarm:
    """What a watch said first.

    Attributes:
        fit: which bundle.
        stream: which of its streams.
        state: "fresh" where it said nothing.
        delay: records since the change, or since the start where there is none.
        reason: its sentence.
    """

    fit: int
    stream: int
    state: str
    delay: int | None
    reason: str


def first_alarm(scorer: Scorer, fit: int, stream: int, n: int, change: Change | None = None) -> Alarm:
    """A stream watched until its first alarm.

    Args:
        scorer: of the bundle.
        fit: which bundle that is; a stream of another bundle has other records.
        stream: which stream.
        n: records at most, before the change or without one.
        change: of the records after these; the alarm counts from there.
    """
    rng = np.random.default_rng([fit, stream, 77, 0 if change is None else 1])
    watch = Watch(scorer, np.random.default_rng([fit, stream, 78]))
    now = datetime.fromisoformat(scorer.bundle.calibration.created)
    for start in range(0, n, MIN_RECORDS):
        found = _watched(scorer, watch, source(MIN_RECORDS, rng), now)
        if change is None and found.state != "fresh":
            return Alarm(fit, stream, found.state, start + MIN_RECORDS, found.reason)
    if change is None:
        return Alarm(fit, stream, "fresh", None, "")
    # A change does not wait for a window to be full.
    normal = source(int(rng.integers(MIN_RECORDS)), rng)
    _watched(scorer, watch, normal, now)
    for n_after in range(10, _AFTER + 1, 10):
        columns = source(10, rng)
        change(columns, rng)
        found = _watched(scorer, watch, columns, now)
        if found.state != "fresh":
            return Alarm(fit, stream, found.state, n_after, found.reason)
    return Alarm(fit, stream, "fresh", None, "")


def _watched(scorer: Scorer, watch: Watch, columns: Columns, now: datetime) -> Verdict:
    watch.add(scorer.score(batch_of(scorer, columns)))
    return watch.verdict(now)


def batch_of(scorer: Scorer, columns: Columns) -> Batch:
    """Records as the scorer's decoder would give them, without a way over JSON."""
    n = len(columns[_SHIFTED])
    numbers = np.column_stack([np.asarray(columns[c.name], dtype=np.float64) for c in scorer.schema.numbers])
    codes = np.full((n, len(scorer.schema.codes)), 0, dtype=np.int64)
    for j, column in enumerate(scorer.schema.codes):
        values = columns[column.name]
        codes[:, j] = np.where(np.isin(values, column.rare), column.rare_code, column.unseen_code)
        for code, known in enumerate(column.known):
            codes[values == known, j] = code
    return Batch(numbers, codes, np.arange(n), [None] * n, {})


def limits(k: int, n: int) -> tuple[float, float]:
    """Clopper–Pearson limits of a share, 95 %."""
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return low, high


def _alarms(fit: int, n_records: int, n_streams: int, n_changed: int, config: Config) -> dict[str, list[Alarm]]:
    """All streams of one fit."""
    scorer = Scorer(_fitted(fit, n_records, config))
    found = {"none": [first_alarm(scorer, fit, stream, _N_STREAM) for stream in range(n_streams)]}
    for name, (change, _) in CHANGES.items():
        found[name] = [first_alarm(scorer, fit, stream, _BEFORE, change) for stream in range(n_changed)]
    print(f"fit {fit} done", flush=True)
    return found


def _fitted(fit: int, n: int, config: Config) -> Bundle:
    with tempfile.TemporaryDirectory() as name:
        columns = source(n, np.random.default_rng([fit, 76]))
        columns["x5"] = np.ma.masked_invalid(np.asarray(columns["x5"], dtype=np.float64))
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        return fitted(table, Path(name), fit, config)


def figures(alarms: dict[str, list[Alarm]]) -> dict[str, dict[str, float]]:
    """The figures of each kind of stream."""
    none = alarms["none"]
    false = sum(alarm.state != "fresh" for alarm in none)
    low, high = limits(false, len(none))
    found: dict[str, dict[str, float]] = {
        "none": {"streams": len(none), "alarms": false, "share": false / len(none), "low": low, "high": high}
    }
    for name, (_, field) in CHANGES.items():
        some = alarms[name]
        delays = [alarm.delay if alarm.delay is not None else math.inf for alarm in some]
        named = sum(alarm.reason.startswith(f"field '{field}'") for alarm in some)
        found[name] = {
            "streams": len(some),
            "found": sum(alarm.state != "fresh" for alarm in some) / len(some),
            "median_delay": float(np.median(delays)),
            "delay_95": float(np.quantile(delays, 0.95, method="higher")),
            "named_first": named / len(some),
        }
    return found


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the figures; 1 where one of them misses its bar."""
    options = _parser().parse_args(arguments)
    config = _SMALL if options.config is None else read_config(options.config)
    one = partial(
        _alarms, n_records=options.records, n_streams=options.streams, n_changed=options.changed, config=config
    )
    with ProcessPoolExecutor(options.workers) as pool:
        parts = list(pool.map(one, range(options.fits)))
    alarms = {name: [alarm for part in parts for alarm in part[name]] for name in parts[0]}
    found = figures(alarms)
    body = _page(options, found)
    print(body)
    command = f"python -m benchmarks.drift --fits {options.fits} --streams {options.streams}"
    command += f" --changed {options.changed} --records {options.records}"
    command += "" if options.config is None else f" --config {options.config.name}"
    listed = {name: [asdict(alarm) for alarm in some] for name, some in alarms.items()}
    everything: dict[str, object] = {"figures": found, "alarms": listed}
    write_report("drift", "Drift: false alarms and delays", command, everything, body, results)
    named = all(found[name]["named_first"] >= _NAMED for name in CHANGES)
    return 0 if named and found["none"]["low"] <= _FALSE_ALARMS else 1


def _page(options: argparse.Namespace, found: dict[str, dict[str, float]]) -> str:
    none = found["none"]
    first = (
        f"{options.fits} fits of {options.records:,} records each: six numbers and three categories of one source. "
        f"Of {none['streams']} streams of {_N_STREAM:,} further records of that source {none['alarms']} brought a "
        f"false alarm, `drifting` or `stale`: {none['share']:.2%}, with 95 % between {none['low']:.2%} and "
        f"{none['high']:.2%} (asked for: at most {_FALSE_ALARMS:.0%})."
    )
    second = f"Streams that change after {_BEFORE:,} to {_BEFORE + MIN_RECORDS:,} records:"
    headings = ["change", "streams", "found", "median delay", "95 % within", "its field named first"]
    rows = [
        (name, f["streams"], f"{f['found']:.1%}", f["median_delay"], f["delay_95"], f"{f['named_first']:.1%}")
        for name, f in ((name, found[name]) for name in CHANGES)
    ]
    return f"{first}\n\n{second}\n\n{markdown_table(headings, rows)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift")
    parser.add_argument("--fits", type=int, default=4)
    parser.add_argument("--streams", type=int, default=50, help="without a change, for each fit; 50 if not given")
    parser.add_argument("--changed", type=int, default=50, help="of each kind, for each fit; 50 if not given")
    parser.add_argument("--records", type=int, default=8_000, help="to fit on; 8,000 if not given")
    parser.add_argument("--workers", type=int, default=1, help="processes; each takes one core")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; a small network if not given")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
