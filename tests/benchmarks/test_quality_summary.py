from dataclasses import replace

import pytest

from benchmarks.quality.results import Row
from benchmarks.quality.summary import OURS, by_table, duels, names, overall, spreads

ROW = Row("a", OURS, 0, auroc=0.5, ap=0.5, f1=0.5, fit_s=1.0, score_s=0.1)


def rows(detector: str, *auroc: float) -> list[Row]:
    """A row for each table, which are called a, b, c, …"""
    return [replace(ROW, dataset="abcdefgh"[i], detector=detector, auroc=value) for i, value in enumerate(auroc)]


def test_a_mean_is_over_tables_of_means_over_seeds() -> None:
    found = [replace(ROW, auroc=0.6), replace(ROW, seed=1, auroc=0.8), replace(ROW, dataset="b", auroc=0.1)]
    assert by_table(found, "auroc") == {OURS: {"a": 0.7, "b": 0.1}}
    assert overall(found)[0].auroc == pytest.approx(0.4)  # not 0.5, the mean of the rows


def test_times_are_the_median_and_the_worst_row() -> None:
    (line,) = overall([replace(ROW, seed=seed, fit_s=fit_s) for seed, fit_s in enumerate([1.0, 9.0, 2.0])])
    assert (line.fit_s, line.worst_fit_s, line.score_s) == (2.0, 9.0, 0.1)


def test_our_statistics_come_first_and_are_no_peers() -> None:
    found = [*rows("kNN", 0.5), *rows("nelbo:elbo", 0.5), *rows(OURS, 0.5)]
    assert names(found) == ["nelbo:elbo", OURS, "kNN"]
    assert [duel.peer for duel in duels(found, "auroc")] == ["kNN"]


def test_a_duel_counts_tables_and_asks_whether_ours_is_better() -> None:
    found = [*rows(OURS, 0.9, 0.8, 0.7, 0.6, 0.55), *rows("kNN", 0.89, 0.78, 0.67, 0.56, 0.5)]
    (duel,) = duels(found, "auroc")
    assert (duel.wins, duel.losses, duel.ties) == (5, 0, 0)
    assert duel.difference == pytest.approx(0.03)
    assert duel.p_value == pytest.approx(1 / 32)  # the one of 2^5 signs that is all wins


def test_losing_every_duel_is_no_evidence_that_ours_is_better() -> None:
    (duel,) = duels([*rows(OURS, 0.1, 0.2, 0.3, 0.4, 0.5), *rows("kNN", 0.2, 0.4, 0.6, 0.8, 1.0)], "auroc")
    assert (duel.wins, duel.losses, duel.p_value) == (0, 5, 1.0)


@pytest.mark.parametrize("theirs", [(0.1, 0.1, 0.1, 0.1), (0.9, 0.8, 0.7, 0.6, 0.5)])
def test_too_few_tables_or_only_ties_have_no_p_value(theirs: tuple[float, ...]) -> None:
    (duel,) = duels([*rows(OURS, 0.9, 0.8, 0.7, 0.6, 0.5), *rows("kNN", *theirs)], "auroc")
    assert duel.wins + duel.losses + duel.ties == len(theirs)
    assert duel.p_value is None


def test_seeds_are_compared_on_the_tables_that_have_all_of_them() -> None:
    found = [
        *[replace(ROW, dataset=table, seed=0, auroc=value) for table, value in (("a", 0.6), ("b", 0.8))],
        *[replace(ROW, dataset=table, seed=1, auroc=value) for table, value in (("a", 0.8), ("b", 0.8))],
        replace(ROW, dataset="c", seed=0, auroc=0.0),
    ]
    (spread,) = spreads(found)
    assert spread.by_seed == pytest.approx({0: 0.7, 1: 0.8})
    assert spread.range == pytest.approx(0.1)
    assert spread.deviation == pytest.approx(0.1 / 2**0.5)


def test_one_seed_says_nothing_of_seeds() -> None:
    assert spreads([ROW]) == []
