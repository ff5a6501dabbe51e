"""Whether the list of suspicious training records finds anomalies that lie among them, and what taking them out gains.

`python -m benchmarks.contamination --data FOLDER-or-TABLE...` puts labelled anomalies among the normal records to fit
on, 1 % and 5 %, fits with the default, and looks for them in the list. It then fits again without those that a person
would find on the first twice as many places, and ranks records that no fit has seen.
"""

import argparse
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
_N_FIRST = 20  # as many as a report lists

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
    """What one table with one share of anomalies gave.

    Attributes:
        table, share, seed: which.
        n_train, n_planted: records to fit on, anomalies among them.
        found: share of the planted among the first `n_planted` of the list.
        found_by_score: the same of a list in the order of the bundle's score.
        first: share of planted among the first 20.
        first_by_score: the same of a list in the order of the bundle's score.
        ranking: AUROC of the whole list, planted against normal records.
        ranking_by_score: the same of a list in the order of the bundle's score.
        n_excluded: planted among the first 2 · `n_planted`, which a person takes out.
        auroc_clean: of a fit without any planted anomaly, on the test records.
        auroc_before: of a fit with all of them.
        auroc_after: of a fit without those that were taken out.
    """

    table: str
    share: float
    seed: int
    n_train: int
    n_planted: int
    found: float
    found_by_score: float
    first: float
    first_by_score: float
    ranking: float
    ranking_by_score: float
    n_excluded: int
    auroc_clean: float
    auroc_before: float
    auroc_after: float


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


def measure(dataset: Dataset, shares: Sequence[float], seed: int) -> Iterator[Found]:
    """What each share of planted anomalies gives; the fit without any is of the first share's normal records."""
    clean: float | None = None
    for share in shares:
        records = contaminated(dataset, share, seed)
        if clean is None:
            clean = auroc(fitted(records.train.filter(pa.array(~records.is_planted)), seed), records)
        outcome = fitted(records.train, seed)
        n = int(records.is_planted.sum())
        oddness, scores = outcome.judged.oddness, scores_of(outcome, records.train)
        by_list, by_score = (ranked(one, records.is_planted) for one in (oddness, scores))
        looked_at = outcome.judged.most_suspicious(2 * n)
        excluded = looked_at[records.is_planted[looked_at]]
        before = auroc(outcome, records)
        yield Found(
            table=dataset.name,
            share=share,
            seed=seed,
            n_train=len(records.is_planted),
            n_planted=n,
            found=float(by_list[:n].mean()),
            found_by_score=float(by_score[:n].mean()),
            first=float(by_list[:_N_FIRST].mean()),
            first_by_score=float(by_score[:_N_FIRST].mean()),
            ranking=float(roc_auc_score(records.is_planted, oddness)),
            ranking_by_score=float(roc_auc_score(records.is_planted, scores)),
            n_excluded=len(excluded),
            auroc_clean=clean,
            auroc_before=before,
            auroc_after=auroc(fitted(records.train, seed, excluded), records) if excluded.size else before,
        )


def ranked(scores: Scores, is_planted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each record is a planted one, the oddest first."""
    return is_planted[np.argsort(-scores, kind="stable")]


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
                print(f"{one.table:<20} {one.share:.0%} seed {seed}: {one}", flush=True)
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
    "found_by_score": "found by the score",
    "first": "right of the first 20",
    "first_by_score": "right of 20 by the score",
    "ranking": "AUROC of the list",
    "ranking_by_score": "AUROC of the score",
    "n_excluded": "taken out",
    "auroc_clean": "test AUROC, none planted",
    "auroc_before": "test AUROC, all in",
    "auroc_after": "test AUROC, found ones out",
}
_EXPLAINED = """\
- found: share of the planted anomalies on as many first places of the list as were planted; at random, their share
- by the score: the same of a list in the order of the bundle's score, which has learnt the planted ones
- taken out: the planted among the first twice as many places, which a person who reads so far would name"""


def _conclude(options: argparse.Namespace, found: Sequence[Found], results: Path) -> None:
    rows = [[one.table, f"{one.n_planted} of {one.n_train}", *_figures([one])] for one in found]
    for share in options.shares:
        of_share = [one for one in found if one.share == share]
        rows.append([f"mean at {share:.0%}", "", *_figures(of_share)])
    table = markdown_table(["table", "planted", *_COLUMNS.values()], rows)
    body = f"{_sentence(found)}\n\n{_EXPLAINED}\n\n{table}"
    print(body)
    command = "python -m benchmarks.contamination --data " + " ".join(shlex.quote(path.name) for path in options.data)
    command += f" --shares {' '.join(map(str, options.shares))} --seeds {' '.join(map(str, options.seeds))}"
    figures = {"found": [asdict(one) for one in found]}
    write_report("contamination", "Anomalies among the training records", command, figures, body, results)


def _figures(found: Sequence[Found]) -> list[str]:
    """Means of the columns, as a page shows them."""
    means = {name: _mean(found, name) for name in _COLUMNS}
    return [f"{value:.0f}" if name == "n_excluded" else f"{value:.3f}" for name, value in means.items()]


def _mean(found: Sequence[Found], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found]))


def _sentence(found: Sequence[Found]) -> str:
    share = np.mean([one.n_planted / one.n_train for one in found])
    return (
        f"On as many first places as anomalies were planted, the list holds {_mean(found, 'found'):.1%} of them in the "
        f"mean, {_mean(found, 'found_by_score'):.1%} if the bundle's score orders it, {share:.1%} at random. AUROC on "
        f"records that no fit has seen: {_mean(found, 'auroc_before'):.3f} with all of them among the training "
        f"records, {_mean(found, 'auroc_after'):.3f} once those are taken out that a person finds on twice as many "
        f"places, {_mean(found, 'auroc_clean'):.3f} with none."
    )


if __name__ == "__main__":
    raise SystemExit(main())
