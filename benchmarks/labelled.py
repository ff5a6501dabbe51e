"""How well the default ranks the labelled anomalies of one table, over several seeds, beside other detectors.

`python -m benchmarks.labelled --train TABLE [--test TABLE] --label COLUMN --normal VALUE [--schema FILE.json]`

With two tables it fits on the normal records of the first and ranks all of the second, whatever the seed; with one, a
half of the normal records drawn by the seed is fitted on, and the rest is ranked with every anomaly.
"""

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.quality.detectors import PEERS, Scores, nelbo
from benchmarks.quality.protocol import Halves
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.inference import infer_schema
from nelbo.schema import Schema, read_schema
from nelbo.tables import labels, open_table, read_columns
from training.config import Config, read_config

_PEERS = ("DTE-NP", "PCA", "IForest")

Split = Callable[[int], Halves]


@dataclass(frozen=True)
class Quality:
    """What one detector did with one seed.

    Attributes:
        seed, detector: which.
        auroc, ap: over all thresholds.
        fit_s: seconds to fit.
    """

    seed: int
    detector: str
    auroc: float
    ap: float
    fit_s: float


@dataclass(frozen=True)
class Records:
    """A table's records that have a label, without it.

    Attributes:
        columns: of n records.
        is_anomaly: shape (n,).
    """

    columns: pa.Table
    is_anomaly: NDArray[np.bool_]


# --- the tables ---------------------------------------------------------------------------------------


def read_records(path: Path, label: str, normal: str) -> Records:
    """The labelled records of a file; one without a label is neither normal nor an anomaly."""
    table = open_table(path)
    found = labels(table, label, normal)
    rows = np.flatnonzero(found.is_normal | found.is_anomaly)
    return Records(read_columns(table).drop_columns([label]).take(pa.array(rows)), found.is_anomaly[rows])


def two_tables(train: Records, test: Records) -> Split:
    """Fits on the normal records of one table, ranks all of another; every seed gets the same."""
    # A column of integers here may be one of decimals there.
    both = pa.concat_tables([train.columns, test.columns], promote_options="permissive")
    normal = both.take(pa.array(np.flatnonzero(~train.is_anomaly)))
    halves = Halves(normal, both.slice(train.columns.num_rows), test.is_anomaly)
    return lambda seed: halves  # noqa: ARG005  # as below


def one_table(records: Records) -> Split:
    """Fits on a random half of the normal records, ranks the others and every anomaly."""

    def split(seed: int) -> Halves:
        normal = np.random.default_rng([seed, 22]).permutation(np.flatnonzero(~records.is_anomaly))
        half = len(normal) // 2
        test = np.concatenate([normal[half:], np.flatnonzero(records.is_anomaly)])
        return Halves(
            records.columns.take(pa.array(normal[:half])),
            records.columns.take(pa.array(test)),
            records.is_anomaly[test],
        )

    return split


def without_labels(halves: Halves, schema: Schema | None) -> Halves:
    """Without the columns that a schema says are labels: a fit is not to see them, even to ignore them."""
    others = [column.name for column in schema.with_role("label")] if schema else []
    return _select(halves, [name for name in halves.train.column_names if name not in others])


def for_peers(halves: Halves, schema: Schema | None) -> Halves:
    """The columns that a matrix can be made of: the schema's fields, or what is inferred to be one.

    What is constant among the normal records is no field of ours, but peers may see it change.
    """
    fields = {column.name for column in (schema or infer_schema(halves.train)).fields}
    names = halves.train.column_names
    if schema is None:
        fields |= {name for name in names if pc.count_distinct(halves.train[name]).as_py() == 1}
    return _select(halves, [name for name in names if name in fields])


def _select(halves: Halves, names: Sequence[str]) -> Halves:
    return replace(halves, train=halves.train.select(names), test=halves.test.select(names))


# --- the figures --------------------------------------------------------------------------------------


def measure(split: Split, seed: int, config: Config, schema_path: Path | None) -> Iterator[Quality]:
    """Every detector on one seed's records."""
    schema = None if schema_path is None else read_schema(schema_path)
    halves = without_labels(split(seed), schema)
    rankings = [nelbo(halves, seed, config, schema_path)]
    rankings += [PEERS[name](for_peers(halves, schema), seed) for name in _PEERS]
    for ranking in rankings:
        for name, scores in ranking.scores.items():
            yield Quality(seed, name, *quality(scores, halves.is_anomaly), fit_s=round(ranking.fit_s, 2))


def quality(scores: Scores, is_anomaly: NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC and average precision."""
    return float(roc_auc_score(is_anomaly, scores)), float(average_precision_score(is_anomaly, scores))


def spread(found: Sequence[Quality], detector: str) -> dict[str, float]:
    """Mean and standard deviation over seeds; of a single seed, 0.

    >>> one, two = Quality(0, "a", 0.5, 0.2, 1.0), Quality(1, "a", 0.7, 0.2, 3.0)
    >>> {name: round(value, 4) for name, value in spread([one, two], "a").items()}
    {'auroc': 0.6, 'auroc_sd': 0.1414, 'ap': 0.2, 'ap_sd': 0.0, 'fit_s': 2.0}
    """
    own = [one for one in found if one.detector == detector]
    auroc, ap = [one.auroc for one in own], [one.ap for one in own]
    return {
        "auroc": float(np.mean(auroc)),
        "auroc_sd": float(np.std(auroc, ddof=1)) if len(own) > 1 else 0.0,
        "ap": float(np.mean(ap)),
        "ap_sd": float(np.std(ap, ddof=1)) if len(own) > 1 else 0.0,
        "fit_s": float(np.median([one.fit_s for one in own])),
    }


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a detector and seed, then means and standard deviations."""
    options = _parser().parse_args(arguments)
    config = Config() if options.config is None else read_config(options.config)
    train = read_records(options.train, options.label, options.normal)
    split = one_table(train)
    if options.test is not None:
        split = two_tables(train, read_records(options.test, options.label, options.normal))
    found: list[Quality] = []
    for seed in options.seeds:
        for one in measure(split, seed, config, options.schema):
            found.append(one)
            print(f"seed {seed} {one.detector:<28} {one.auroc:.3f} / {one.ap:.3f}", flush=True)
    _conclude(options, split(options.seeds[0]), found, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelled")
    parser.add_argument("--train", type=Path, required=True, help="records; only the normal ones are fitted on")
    parser.add_argument("--test", type=Path, help="records to rank; a part of the first table if not given")
    parser.add_argument("--label", required=True)
    parser.add_argument("--normal", required=True)
    parser.add_argument("--schema", type=Path, help="a schema file; inferred if not given")
    parser.add_argument("--config", type=Path, help="settings of the fit, TOML; the default if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    return parser


def _conclude(options: argparse.Namespace, halves: Halves, found: Sequence[Quality], results: Path) -> None:
    detectors = list(dict.fromkeys(one.detector for one in found))
    spreads = {detector: spread(found, detector) for detector in detectors}
    tables = " and ".join(path.name for path in (options.train, options.test) if path is not None)
    sentence = (
        f"{halves.train.num_rows:,} normal records to fit on; {len(halves.is_anomaly):,} to rank, "
        f"{int(halves.is_anomaly.sum()):,} of them anomalies; {len(options.seeds)} seeds."
    )
    body = f"{sentence}\n\n{_summary(spreads)}\n\nAUROC / average precision by seed:\n\n{_by_seed(found, detectors)}"
    print(body)
    figures = {
        "config": None if options.config is None else read_config(options.config).model_dump(mode="json"),
        "detectors": spreads,
        "seeds": [vars(one) for one in found],
    }
    title = f"Labelled anomalies of {tables}"
    write_report(f"labelled_{options.train.stem}", title, _command(options), figures, body, results)


def _summary(spreads: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        (d, f"{s['auroc']:.3f} ± {s['auroc_sd']:.3f}", f"{s['ap']:.3f} ± {s['ap_sd']:.3f}", f"{s['fit_s']:.3g}")
        for d, s in spreads.items()
    ]
    return markdown_table(["detector", "AUROC ± sd", "AP ± sd", "fit, median s"], rows)


def _by_seed(found: Sequence[Quality], detectors: Sequence[str]) -> str:
    cells = {(one.seed, one.detector): f"{one.auroc:.3f} / {one.ap:.3f}" for one in found}
    seeds = list(dict.fromkeys(one.seed for one in found))
    return markdown_table(["seed", *detectors], [(s, *(cells[s, d] for d in detectors)) for s in seeds])


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "benchmarks.labelled"]
    for name in ("train", "test", "schema", "config"):
        path = getattr(options, name)
        words += [] if path is None else [f"--{name}", path.name]
    words += ["--label", options.label, "--normal", options.normal, "--seeds", *map(str, options.seeds)]
    return shlex.join(words)


if __name__ == "__main__":
    raise SystemExit(main())
