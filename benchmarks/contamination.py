"""Whether the list of suspicious training records finds what does not belong among them, and what taking it out gains.

`python -m benchmarks.contamination --data FOLDER-or-TABLE...` puts labelled anomalies among the normal records to fit
on, 1 % and 5 %, or makes one number of 1 % of them wrong; fits with the default, and looks for them in the list. Of the
anomalies it then fits again without those that a person would find on the first twice as many places, and ranks records
that no fit has seen.
"""

import argparse
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.quality.detectors import statistics_of
from benchmarks.quality.protocol import MOST_TEST, MOST_TRAIN, Dataset, find_tables, read_dataset
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.scoring import Scorer
from training.pipeline import Outcome, Request, run

_SHARES = (0.01, 0.05)  # of the records to fit on
_SHARE_WRONG = 0.01  # with one wrong number
_SHIFT = 8.0  # robust standard deviations that it is moved by, up or down
_N_FIRST = 20  # as many as a report lists
_FEWEST_VALUES = 20  # distinct, of a number that is made wrong

Kind = Literal["anomalies", "wrong values"]
Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Contaminated:
    """Records to fit on, some of which are anomalies, and others to rank.

    Attributes:
        train: in random order.
        is_planted: shape (n_train,), the anomalies among them.
        test: other normal records and other anomalies.
        is_anomaly: shape (n_test,).
    """

    train: pa.Table
    is_planted: NDArray[np.bool_]
    test: pa.Table
    is_anomaly: NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """What one table with one kind and share of planted records gave.

    Attributes:
        table, kind, share, seed: which.
        n_train, n_planted: records to fit on, planted among them.
        found: share of the planted among the first `n_planted` of the list.
        found_by_forest, found_by_score: the same of a list in the order of one of its judges alone.
        first: share of planted among the first 20.
        first_by_forest, first_by_score: the same of one judge alone.
        n_excluded: planted among the first 2 · `n_planted`, which a person takes out.
        auroc_clean: of a fit without any planted anomaly, on the test records; None where no anomalies were planted.
        auroc_before: of a fit with all of them.
        auroc_after: of a fit without those that were taken out.
    """

    table: str
    kind: Kind
    share: float
    seed: int
    n_train: int
    n_planted: int
    found: float
    found_by_forest: float
    found_by_score: float
    first: float
    first_by_forest: float
    first_by_score: float
    n_excluded: int
    auroc_clean: float | None = None
    auroc_before: float | None = None
    auroc_after: float | None = None


def contaminated(dataset: Dataset, share: float, seed: int) -> Contaminated:
    """Half of the normal records with anomalies among them, at most half of all; the rest is for the test."""
    rng = np.random.default_rng([seed, 31])
    normal, odd = (rng.permutation(np.flatnonzero(one)) for one in (~dataset.is_anomaly, dataset.is_anomaly))
    known = normal[: len(normal) // 2][:MOST_TRAIN]
    n = min(max(1, round(share / (1 - share) * len(known))), len(odd) // 2)
    train = rng.permutation(np.concatenate([known, odd[:n]]))
    # The same test for every share: anomalies of the second half.
    test = np.concatenate([normal[len(normal) // 2 :][: MOST_TEST // 2], odd[len(odd) // 2 :][: MOST_TEST // 2]])
    return Contaminated(
        train=dataset.fields.take(pa.array(train)),
        is_planted=dataset.is_anomaly[train],
        test=dataset.fields.take(pa.array(test)),
        is_anomaly=dataset.is_anomaly[test],
    )


def with_wrong_values(dataset: Dataset, share: float, seed: int) -> Contaminated:
    """Half of the normal records, some with one number moved far; the test is that of the anomalies."""
    records = contaminated(dataset, share, seed)
    train = records.train.filter(pa.array(~records.is_planted))
    rng = np.random.default_rng([seed, 32])
    wrong = rng.choice(train.num_rows, max(1, round(share * train.num_rows)), replace=False)
    columns = {name: column.to_numpy() for name, column in zip(train.column_names, train.columns, strict=True)}
    numeric = [name for name, x in columns.items() if x.dtype.kind in "fi" and np.unique(x).size > _FEWEST_VALUES]
    for row in wrong.tolist():
        name = str(rng.choice(numeric))
        moved = columns[name].astype(np.float64)
        moved[row] += float(rng.choice([-_SHIFT, _SHIFT])) * _deviation(columns[name])
        columns[name] = moved
    is_planted = np.isin(np.arange(train.num_rows), wrong)
    return Contaminated(pa.table(columns), is_planted, records.test, records.is_anomaly)


def _deviation(x: NDArray[np.generic]) -> float:
    """A robust standard deviation of the values that are not the commonest one."""
    low, high = np.quantile(x.astype(np.float64), [0.25, 0.75])
    return float(high - low) / 1.349 or float(x.astype(np.float64).std())


def measure(dataset: Dataset, shares: Sequence[float], seed: int) -> Iterator[Found]:
    """What each kind and share gives; the fit without any is of the first share's normal records."""
    wrong = with_wrong_values(dataset, _SHARE_WRONG, seed)
    yield _listed(dataset.name, "wrong values", _SHARE_WRONG, seed, wrong, fitted(wrong.train, seed))
    clean: float | None = None
    for share in shares:
        records = contaminated(dataset, share, seed)
        if clean is None:
            clean = auroc(fitted(records.train.filter(pa.array(~records.is_planted)), seed), records)
        outcome = fitted(records.train, seed)
        looked_at = outcome.judged.most_suspicious(2 * int(records.is_planted.sum()))
        excluded = looked_at[records.is_planted[looked_at]]
        before = auroc(outcome, records)
        after = auroc(fitted(records.train, seed, excluded), records) if excluded.size else before
        found = _listed(dataset.name, "anomalies", share, seed, records, outcome)
        yield replace(found, auroc_clean=clean, auroc_before=before, auroc_after=after)


def _listed(table: str, kind: Kind, share: float, seed: int, records: Contaminated, outcome: Outcome) -> Found:
    judged, n = outcome.judged, int(records.is_planted.sum())
    orders = (
        judged.most_suspicious(len(records.is_planted)),
        np.argsort(-judged.oddness, kind="stable"),
        np.argsort(-judged.scores, kind="stable"),
    )
    is_right = [records.is_planted[order] for order in orders]
    found, found_by_forest, found_by_score = (float(one[:n].mean()) for one in is_right)
    first, first_by_forest, first_by_score = (float(one[:_N_FIRST].mean()) for one in is_right)
    return Found(
        table=table,
        kind=kind,
        share=share,
        seed=seed,
        n_train=len(records.is_planted),
        n_planted=n,
        found=found,
        found_by_forest=found_by_forest,
        found_by_score=found_by_score,
        first=first,
        first_by_forest=first_by_forest,
        first_by_score=first_by_score,
        n_excluded=int(is_right[0][: 2 * n].sum()),
    )


def fitted(train: pa.Table, seed: int, excluded: Rows | None = None) -> Outcome:
    """A fit by default, through the list of a person where some records are excluded."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "train.parquet"
        pq.write_table(train, path)
        exclude = None
        if excluded is not None:
            exclude = Path(name) / "exclude.txt"
            exclude.write_text("".join(f"{row}  planted\n" for row in excluded), encoding="utf-8")
        return run(Request(path, "contamination", Path(name) / "models", seed=seed, exclude=exclude))


def auroc(outcome: Outcome, records: Contaminated) -> float:
    """Of the score, over the test records."""
    return float(roc_auc_score(records.is_anomaly, scores_of(outcome, records.test)))


def scores_of(outcome: Outcome, table: pa.Table) -> Scores:
    """What the bundle gives each record of a table."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "t.parquet"
        pq.write_table(table, path)
        return statistics_of(Scorer(outcome.bundle), path)["nelbo:score"]


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a table and share, then writes the page."""
    options = _parser().parse_args(arguments)
    paths = [path for given in options.data for path in (find_tables(given) if given.is_dir() else [given])]
    found: list[Found] = []
    for path in paths:
        for seed in options.seeds:
            for one in measure(read_dataset(path), options.shares, seed):
                found.append(one)
                print(f"{one.table:<20} {one.kind} {one.share:.0%} seed {seed}: {one}", flush=True)
    _conclude(options, found, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contamination")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=".npz or .csv tables, or folders of them")
    parser.add_argument("--shares", type=float, nargs="+", default=list(_SHARES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser


_COLUMNS = {
    "found": "found",
    "found_by_forest": "by the forest alone",
    "found_by_score": "by the score alone",
    "first": "right of the first 20",
    "first_by_forest": "by the forest alone",
    "first_by_score": "by the score alone",
    "n_excluded": "taken out",
    "auroc_clean": "test AUROC, none planted",
    "auroc_before": "test AUROC, all in",
    "auroc_after": "test AUROC, found ones out",
}
_EXPLAINED = """\
- found: share of the planted records on as many first places of the list as were planted; at random, their share
- the score: of the bundle, no record counting in its own judgement
- wrong values: one number of a normal record, moved by 8 robust standard deviations
- taken out: the planted among the first twice as many places, which a person who reads so far would name"""


def _conclude(options: argparse.Namespace, found: Sequence[Found], results: Path) -> None:
    rows = [[one.table, one.kind, f"{one.n_planted} of {one.n_train}", *_figures([one])] for one in found]
    for kind, share in sorted({(one.kind, one.share) for one in found}):
        of_share = [one for one in found if (one.kind, one.share) == (kind, share)]
        rows.append(["mean", kind, f"{share:.0%}", *_figures(of_share)])
    table = markdown_table(["table", "planted", "how many", *_COLUMNS.values()], rows)
    body = f"{_sentence(found)}\n\n{_EXPLAINED}\n\n{table}"
    print(body)
    command = "python -m benchmarks.contamination --data " + " ".join(shlex.quote(path.name) for path in options.data)
    command += f" --shares {' '.join(map(str, options.shares))} --seeds {' '.join(map(str, options.seeds))}"
    figures = {"found": [asdict(one) for one in found]}
    write_report("contamination", "What does not belong among the training records", command, figures, body, results)


def _figures(found: Sequence[Found]) -> list[str]:
    """Means of the columns, as a page shows them."""
    means = {name: _mean(found, name) for name in _COLUMNS}
    return ["" if np.isnan(m) else f"{m:.0f}" if name == "n_excluded" else f"{m:.3f}" for name, m in means.items()]


def _mean(found: Sequence[Found], name: str) -> float:
    values = [getattr(one, name) for one in found]
    return float("nan") if None in values else float(np.mean(values))


def _sentence(found: Sequence[Found]) -> str:
    anomalies, wrong = ([one for one in found if one.kind == kind] for kind in get_args(Kind))
    share = np.mean([one.n_planted / one.n_train for one in anomalies])
    return (
        f"On as many first places as anomalies were planted, the list holds {_mean(anomalies, 'found'):.1%} of them in "
        f"the mean, {_mean(anomalies, 'found_by_forest'):.1%} by the forest and "
        f"{_mean(anomalies, 'found_by_score'):.1%} by the score alone, {share:.1%} at random; of records with one "
        f"wrong value {_mean(wrong, 'found'):.1%}, {_mean(wrong, 'found_by_forest'):.1%} and "
        f"{_mean(wrong, 'found_by_score'):.1%}. AUROC on records that no fit has seen: "
        f"{_mean(anomalies, 'auroc_before'):.3f} with all of the anomalies among the training records, "
        f"{_mean(anomalies, 'auroc_after'):.3f} once those are taken out that a person finds on twice as many places, "
        f"{_mean(anomalies, 'auroc_clean'):.3f} with none."
    )


if __name__ == "__main__":
    raise SystemExit(main())
