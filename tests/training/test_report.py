"""Every number of a report, worked out again from the bundle and the table by another way."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, betabinom
from sklearn.metrics import average_precision_score, roc_auc_score

from nelbo.bundle import read_bundle, write_bundle
from nelbo.calibration import STATISTICS
from nelbo.errors import BundleError
from nelbo.records import Batch
from nelbo.scoring import Graph, Scorer, upward
from tests.browser import browser
from tests.fits import QUICK, mixed_table, numeric_table, write_csv
from training.baselines import encoded
from training.config import Config
from training.data import Data, Label, load
from training.facts import FALSE_ALARMS, RECALLS, CheckFacts, DetectorFacts, Facts, encode, parse
from training.injection import inject
from training.layout import lay_out
from training.pipeline import Outcome, Request, recalibrate, run
from training.report import better, comparison_page, page, read_facts
from training.verdict import comparison_sentence, findings

LONGER = QUICK.model_copy(update={"steps": 600})  # until two latents are in use
HOSTILE = '<script>alert("x")</script>&'
# Texts of charts that reach beyond their chart.
CUT_LABELS = """[...document.querySelectorAll('figure svg text')].filter(text => {
  const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect();
  return inner.left < outer.left - 1 || inner.right > outer.right + 1;
}).map(text => text.textContent)"""
HOSTILE_FIELD = "torque</title><img src=http://example.org/x onerror=alert(1)>"


def near(value: float) -> Any:
    """Four digits are kept."""
    return pytest.approx(value, rel=6e-4, abs=1e-9)


@dataclass(frozen=True)
class Case:
    """A fit, its facts as they lie in the bundle, and what they were made of, loaded once more."""

    outcome: Outcome
    facts: Facts
    path: Path
    data: Data
    scorer: Scorer

    def part(self, name: str) -> Batch:
        return self.data.anomalies if name == "anomalies" else self.data.part(getattr(self.data.split, name))

    def scores(self, name: str, statistic: str = "score") -> NDArray[np.float64]:
        """Higher = more anomalous."""
        values = self.scorer.score(self.part(name)).statistics
        return next(upward(one, values[one]) for one in STATISTICS if one == statistic)


def case(path: Path, request: Request) -> Case:
    outcome = run(request)
    facts = parse((outcome.folder / "report.json").read_bytes(), "the test's bundle")
    data = load(path, None, request.label, request.rate, request.seed)
    return Case(outcome, facts, path, data, Scorer(read_bundle(outcome.folder)))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A tenth of the records broken, one record of twenty twice."""
    folder = tmp_path_factory.mktemp("labelled")
    table = mixed_table(600)
    broken = np.arange(600) % 10 == 3
    torque = table["torque [Nm]"].to_numpy() + np.where(broken, 8.0, 0.0)
    table = table.set_column(2, "torque [Nm]", pa.array(torque))
    table = table.append_column("state", pa.array(np.where(broken, "broken", "ok")))
    table = table.append_column("plant", pa.array(["A"] * 600))
    table = pa.concat_tables([table, table.slice(0, 30)]).combine_chunks()
    serials = pa.array([f"s{i:05d}" for i in range(630)])
    path = write_csv(table.set_column(0, "serial", serials), folder / "t.csv")
    return case(path, Request(path, "mixed", folder / "models", label=Label("state", "ok"), config=LONGER, rate=0.05))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """No labels, and names that would be code if a page took them for it."""
    folder = tmp_path_factory.mktemp("unlabelled")
    table = mixed_table(400)
    lines = [HOSTILE if line == "west" else line for line in table["line"].to_pylist()]
    table = table.set_column(1, "line", pa.array(lines))
    table = table.rename_columns([HOSTILE_FIELD if n == "torque [Nm]" else n for n in table.column_names])
    path = write_csv(table, folder / "a&b.csv")
    return case(path, Request(path, "hostile", folder / "models", config=QUICK, seed=2))


# --- the data ------------------------------------------------------------------------------------------


def test_counts_of_records_are_those_of_the_table(labelled: Case) -> None:
    with labelled.path.open() as file:
        states = [row["state"] for row in csv.DictReader(file)]
    data = labelled.facts.data
    assert (data.n_normal, data.n_anomalies) == (states.count("ok"), states.count("broken")) == (567, 63)
    assert data.n_fit + data.n_a + data.n_b == 567
    assert data.n_a == data.n_b == 57


def test_duplicates_and_missing_values_are_counted(labelled: Case) -> None:
    with labelled.path.open() as file:
        rows = list(csv.DictReader(file))
    names = [field.name for field in labelled.data.schema.fields]
    fitted = [tuple(rows[i][name] for name in names) for i in labelled.part("fit").index]
    assert labelled.facts.data.duplicates == near(1 - len(set(fitted)) / len(fitted))
    note = next(column for column in labelled.facts.data.columns if column.name == "note")
    assert note.missing == near(sum(row[names.index("note")] == "" for row in fitted) / len(fitted))


def test_dropped_column_is_named_with_its_reason(labelled: Case) -> None:
    plant = next(column for column in labelled.facts.data.columns if column.name == "plant")
    assert (plant.role, plant.note) == ("ignored", "constant")
    assert "'plant' (constant)" in next(f.text for f in labelled.facts.findings if f.topic == "dropped columns")


# --- rates ---------------------------------------------------------------------------------------------


def test_rate_and_its_band_are_those_of_the_calibration_records(labelled: Case) -> None:
    rate, n = labelled.facts.rate, 57
    k = int(Fraction(5, 100) * (n + 1))
    assert rate.n_calibration == n
    assert rate.effective == near(k / (n + 1))
    assert [rate.low, rate.high] == [near(beta.ppf(q, k, n + 1 - k)) for q in (0.05, 0.95)]
    for name in STATISTICS:
        assert rate.thresholds[name] == pytest.approx(np.sort(labelled.scores("b", name))[-k], rel=3e-5)


def test_check_flags_one_half_by_the_other(labelled: Case) -> None:
    check = labelled.facts.check
    assert check is not None
    scores = labelled.scores("b")
    first, second = scores[:28], scores[28:]
    assert (check.n_calibrating, check.n_checked) == (28, 29)
    for nominal, realised, low, high in zip(check.nominal, check.realised, check.low, check.high, strict=True):
        k = round(nominal * 29)
        threshold = np.sort(first)[-k]
        assert realised == near(float((second > threshold + 1e-5 * max(1, abs(threshold))).mean()))
        law = betabinom(29, k, 29 - k)
        assert (low, high) == (near(law.ppf(0.05) / 29), near(law.ppf(0.95) / 29))
    k, count = round(check.nominal[check.at] * 29), round(check.realised[check.at] * 29)
    law = betabinom(29, k, 29 - k)
    assert check.p_value == near(min(1, 2 * min(law.pmf(range(count + 1)).sum(), law.pmf(range(count, 30)).sum())))


# --- detection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATISTICS)
def test_own_statistics_are_measured_through_the_bundle(labelled: Case, name: str) -> None:
    scores, is_anomaly = both(labelled, name)
    own = detector(labelled, name)
    assert own.auroc == near(roc_auc_score(is_anomaly, scores))
    assert own.average_precision == near(average_precision_score(is_anomaly, scores))


def test_manifest_and_report_agree_on_the_evaluation(labelled: Case) -> None:
    evaluation = labelled.outcome.evaluation
    assert evaluation is not None
    assert detector(labelled, "score").auroc == near(evaluation["statistics"]["score"]["auroc"])
    assert labelled.facts.histograms["score"].flagged == near(evaluation["statistics"]["score"]["power"])


def test_baselines_are_measured_on_the_same_records(labelled: Case) -> None:
    layout = lay_out(labelled.data.schema, labelled.part("fit"))
    known = encoded(layout, labelled.part("fit")).astype(np.float64)
    points = np.concatenate([encoded(layout, labelled.part(name)) for name in ("b", "anomalies")]).astype(np.float64)
    is_anomaly = np.arange(len(points)) >= 57
    distance = np.sort(np.sqrt(((points[:, None] - known) ** 2).sum(axis=2)), axis=1)[:, 4]
    assert detector(labelled, "kNN").auroc == pytest.approx(roc_auc_score(is_anomaly, distance), abs=2e-3)
    variances, axes = np.linalg.eigh(np.cov(known.T))
    kept = axes[:, ::-1][:, : int((np.cumsum(variances[::-1]) / variances.sum() < 0.9).sum()) + 1]
    centred = points - known.mean(axis=0)
    residual = ((centred - centred @ kept @ kept.T) ** 2).sum(axis=1)
    assert detector(labelled, "PCA").auroc == pytest.approx(roc_auc_score(is_anomaly, residual), abs=2e-3)
    assert 0.4 < detector(labelled, "Isolation Forest").auroc <= 1


def test_curves_hold_at_every_place(labelled: Case) -> None:
    scores, is_anomaly = both(labelled, "score")
    own = detector(labelled, "score")
    cuts = np.unique(scores)
    alarms = np.array([(scores[~is_anomaly] >= cut).mean() for cut in cuts])
    found = np.array([(scores[is_anomaly] >= cut).mean() for cut in cuts])
    precision = np.array([is_anomaly[scores >= cut].mean() for cut in cuts])
    for at, rate in enumerate(FALSE_ALARMS):
        assert own.roc[at] == near(found[alarms <= rate].max(initial=0))
    for at, recall in enumerate(RECALLS):
        highest = cuts[found >= recall - 1e-9].max()
        assert own.pr[at] == near(precision[cuts == highest][0])


@pytest.mark.parametrize("name", STATISTICS)
def test_histograms_count_every_record_once(labelled: Case, name: str) -> None:
    histogram = next(h for key, h in labelled.facts.histograms.items() if key == name)
    width = (histogram.high - histogram.low) / 40
    for counts, part in ((histogram.normal, "b"), (histogram.anomalies, "anomalies")):
        at = np.floor((labelled.scores(part, name) - histogram.low) / width).astype(int).clip(0, 40)
        assert np.abs(np.bincount(at, minlength=41) - counts).sum() <= 2  # a score on an edge falls either way
        assert sum(counts) == len(labelled.part(part))


def test_injected_anomalies_are_told_apart_by_kind(unlabelled: Case) -> None:
    compared = unlabelled.facts.comparison
    assert compared is not None
    assert compared.source == "injected"
    fit_part, part_b = unlabelled.part("fit"), unlabelled.part("b")
    layout = lay_out(unlabelled.data.schema, fit_part)
    injected = inject(layout, part_b, fit_part, np.random.default_rng([2, 14]))
    scores = unlabelled.scorer.score(injected.batch).statistics["score"]
    normal = unlabelled.scores("b")
    for kind, n in compared.kinds.items():
        of_kind = scores[[other == kind for other in injected.kind]]
        assert len(of_kind) == n
        wins = (of_kind[:, None] > normal).mean() + 0.5 * (of_kind[:, None] == normal).mean()
        assert detector(unlabelled, "score").by_kind[kind] == near(wins)


def test_sentence_says_plainly_when_another_detector_does_better(labelled: Case) -> None:
    own = detector(labelled, "score")
    weak = msgspec.structs.replace(own, auroc=0.6, average_precision=0.2)
    forest, knn, pca = (detector(labelled, name) for name in ("Isolation Forest", "kNN", "PCA"))
    strong = msgspec.structs.replace(knn, auroc=0.9, average_precision=0.5)
    poor = [msgspec.structs.replace(other, auroc=0.5, average_precision=0.1) for other in (forest, pca)]
    assert comparison_sentence([weak, strong, *poor], "labelled") == (
        "kNN does better than this model on the labelled anomalies: AUROC 0.600 against 0.900, "
        "average precision 0.200 against 0.500"
    )
    sharp = msgspec.structs.replace(own, auroc=0.7, average_precision=0.6)
    assert comparison_sentence([sharp, strong, *poor], "injected") == (
        "kNN does better than this model on injected wrong cells by one measure: AUROC 0.700 against 0.900; "
        "by the other not: average precision 0.600 against 0.500"
    )
    best = msgspec.structs.replace(own, auroc=0.95, average_precision=0.6)
    assert comparison_sentence([best, strong, *poor], "labelled").startswith("This model does better than ")


# --- fields, latents, loss -----------------------------------------------------------------------------


def test_skill_is_the_difference_of_elbos_with_fields_hidden(labelled: Case) -> None:
    graph = Graph(labelled.scorer.schema, labelled.outcome.bundle.graph, "the test's graph")
    batch, names = labelled.part("b"), [field.name for field in labelled.scorer.schema.fields]

    def energy(hidden: set[str]) -> NDArray[np.float64]:
        mask = np.tile([name in hidden for name in names], (len(batch), 1))
        outputs = graph.run(batch, mask)
        return np.asarray(outputs.contributions.sum(axis=1) + outputs.kl.sum(axis=1))

    with labelled.path.open() as file:
        rows = list(csv.DictReader(file))
    for skill in labelled.facts.skill:
        present = np.array([rows[i][skill.field] != "" for i in batch.index])
        assert skill.n == present.sum()
        told = (energy(set()) - energy({skill.field}))[present].mean()
        alone = (energy(set(names) - {skill.field}) - energy(set(names)))[present].mean()
        if labelled.scorer.schema.fields[names.index(skill.field)].is_coded:
            fitted = [rows[i][skill.field] for i in labelled.part("fit").index]
            # Half a record for each category, for all rare ones and for the unseen.
            total = len(fitted) + 0.5 * (len(set(fitted)) + 2)
            frequency = [np.log((fitted.count(rows[i][skill.field]) + 0.5) / total) for i in batch.index]
            alone = min(alone, -float(np.mean(frequency)))
        assert skill.given_others == pytest.approx(told, rel=1e-3, abs=1e-4)
        assert skill.alone == pytest.approx(alone, rel=1e-3, abs=1e-4)


def test_latents_loss_and_parity_are_those_of_the_fit(labelled: Case) -> None:
    fit, outcome = labelled.facts.fit, labelled.outcome
    assert tuple(fit.kl) == outcome.latents.kl
    assert (fit.n_active, fit.mutual_information) == (outcome.latents.n_active, outcome.latents.mutual_information)
    assert fit.parity == near(outcome.bundle.manifest.metrics["parity"])
    losses = dict(outcome.losses)
    assert all(loss == near(losses[int(step)]) for step, loss in fit.losses)
    assert fit.losses[-1][0] == LONGER.steps


def test_points_of_the_map_are_latent_means_of_calibration_records(labelled: Case) -> None:
    drawn = labelled.facts.map
    assert drawn is not None
    scored = labelled.scorer.score(labelled.part("b"))
    latents = scored.outputs.latents.astype(np.float64)
    active = latents[:, latents.var(axis=0) > 0.01]
    centred = active - active.mean(axis=0)
    axes = np.linalg.eigh(np.cov(centred.T)).eigenvectors
    places = np.abs(centred if active.shape[1] == 2 else centred @ axes[:, ::-1][:, :2])
    assert len(drawn.normal) == 57
    for x, y, p in drawn.normal:
        off = np.abs(places - np.abs([x, y])).max(axis=1) + np.abs(scored.p_values["score"] - p)
        assert off.min() < 0.02


def test_command_fits_the_same_bundle_again(labelled: Case) -> None:
    fit = labelled.facts.fit
    assert fit.command == (
        "nelbo fit t.csv --name mixed --seed 0 --label state --normal ok --rate 0.05 --config config.toml"
    )
    assert fit.config is not None
    assert Config.model_validate(tomllib.loads(fit.config)) == LONGER


# --- the verdict ---------------------------------------------------------------------------------------


def test_half_that_flags_far_more_than_asked_stops_the_deployment(labelled: Case) -> None:
    check = CheckFacts(100, 100, [0.01], [0.2], [0.0], [0.03], 0, 1e-9)
    facts = labelled.facts
    found = findings(facts.data, facts.rate, check, facts.comparison, labelled.outcome.latents)
    assert (found[0].level, found[0].topic) == ("stop", "rate not kept")
    assert msgspec.structs.replace(facts, findings=found).headline == "Not fit to deploy as it is."


def test_collapse_is_said(labelled: Case) -> None:
    facts, latents = labelled.facts, replace(labelled.outcome.latents, n_active=0)
    found = findings(facts.data, facts.rate, facts.check, facts.comparison, latents)
    assert "collapsed" in [finding.topic for finding in found]


# --- the page ------------------------------------------------------------------------------------------


def test_page_is_one_small_file_that_fetches_nothing(labelled: Case) -> None:
    html = (labelled.outcome.folder / "report.html").read_text()
    assert len(html) < 3_000_000
    assert not re.search(r"https?://|url\(|@import|<script|<link|<img|src=", html)
    assert html == page(labelled.facts).decode()


def test_report_and_its_facts_stay_small(labelled: Case) -> None:
    assert sum((labelled.outcome.folder / name).stat().st_size for name in ("report.html", "report.json")) < 90_000


def test_hostile_names_are_text(unlabelled: Case) -> None:
    html = (unlabelled.outcome.folder / "report.html").read_text()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;img" in html
    assert html.count("</title>") == 1
    both_pages = comparison_page(unlabelled.facts, unlabelled.facts).decode()
    assert "<script" not in both_pages
    assert "<img" not in both_pages


def test_page_says_that_anomalies_were_injected(unlabelled: Case) -> None:
    html = (unlabelled.outcome.folder / "report.html").read_text()
    assert "The table has no labels. The anomalies here are made" in html
    assert "no labels" in [finding.topic for finding in unlabelled.facts.findings]


def test_page_warns_that_it_shows_values_of_records(labelled: Case) -> None:
    html = (labelled.outcome.folder / "report.html").read_text()
    assert "This section shows values of 20 records of the training table, with their ids" in html


def test_bundle_lists_the_report_among_its_files(labelled: Case) -> None:
    assert {"report.html", "report.json"} <= set(labelled.outcome.bundle.manifest.files)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_page_opens_offline_without_complaint(unlabelled: Case, tmp_path: Path, width: int, scheme: str) -> None:
    path = unlabelled.outcome.folder / "report.html"
    with browser(tmp_path) as shown:
        shown.open(path, width, scheme)
        assert shown.complaints() == []
        assert shown.requests() == [path.as_uri()]
        page_width, room = shown.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert page_width == room <= width  # nothing to scroll sideways
        assert shown.value(CUT_LABELS) == []
        assert shown.value("document.querySelectorAll('figure svg').length") >= 7
        paper = shown.value("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(246, 247, 249)" if scheme == "light" else "rgb(15, 19, 23)")
        assert len(shown.screenshot()) > 10_000


# --- two fits, and the command -------------------------------------------------------------------------


def test_comparison_on_the_same_records_names_the_better_one(labelled: Case) -> None:
    first = labelled.facts
    assert first.comparison is not None
    detectors = [
        msgspec.structs.replace(d, auroc=0.99, average_precision=0.99) if d.name == "score" else d
        for d in first.comparison.detectors
    ]
    second = msgspec.structs.replace(
        first, version="later", comparison=msgspec.structs.replace(first.comparison, detectors=detectors)
    )
    assert better(first, second).startswith("B, mixed@later, is better: AUROC ")
    assert better(second, first).startswith("A, mixed@later, is better: AUROC ")
    assert better(first, first).startswith("Neither is better by more than chance makes")


def test_comparison_on_other_records_names_none(labelled: Case, unlabelled: Case) -> None:
    sentence = better(labelled.facts, unlabelled.facts)
    assert sentence.startswith("These two were judged on different records")
    assert sentence in comparison_page(labelled.facts, unlabelled.facts).decode()


def test_command_says_where_the_report_is(labelled: Case) -> None:
    done = nelbo(["report", str(labelled.outcome.folder)], labelled.path.parent)
    assert (done.returncode, done.stdout) == (0, f"{labelled.outcome.folder / 'report.html'}\n")


def test_command_draws_the_report_anew(labelled: Case, tmp_path: Path) -> None:
    done = nelbo(["report", "mixed", "-o", str(tmp_path / "r.html"), "--json"], labelled.path.parent)
    assert json.loads(done.stdout)["verdict"] == labelled.facts.headline
    assert (tmp_path / "r.html").read_bytes() == (labelled.outcome.folder / "report.html").read_bytes()


def test_command_puts_two_side_by_side(labelled: Case, unlabelled: Case, tmp_path: Path) -> None:
    folders = [str(labelled.outcome.folder), str(unlabelled.outcome.folder)]
    done = nelbo(["report", "--compare", *folders, "-o", "both.html"], tmp_path)
    assert (done.returncode, done.stdout) == (0, "both.html\n")
    assert b"Two fits side by side" in (tmp_path / "both.html").read_bytes()


@pytest.mark.parametrize("arguments", [[], ["mixed", "--compare", "mixed", "mixed"]])
def test_command_wants_one_bundle_or_two(arguments: list[str], tmp_path: Path) -> None:
    done = nelbo(["report", *arguments], tmp_path)
    assert (done.returncode, done.stderr) == (2, "nelbo: nelbo report needs one BUNDLE, or --compare A B\n")


def test_calibration_anew_leaves_the_report_behind(labelled: Case, tmp_path: Path) -> None:
    folder = recalibrate(labelled.outcome.bundle, labelled.path, Label("state", "ok"), 0.05, tmp_path)
    with pytest.raises(BundleError, match="has no report: it was calibrated anew, and the report of its fit tells"):
        read_facts(str(folder), tmp_path)


def test_bundle_without_a_report_is_said_to_have_none(labelled: Case, tmp_path: Path) -> None:
    bundle = labelled.outcome.bundle
    files = {name: (labelled.outcome.folder / name).read_bytes() for name in bundle.manifest.files}
    bare = {name: data for name, data in files.items() if not name.startswith("report.")}
    folder = write_bundle(tmp_path, bundle.manifest, bare)
    with pytest.raises(BundleError, match=r"has no report: it was made without one; nelbo fit writes one"):
        read_facts(str(folder), tmp_path)


def test_damaged_facts_are_refused(labelled: Case) -> None:
    with pytest.raises(BundleError, match=r"^it: report\.json: "):
        parse(encode(labelled.facts).replace(b'"findings"', b'"found"'), "it")


def test_table_of_two_fields_gets_a_report(tmp_path: Path) -> None:
    """Too few calibration records to check, a single direction of variance: nothing may break."""
    path = write_csv(numeric_table(40).select(["x0", "x1"]), tmp_path / "t.csv")
    facts = run(Request(path, "n", tmp_path / "models", config=QUICK)).facts
    assert facts.check is None
    assert "not checked" in [finding.topic for finding in facts.findings]


# --- helpers -------------------------------------------------------------------------------------------


def both(labelled: Case, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.concatenate([labelled.scores("b", name), labelled.scores("anomalies", name)])
    return scores, np.arange(len(scores)) >= 57


def detector(of: Case, name: str) -> DetectorFacts:
    assert of.facts.comparison is not None
    return next(detector for detector in of.facts.comparison.detectors if detector.name == name)


def nelbo(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "nelbo"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
