"""Training records to look at, and those that a person takes out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from nelbo.errors import TableError
from nelbo.scoring import Graph, Scorer
from tests.fits import QUICK, categorical_table, mixed_table, numeric_table, write_csv
from training.data import Label
from training.exclusion import read_exclusion
from training.fit import Progress
from training.layout import lay_out
from training.pipeline import Outcome, Request, run
from training.prior import Exemplars, Itself
from training.suspects import NO_REASON, Judged, oddness
from training.vae import VAE

PLANTED = [7, 40]
FIELDS = ["line", "torque [Nm]", "speed", "leak", "note", "guarded", "shifts"]


def planted_table() -> pa.Table:
    """A label by which every tenth record is broken, and two normal ones whose torque and speed are wrong."""
    table = mixed_table(600)
    torque, speed = (table[name].to_numpy().copy() for name in ("torque [Nm]", "speed"))
    torque[PLANTED] += np.array([90.0, -90.0])
    speed[PLANTED] += 400.0
    table = table.set_column(2, "torque [Nm]", pa.array(torque)).set_column(3, "speed", pa.array(speed))
    return table.append_column("state", pa.array(np.where(np.arange(600) % 10 == 3, "broken", "ok")))


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("planted")
    path = write_csv(planted_table(), folder / "t.csv")
    return Request(path, "mixed", folder / "models", label=Label("state", "ok"), config=QUICK, rate=0.05)


@pytest.fixture(scope="module")
def outcome(request_of: Request) -> Outcome:
    return run(request_of)


# --- the mixture without a record ----------------------------------------------------------------------


def mixture(n_covered: NDArray[np.float64], without: int | None = None) -> Exemplars:
    """Exemplars in a plane, or what is left of them without one record of one of them."""
    rng = np.random.default_rng(5)
    centres, variances = rng.normal(size=(12, 2)).round(2), rng.uniform(0.05, 2, 12)
    counts = n_covered.copy()
    if without is not None:
        counts[without] -= 1
    kept = counts > 0
    weights = torch.from_numpy(counts[kept] / counts.sum())
    return Exemplars(torch.from_numpy(centres[kept]), torch.from_numpy(variances[kept]), weights)


@pytest.mark.parametrize("k", [0, 3, 11])
@pytest.mark.parametrize("n_covered", [np.ones(12), np.arange(1.0, 13.0)], ids=["alone", "with others"])
def test_surprise_without_itself_is_that_of_the_mixture_made_without_the_record(
    n_covered: NDArray[np.float64], k: int
) -> None:
    whole, rest = mixture(n_covered), mixture(n_covered, without=k)
    mean, log_variance = whole.centres[[k]].float() + 0.01, torch.full((1, 2), -4.6)
    itself = Itself(torch.tensor([k]), torch.tensor([1 - 1 / n_covered[k]], dtype=torch.float32))
    torch.testing.assert_close(whole.kl(mean, log_variance, itself), rest.kl(mean, log_variance))
    torch.testing.assert_close(whole.rarity(mean, itself), rest.rarity(mean))
    assert float(whole.rarity(mean, itself)) > float(whole.rarity(mean))


def test_without_itself_as_many_others_count_as_of_any_record() -> None:
    """More exemplars than matter, in 64 dimensions 16: the place of the record's own is given to the next."""
    centres = torch.from_numpy(np.random.default_rng(6).normal(size=(40, 64)).astype(np.float32))
    ones = torch.ones(40)
    whole, rest = Exemplars(centres, ones, ones / 40), Exemplars(centres[1:], ones[1:], ones[1:] / 39)
    itself = Itself(torch.tensor([0]), torch.zeros(1))
    torch.testing.assert_close(whole.rarity(centres[:1], itself), rest.rarity(centres[:1]))


# --- the list ------------------------------------------------------------------------------------------


def test_planted_records_are_listed_first_though_they_are_exemplars(outcome: Outcome) -> None:
    assert sorted(one.record for one in outcome.facts.suspects.listed[:2]) == PLANTED
    # All of so small a fit are exemplars.
    assert outcome.bundle.manifest.metrics["n_exemplars"] == len(outcome.data.split.fit)
    assert np.isin(PLANTED, outcome.data.normal.index[outcome.data.split.fit]).any()


def test_list_names_id_score_p_value_and_the_field_that_is_wrong(outcome: Outcome) -> None:
    torque = planted_table()["torque [Nm]"].to_pylist()
    for one in outcome.facts.suspects.listed[:2]:
        assert one.id == f"s{one.record:05d}"
        assert f"{torque[one.record]:.6g}" in one.reason
        assert one.reason.startswith("torque")
        assert "expected" in one.reason
        assert one.p_value <= 2 / (len(outcome.data.split.b) + 1)


def test_cluster_of_faults_is_listed_whole(tmp_path: Path) -> None:
    """2 % of the records, alike: their neighbours hide each of them, random cuts of small samples find them."""
    rng = np.random.default_rng(4)
    faults = pa.table({f"x{j}": 6.0 * (-1) ** j + 0.2 * rng.normal(size=12) for j in range(5)})
    path = write_csv(pa.concat_tables([faults, numeric_table(588)]), tmp_path / "t.csv")
    outcome = run(Request(path, "n", tmp_path / "models", config=QUICK))
    assert {one.record for one in outcome.facts.suspects.listed} >= set(range(12))


def test_list_has_the_better_place_of_each_record_with_two_judges() -> None:
    """By the forest the order is 0 1 2 3 4, by the score 4 3 1 0 2."""
    scorer: Any = None  # what gives reasons does not order
    judged = Judged(scorer, np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([2.0, 3.0, 1.0, 4.0, 5.0]))
    assert judged.most_suspicious(5).tolist() == [0, 4, 1, 3, 2]
    assert judged.most_suspicious(2).tolist() == [0, 4]


def test_report_lists_the_records_in_that_order(outcome: Outcome) -> None:
    listed = outcome.data.normal.index[outcome.judged.most_suspicious(20)]
    assert [one.record for one in outcome.facts.suspects.listed] == listed.tolist()


def test_oddness_of_a_large_table_is_that_of_its_parts(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = VAE(lay_out(outcome.data.schema, outcome.data.normal), QUICK)
    whole = oddness(vae, outcome.data.normal, seed=3)
    monkeypatch.setattr("training.suspects._AT_ONCE", 100)
    np.testing.assert_array_equal(oddness(vae, outcome.data.normal, seed=3), whole)


def test_value_out_of_all_bounds_and_missing_ones_leave_oddness_finite(outcome: Outcome) -> None:
    normal = outcome.data.normal
    numbers, codes = normal.numbers.copy(), normal.codes.copy()
    numbers[0], numbers[1, 0], codes[2] = np.nan, 1.7e308, -1
    vae = VAE(lay_out(outcome.data.schema, normal), QUICK)
    assert np.isfinite(oddness(vae, replace(normal, numbers=numbers, codes=codes), seed=0)).all()


def both_scores(outcome: Outcome) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of all normal records: the bundle's, and without each record's own part."""
    known, without = (one.score(outcome.data.normal) for one in (Scorer(outcome.bundle), outcome.judged.scorer))
    return known.statistics["score"], without.statistics["score"]


def test_record_that_is_an_exemplar_is_more_suspicious_without_itself_and_others_are_as_before(
    outcome: Outcome,
) -> None:
    known, without = both_scores(outcome)
    is_exemplar = np.isin(np.arange(len(known)), outcome.data.split.fit)
    difference = without - known
    assert (difference[is_exemplar] > 0).mean() > 0.99
    np.testing.assert_array_equal(difference[~is_exemplar], 0)


def test_hidden_fields_do_not_bring_a_record_back_into_its_own_judgement(outcome: Outcome) -> None:
    """As explanations see it: the graph knows the record by its number in the table, copies included."""
    scorer = outcome.judged.scorer
    batch = outcome.data.part(outcome.data.split.fit[:5])
    hidden = np.zeros((5, len(FIELDS)), dtype=np.bool_)
    hidden[:, 1] = True
    selfless, known = scorer.without(batch, hidden), Scorer(outcome.bundle).without(batch, hidden)
    fall = selfless.evidence[:, 1] - known.evidence[:, 1]
    assert fall.min() > -0.01  # two runtimes' float32
    assert fall.max() > 0.1
    elsewhere = replace(batch, index=batch.index + 1_000_000)  # records that the table does not have
    np.testing.assert_array_equal(scorer.without(elsewhere, hidden).evidence, known.evidence)


def test_record_that_is_there_twice_is_known_by_the_other(tmp_path: Path) -> None:
    table = numeric_table(200)
    odd = pa.table({f"x{j}": [20.0 * (-1) ** j] * 10 for j in range(5)})
    path = write_csv(pa.concat_tables([table, odd, odd.slice(0, 1)]), tmp_path / "t.csv")
    outcome = run(Request(path, "n", tmp_path / "models", config=QUICK))
    known, without = both_scores(outcome)
    twins = np.intersect1d(np.flatnonzero(outcome.data.normal.index >= 200), outcome.data.split.fit)
    assert len(twins) > 5
    # Of some ten that are alike one is the exemplar: without it, nine tenths of its weight stay, −log 0.9 nats.
    assert np.abs(without - known)[twins].max() < 0.5


def test_list_of_a_table_without_ids_or_numbers_has_reasons(tmp_path: Path) -> None:
    path = write_csv(categorical_table(), tmp_path / "t.csv")
    listed = run(Request(path, "c", tmp_path / "models", config=QUICK)).facts.suspects.listed
    assert [one.id for one in listed] == [None] * 20
    assert all("expected" in one.reason or one.reason == NO_REASON or one.reason for one in listed)


def test_small_table_lists_a_tenth_of_its_records(tmp_path: Path) -> None:
    path = write_csv(numeric_table(60), tmp_path / "t.csv")
    suspects = run(Request(path, "n", tmp_path / "models", config=QUICK)).facts.suspects
    assert (suspects.n_judged, len(suspects.listed)) == (60, 6)


def test_model_without_exemplars_judges_by_its_graph(tmp_path: Path) -> None:
    path = write_csv(numeric_table(), tmp_path / "t.csv")
    config = QUICK.model_copy(update={"prior": "standard_normal"})
    outcome = run(Request(path, "n", tmp_path / "models", config=config))
    known, without = both_scores(outcome)
    np.testing.assert_array_equal(without, known)
    assert len(outcome.facts.suspects.listed) == 20


def test_bundle_serves_by_the_whole_mixture(outcome: Outcome) -> None:
    """Leaving out is for the list alone: the exported graph and its calibration are as if there were none."""
    part_b = outcome.data.part(outcome.data.split.b)
    graph = Graph(outcome.bundle.schema, outcome.bundle.graph, "the test's graph")
    np.testing.assert_array_equal(graph.run(part_b).kl, outcome.judged.scorer.without(part_b, none_hidden(54)).kl)


def none_hidden(n: int) -> NDArray[np.bool_]:
    return np.zeros((n, len(FIELDS)), dtype=np.bool_)


def test_two_fits_with_one_seed_list_alike(request_of: Request, outcome: Outcome) -> None:
    assert run(request_of).facts.suspects == outcome.facts.suspects


def test_page_shows_the_list_as_lines_that_begin_with_the_number(outcome: Outcome) -> None:
    html = (outcome.folder / "report.html").read_text()
    assert "<h2>Training records to look at: the 20 oddest of 540</h2>" in html
    for one in outcome.facts.suspects.listed:
        assert f'<tr><td class="n">{one.record}</td><td>{one.id}</td>' in html


# --- taking records out --------------------------------------------------------------------------------


def test_excluded_records_count_nowhere(request_of: Request, outcome: Outcome, tmp_path: Path) -> None:
    exclude = tmp_path / "faults.txt"
    exclude.write_text("".join(f"{one.record}  {one.reason}\n" for one in outcome.facts.suspects.listed[:2]))
    again = run(replace(request_of, exclude=exclude))
    assert not np.isin(PLANTED, again.data.normal.index).any()
    provenance = again.bundle.manifest.data
    assert (provenance["n_normal"], provenance["n_excluded"], provenance["n_anomalies"]) == (538, 2, 60)
    assert sum(int(provenance[name]) for name in ("n_fit", "n_calibration_a", "n_calibration_b")) == 538
    assert provenance["exclusion_digest"] == read_exclusion(exclude).digest
    assert not {one.record for one in again.facts.suspects.listed} & set(PLANTED)
    assert again.facts.suspects.n_judged == 538
    assert "--exclude faults.txt" in again.facts.fit.command
    assert "2 records are left out, as faults.txt says" in again.bundle.card
    assert "n_excluded" not in outcome.bundle.manifest.data


def test_numbers_of_the_list_are_positions_in_the_table_also_where_a_label_filters(outcome: Outcome) -> None:
    table = planted_table()
    for one in outcome.facts.suspects.listed:
        assert table["state"][one.record].as_py() == "ok"
        assert table["serial"][one.record].as_py() == one.id


def test_checkpoint_of_a_fit_is_not_that_of_a_fit_without_some_records(request_of: Request, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step > 500:
            raise KeyboardInterrupt

    checkpoint, exclude = tmp_path / "fit.ckpt", tmp_path / "faults.txt"
    exclude.write_text("7\n")
    config = QUICK.model_copy(update={"steps": 600})
    with pytest.raises(KeyboardInterrupt):
        run(replace(request_of, checkpoint=checkpoint, config=config), interrupt)
    with pytest.raises(TableError, match=r"fit\.ckpt"):
        run(replace(request_of, checkpoint=checkpoint, config=config, exclude=exclude))


def exclusion(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "out.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_lines_are_numbers_with_comments_and_blank_lines_between(tmp_path: Path) -> None:
    text = (
        "\ufeff# of March\r\n\r\n  334  s00334   21.3  torque [Nm] 122, expected 42\n7\n100\tno unit\n7 again\n12# x\n"
    )
    found = read_exclusion(exclusion(tmp_path, text))
    assert found.records.tolist() == [7, 12, 100, 334]
    assert found.lines == {334: 3, 7: 4, 100: 5, 12: 7}
    assert len(found) == 4


def test_list_of_nothing_excludes_nothing(tmp_path: Path) -> None:
    assert len(read_exclusion(exclusion(tmp_path, "# none yet\n"))) == 0


@pytest.mark.parametrize("line", ["x17", "1,234", "-3", "2026-01-02", "7.5", "record 7", "s00007", "٣"])
def test_line_without_a_record_number_is_refused_by_its_place(tmp_path: Path, line: str) -> None:
    path = exclusion(tmp_path, f"7\n{line} why\n")
    with pytest.raises(TableError) as caught:
        read_exclusion(path)
    assert str(caught.value) == f"{path}, line 2: expected a record's number, counted from 0, got '{line} why'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7\n600 last\n", "line 2: record 600 is beyond the table, which has 600 records, counted from 0"),
        ("13\n", "line 1: record 13 is no normal record by its label, so no fit uses it; take the line out"),
    ],
)
def test_record_that_no_fit_could_use_is_refused(request_of: Request, tmp_path: Path, text: str, expected: str) -> None:
    path = exclusion(tmp_path, text)
    with pytest.raises(TableError) as caught:
        run(replace(request_of, exclude=path))
    assert str(caught.value) == f"{path}, {expected}"


def test_list_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.txt: cannot be read: No such file or directory"):
        read_exclusion(tmp_path / "none.txt")
    with pytest.raises(TableError, match="is not UTF-8: invalid start byte at byte 2"):
        read_exclusion(exclusion(tmp_path, b"7 \xff\n"))
