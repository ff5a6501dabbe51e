from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nelbo.bundle import read_bundle
from nelbo.calibration import CalibrationFile
from nelbo.decision import Decider
from nelbo.errors import BundleError, CalibrationError
from nelbo.explanation import explain
from nelbo.records import Batch
from nelbo.scoring import Graph, Scorer, combine, states
from nelbo.store import Store
from tests.fits import QUICK, categorical_table, mixed_table, numeric_table, write_csv
from training.calibrate import calibrated, combination_of
from training.data import Label
from training.export import PARITY
from training.pipeline import Outcome, Request, recalibrate, run


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A fit on the normal records of a table in which a tenth are broken: torque no longer follows the load."""
    folder = tmp_path_factory.mktemp("labelled")
    table = mixed_table(600)
    broken = np.arange(600) % 10 == 3
    torque = table["torque [Nm]"].to_numpy() + np.where(broken, 40.0, 0.0)
    table = table.set_column(2, "torque [Nm]", pa.array(torque)).append_column(
        "state", pa.array(np.where(broken, "broken", "ok"))
    )
    path = write_csv(table, folder / "t.csv")
    config = QUICK.model_copy(update={"steps": 400})
    return run(Request(path, "mixed", folder / "models", label=Label("state", "ok"), config=config, rate=0.05))


@pytest.fixture(scope="module")
def without_exemplars(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("without")
    config = QUICK.model_copy(update={"prior": "standard_normal", "n_latents": 3})
    return run(Request(write_csv(mixed_table(), folder / "t.csv"), "mixed", folder / "models", config=config))


def test_bundle_is_live_and_verifies(labelled: Outcome) -> None:
    store = Store(labelled.folder.parent.parent)
    assert store.find("mixed") == labelled.folder
    Scorer(read_bundle(labelled.folder)).replay()


def test_bundle_with_a_standard_normal_prior_verifies_too(without_exemplars: Outcome) -> None:
    assert Store(without_exemplars.folder.parent.parent).find("mixed") == without_exemplars.folder
    Scorer(read_bundle(without_exemplars.folder)).replay()
    assert without_exemplars.bundle.manifest.metrics["parity"] <= PARITY
    assert without_exemplars.bundle.manifest.config["prior"] == "standard_normal"


def test_kl_is_of_each_latent_with_a_standard_normal_prior_and_of_all_with_exemplars(
    labelled: Outcome, without_exemplars: Outcome
) -> None:
    for outcome, n_kl in ((labelled, 1), (without_exemplars, 3)):
        graph = Graph(outcome.bundle.schema, outcome.bundle.graph, "the test's graph")
        assert graph.run(outcome.data.normal).kl.shape == (len(outcome.data.normal), n_kl)


def test_manifest_and_card_tell_of_records_that_the_graph_holds(labelled: Outcome, without_exemplars: Outcome) -> None:
    n_fit = labelled.bundle.manifest.data["n_fit"]
    assert labelled.bundle.manifest.metrics["n_exemplars"] == n_fit  # all of so small a table, none of them twice
    assert f"holds {n_fit} of the {n_fit} records fitted on as exemplars" in labelled.bundle.card
    assert without_exemplars.bundle.manifest.metrics["n_exemplars"] == 0
    assert "as exemplars" not in without_exemplars.bundle.card


def test_graph_without_exemplars_is_the_smaller_one(labelled: Outcome, without_exemplars: Outcome) -> None:
    # Two bytes for each of the latents of each exemplar.
    n = labelled.bundle.manifest.metrics["n_exemplars"] * labelled.latents.n_latents
    assert len(labelled.bundle.graph) > 2 * n
    assert len(without_exemplars.bundle.graph) < len(labelled.bundle.graph) - n


def test_labelled_anomalies_are_evaluated_and_not_fitted(labelled: Outcome) -> None:
    assert labelled.bundle.manifest.data["n_normal"] == 540
    assert labelled.bundle.manifest.data["n_anomalies"] == 60
    assert labelled.evaluation is not None
    assert labelled.evaluation["n"] == 60 + 54
    assert labelled.evaluation["statistics"]["score"]["auroc"] > 0.95


def test_odd_field_has_the_largest_attribution(labelled: Outcome) -> None:
    scorer = Scorer(labelled.bundle)
    record = {"line": "north", "torque [Nm]": 95.0, "speed": 1500, "leak": 0, "note": 3, "guarded": True, "shifts": 0}
    scored = scorer.score(scorer.decoder.objects([record | {"serial": "s1", "state": "ok"}]))
    assert scored.flagged[0]
    explanation = explain(scorer, scored, np.array([0]))
    assert explanation.attribution[0].argmax() == scorer.schema.positions["torque [Nm]"]
    expected = explanation.expected_numbers[0, 0]  # torque is the first number
    assert 35 < expected < 65


def test_card_and_manifest_hold_no_path_of_the_machine(labelled: Outcome) -> None:
    here = str(labelled.folder.parents[2])
    assert all(here not in path.read_text(errors="replace") for path in labelled.folder.iterdir())


def test_reference_counts_the_records_of_the_fit(labelled: Outcome) -> None:
    reference = labelled.bundle.reference
    assert reference.n_records == labelled.bundle.manifest.data["n_fit"]
    for sketch in reference.fields.values():
        assert sum(sketch.counts) + sketch.missing == reference.n_records


def test_two_fits_with_one_seed_score_alike(tmp_path: Path) -> None:
    path = write_csv(categorical_table(), tmp_path / "t.csv")
    scores = []
    for name in ("one", "two"):
        scorer = Scorer(run(Request(path, name, tmp_path / "models", config=QUICK)).bundle)
        scored = scorer.score(scorer.decoder.objects([{"a": "a0", "b": "b1"}, {"a": "a1", "b": "new"}]))
        scores.append(scored.statistics["score"])
    np.testing.assert_array_equal(scores[0], scores[1])


def test_new_fit_becomes_live_and_the_old_one_previous(tmp_path: Path) -> None:
    path = write_csv(numeric_table(), tmp_path / "t.csv")
    request = Request(path, "n", tmp_path / "models", config=QUICK)
    first, second = run(request), run(replace(request, seed=1))
    aliases = Store(tmp_path / "models").aliases("n")
    assert aliases == {"live": second.bundle.version, "previous": first.bundle.version}


def test_fit_of_another_schema_is_written_and_not_made_live(tmp_path: Path) -> None:
    request = Request(write_csv(numeric_table(), tmp_path / "t.csv"), "n", tmp_path / "models", config=QUICK)
    said: list[str] = []
    first = run(request)
    second = run(replace(request, table=write_csv(categorical_table(), tmp_path / "other.csv")), say=said.append)
    store = Store(tmp_path / "models")
    assert (store.live("n").name, len(store.versions("n"))) == (first.bundle.version, 2)
    assert said[-1].startswith(f"note: 'n@{second.bundle.version}' reads other records than ")
    assert "'x0': a number → nothing" in said[-1]


def test_fit_removes_old_versions_where_it_is_told_how_many_to_keep(tmp_path: Path) -> None:
    request = Request(write_csv(numeric_table(), tmp_path / "t.csv"), "n", tmp_path / "models", config=QUICK, keep=1)
    outcomes = [run(replace(request, seed=seed)) for seed in range(3)]
    assert Store(tmp_path / "models").versions("n") == [outcome.bundle.version for outcome in outcomes[1:]]


def test_calibration_on_other_records_keeps_scores_and_changes_thresholds(tmp_path: Path) -> None:
    first = run(Request(write_csv(numeric_table(), tmp_path / "t.csv"), "n", tmp_path / "models", config=QUICK))
    other = write_csv(numeric_table(500, seed=1), tmp_path / "other.csv")
    second = read_bundle(recalibrate(first.bundle, other, None, 0.01, tmp_path / "models"))
    record = {f"x{j}": 0.5 for j in range(5)}
    before, after = (Scorer(b).score(Scorer(b).decoder.objects([record])) for b in (first.bundle, second))
    assert after.statistics["score"] == before.statistics["score"]
    assert after.decision.n_calibration == 500
    assert after.decision.effective_rate == 5 / 501
    assert second.manifest.data["digest"] == first.bundle.manifest.data["digest"]


def test_calibration_without_a_wish_keeps_that_of_the_bundle(tmp_path: Path) -> None:
    """Of 300 records 30 calibrate, whose smallest rate is 3.23 %: taken for want of records, and not kept."""
    path, other = (write_csv(numeric_table(n, seed=n), tmp_path / f"{n}.csv") for n in (300, 500))
    models = tmp_path / "models"

    def again(rate: float | None, fdr: float | None) -> CalibrationFile:
        first = run(Request(path, "n", models, rate=rate, fdr=fdr, config=QUICK))
        return read_bundle(recalibrate(first.bundle, other, None, None, models)).calibration

    assert [(found.rate, found.fdr) for found in (again(0.05, None), again(None, 0.2))] == [(0.05, None), (0.01, 0.2)]


def test_calibration_with_too_few_records_for_its_rate_is_refused(tmp_path: Path) -> None:
    first = run(Request(write_csv(numeric_table(), tmp_path / "t.csv"), "n", tmp_path / "models", config=QUICK))
    few = write_csv(numeric_table(50, seed=1), tmp_path / "few.csv")
    with pytest.raises(CalibrationError, match=r"false-alarm rate 0\.01 needs at least 99 calibration records"):
        recalibrate(first.bundle, few, None, 0.01, tmp_path / "models")
    assert Store(tmp_path / "models").versions("n") == [first.bundle.version]


def test_failed_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with pytest.raises(BundleError, match="is not a model name"):
        run(Request(tmp_path / "t.csv", "No Name", models))
    path = write_csv(numeric_table(), tmp_path / "t.csv")
    with pytest.raises(CalibrationError):
        run(Request(path, "n", models, rate=1e-6))
    assert not models.exists()


def test_realised_rate_is_the_effective_rate_over_many_calibrations(tmp_path: Path) -> None:
    """40 calibration sets of 199 and 1,000 fresh records each, all from one generator and one fitted graph.

    Each count is beta-binomial; the band of 4 standard errors of the pooled rate fails by chance once in 16,000 runs.
    """
    outcome = run(Request(write_csv(numeric_table(), tmp_path / "t.csv"), "n", tmp_path, config=QUICK))
    scorer = Scorer(outcome.bundle)
    graph = Graph(scorer.schema, outcome.bundle.graph, "n")
    n, m, k = 199, 1000, 10
    rates = []
    for seed in range(40):
        fresh = _normal(200 + n + m, seed)
        parts = [_rows(fresh, 0, 200), _rows(fresh, 200, 200 + n), _rows(fresh, 200 + n, 200 + n + m)]
        file = calibrated(graph, combination_of(graph, parts[0]), parts[1], k / (n + 1))
        rates.append(_flagged_share(graph, file, parts[2]))
    p = k / (n + 1)
    variance = p * (1 - p) / m + (m - 1) / m * p * (1 - p) / (n + 2)
    assert np.mean(rates) == pytest.approx(p, abs=4 * np.sqrt(variance / 40))


def _normal(n: int, seed: int) -> Batch:
    """Fresh records of the generator that `numeric_table` draws from with seed 0."""
    mixing = np.random.default_rng(0)
    mixing.normal(size=(300, 2))
    loadings = mixing.normal(size=(2, 5))
    rng = np.random.default_rng([7, seed])
    x = rng.normal(size=(n, 2)) @ loadings + 0.3 * rng.normal(size=(n, 5))
    x[:, 4] = np.sinh(2 * x[:, 4])
    return Batch(x, np.zeros((n, 0), dtype=np.int64), np.arange(n), [None] * n, {})


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    index = np.arange(start, stop)
    return Batch(batch.numbers[index], batch.codes[index], index, [None] * len(index), {})


def _flagged_share(graph: Graph, file: CalibrationFile, batch: Batch) -> float:
    decider = Decider(file)
    statistics, _, _ = combine(file.combination, graph.run(batch), *states(graph.schema, batch))
    return float((decider.p_values("score", statistics["score"]) <= decider.decide().effective_rate).mean())
