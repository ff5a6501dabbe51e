"""What every bundle keeps, whoever made it: the demo, a golden one, and ones fitted here."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from nelbo.bundle import Bundle, read_bundle
from nelbo.calibration import STATISTICS
from nelbo.explanation import explain
from nelbo.records import Batch
from nelbo.results import Result, explained_alarms, results
from nelbo.scoring import Scored, Scorer
from nelbo.store import Store
from tests.bundles import write_tiny_bundle
from tests.fits import fitted_bundle
from training.export import adversarial

MODELS = Path(__file__).parents[1] / "models"
BUNDLES: dict[str, Callable[[Path], Path]] = {
    "demo": lambda _: Store(MODELS).find("machines"),
    "golden": write_tiny_bundle,
    "mixed": lambda folder: fitted_bundle(folder, "mixed"),
    "numeric": lambda folder: fitted_bundle(folder, "numeric"),
    "categorical": lambda folder: fitted_bundle(folder, "categorical"),
    "timed": lambda folder: fitted_bundle(folder, "timed"),
    "clustered": lambda folder: fitted_bundle(folder, "clustered"),
}


@pytest.fixture(scope="module", params=list(BUNDLES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUNDLES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder)


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle)


@pytest.fixture(scope="module")
def wild(scorer: Scorer) -> Scored:
    return scorer.score(wild_batch(scorer, 2_000))


def wild_batch(scorer: Scorer, n: int) -> Batch:
    """Golden records, most of them spoilt."""
    golden = scorer.decoder.objects([entry.record for entry in scorer.bundle.golden])
    numbers, codes, _ = adversarial(scorer.schema, golden, np.random.default_rng(0), n)
    values = {field.name: [None] * n for field in scorer.schema.fields}
    return Batch(numbers, codes, np.arange(n), [None] * n, values)


def some(batch: Batch, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Batch:
    return Batch(batch.numbers[rows], batch.codes[rows], rows, [None] * len(rows), batch.values)


def test_golden_records_score_as_they_did_at_export(scorer: Scorer) -> None:
    scorer.replay()


def test_everything_said_of_any_record_is_finite(scorer: Scorer, wild: Scored) -> None:
    for name in STATISTICS:
        assert np.isfinite(wild.statistics[name]).all()
    assert np.isfinite(wild.contributions).all()
    assert np.isfinite(wild.outputs.expected_numbers).all()
    explanation = explain(scorer, wild, np.arange(20))
    assert np.isfinite(explanation.attribution).all()


def test_flagged_records_and_no_others_have_a_reason_that_names_what_is_missing_and_unseen(scorer: Scorer) -> None:
    scored = scorer.score(wild_batch(scorer, 300))
    for result in results(scorer, scored, "all"):
        assert isinstance(result, Result)
        assert (result.reason is not None) == result.flagged
        assert result.repair is None or result.flagged
        if result.reason is not None:
            assert result.reason.isprintable()
            causes = result.repair.changes if result.repair else {}
            n_unseen = len([name for name in result.unseen if name not in causes])
            assert result.reason.count(" is missing") == min(max(5 - n_unseen, 0), len(result.missing))
            more = n_unseen + len(result.missing) - 5
            assert (f"and {more} more" in result.reason) == (more > 0)


def test_what_is_expected_lies_between_the_ends_of_its_interval(scorer: Scorer, wild: Scored) -> None:
    for explained in explained_alarms(scorer, replace(wild, flagged=np.arange(len(wild.flagged)) < 50)).values():
        for part in explained.contributions or ():
            assert (part.low is None) == (part.high is None)
            assert part.low is None or part.low <= part.expected <= part.high


def test_contributions_and_kl_add_up_to_the_negative_elbo(wild: Scored) -> None:
    total = wild.contributions.sum(axis=1) + wild.kl
    np.testing.assert_allclose(total, -wild.statistics["elbo"], rtol=1e-12)
    np.testing.assert_allclose(wild.contributions.sum(axis=1), wild.statistics["reconstruction_error"], rtol=1e-12)


def test_flagged_exactly_when_the_p_value_is_at_most_the_effective_rate(scorer: Scorer) -> None:
    for rate in (0.0, 0.05, 0.5):
        if 0 < rate < 1 / (scorer.decider.n + 1):
            continue
        scored = scorer.score(wild_batch(scorer, 500), scorer.decider.decide(rate))
        by_p_value = scored.p_values["score"] <= scored.decision.effective_rate
        by_threshold = scored.statistics["score"] > scored.decision.thresholds["score"]
        np.testing.assert_array_equal(scored.flagged, by_p_value)
        np.testing.assert_array_equal(scored.flagged, by_threshold)


@pytest.mark.parametrize("size", [1, 3, 64, 1500])
def test_batch_size_does_not_change_a_score(scorer: Scorer, wild: Scored, size: int) -> None:
    rows = np.arange(min(len(wild.batch), 40 * size))
    parts = [scorer.score(some(wild.batch, chunk)) for chunk in np.array_split(rows, -(-len(rows) // size))]
    for name in STATISTICS:
        found = np.concatenate([part.statistics[name] for part in parts])
        np.testing.assert_allclose(found, wild.statistics[name][rows], rtol=1e-5, atol=1e-5)


def test_order_does_not_change_a_score(scorer: Scorer, wild: Scored) -> None:
    order = np.random.default_rng(1).permutation(len(wild.batch))
    found = scorer.score(some(wild.batch, order))
    for name in STATISTICS:
        np.testing.assert_allclose(found.statistics[name], wild.statistics[name][order], rtol=1e-5, atol=1e-5)


def test_another_process_gives_the_same_scores(folder: Path, scorer: Scorer) -> None:
    records = [entry.record for entry in scorer.bundle.golden]
    here = scorer.score(scorer.decoder.objects(records)).statistics["score"]
    code = (
        "import sys; from pathlib import Path; from nelbo import Scorer, read_bundle\n"
        "s = Scorer(read_bundle(Path(sys.argv[1])))\n"
        "r = [g.record for g in s.bundle.golden]\n"
        "print(*s.score(s.decoder.objects(r)).statistics['score'])\n"
    )
    printed = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    np.testing.assert_allclose([float(text) for text in printed.stdout.split()], here, rtol=1e-5)


def test_missing_value_is_charged_what_is_typical_of_its_field(scorer: Scorer) -> None:
    field = scorer.schema.fields[0]
    complete = next(entry.record for entry in scorer.bundle.golden if None not in entry.record.values())
    record = {**complete, field.name: None}
    scored = scorer.score(scorer.decoder.objects([record]))
    assert scored.missing[0].tolist() == [True] + [False] * (len(scorer.schema.fields) - 1)
    assert scored.contributions[0, 0] == scorer.bundle.calibration.combination.typical[0]


def test_unseen_category_is_odder_than_any_seen_one(scorer: Scorer) -> None:
    golden = scorer.decoder.objects([entry.record for entry in scorer.bundle.golden])
    seen = scorer.score(golden).contributions
    for j, column in enumerate(scorer.schema.codes):
        at = scorer.schema.positions[column.name]
        codes = golden.codes.copy()
        codes[:, j] = column.unseen_code
        scored = scorer.score(replace(golden, codes=codes))
        assert scored.unseen[:, at].all()
        assert (scored.contributions[:, at] > seen[:, at]).mean() > 0.9


def test_every_file_of_a_bundle_is_small_and_no_code(bundle: Bundle) -> None:
    assert len(bundle.graph) < 3 * 2**20
    assert all(name.endswith((".json", ".onnx", ".ndjson", ".md", ".html")) for name in bundle.manifest.files)


def test_graph_draws_no_random_number_and_reads_no_other_file(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.graph)
    assert not any(
        "Random" in node.op_type or node.op_type in ("Multinomial", "Bernoulli") for node in model.graph.node
    )
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
