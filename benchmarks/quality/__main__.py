"""Runs every detector on every table and seed, resumes where it stopped, prints tables."""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.quality.detectors import DETECTORS
from benchmarks.quality.protocol import Dataset, datasets, halves
from nelbo.evaluation import f1_at_k

COLUMNS = ("dataset", "detector", "seed", "auroc", "ap", "f1", "fit_s", "score_s")
_OURS = "nelbo:score"


def main() -> None:
    """The stable entry point: `--data FOLDER --seeds 0 1 2 --out FILE.csv`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz or .csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="CSV; what it holds already is not run again")
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    options = parser.parse_args()
    done = {(row["dataset"], row["detector"], row["seed"]) for row in _read(options.out)}
    for dataset in datasets(options.data):
        for seed in options.seeds:
            for detector in options.detectors:
                if not any((dataset.name, name, str(seed)) in done for name in _names(detector)):
                    _append(options.out, _rows(dataset, detector, seed))
    _print(_read(options.out))


def _names(detector: str) -> list[str]:
    return [_OURS] if detector == "nelbo" else [detector]


def _rows(dataset: Dataset, detector: str, seed: int) -> Iterator[dict[str, Any]]:
    parts = halves(dataset, seed)
    ranking = DETECTORS[detector](parts, seed)
    for name, scores in ranking.scores.items():
        row = {
            "dataset": dataset.name,
            "detector": name,
            "seed": seed,
            "auroc": round(float(roc_auc_score(parts.is_anomaly, scores)), 6),
            "ap": round(float(average_precision_score(parts.is_anomaly, scores)), 6),
            "f1": round(f1_at_k(scores, parts.is_anomaly), 6),
            "fit_s": round(ranking.fit_s, 3),
            "score_s": round(ranking.score_s, 3),
        }
        print(f"{row['dataset']:>20} seed {seed} {name:<28} {row['auroc']:.3f} {row['ap']:.3f}", file=sys.stderr)
        yield row


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _append(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    found = list(rows)  # all of a detector's rows, or none, whatever interrupts
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerows(found)


def _print(rows: list[dict[str, str]]) -> None:
    """AUROC / AP by table, means, and a one-sided Wilcoxon test of ours against each other detector."""
    by_set: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_set[row["dataset"]][row["detector"]].append((float(row["auroc"]), float(row["ap"])))
    names = list(dict.fromkeys(row["detector"] for row in rows))
    means = {name: {d: np.mean(found[name], axis=0) for d, found in by_set.items() if name in found} for name in names}
    table = Table("table", *names, title="AUROC / average precision, mean over seeds")
    for dataset in by_set:
        cells = [means[name].get(dataset) for name in names]
        table.add_row(dataset, *("" if c is None else f"{c[0]:.3f} / {c[1]:.3f}" for c in cells))
    overall = {name: np.mean(list(found.values()), axis=0) for name, found in means.items()}
    table.add_row("mean", *(f"{overall[name][0]:.3f} / {overall[name][1]:.3f}" for name in names), style="bold")
    if _OURS in means:
        table.add_row("p, ours is better", *(_wilcoxon(means[_OURS], means[name]) for name in names))
    Console(width=24 + 24 * len(names)).print(table)


def _wilcoxon(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    shared = [dataset for dataset in ours if dataset in theirs]
    differences = np.array([ours[dataset] - theirs[dataset] for dataset in shared])
    if len(shared) < 5 or not differences.any():
        return ""
    return " / ".join(f"{wilcoxon(part, alternative='greater').pvalue:.3f}" for part in differences.T)


if __name__ == "__main__":
    main()
