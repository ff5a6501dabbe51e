import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nelbo.bundle import Bundle, read_bundle
from nelbo.calibration import STATISTICS
from nelbo.errors import BundleError
from nelbo.scoring import CHUNK, Graph, Scorer
from tests.bundles import PUMPS, normal_records, odd_record, pump_graph, tiny_scorer, write_tiny_bundle

N_FIELDS = len(PUMPS.fields)


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models")))


def hard_records(n: int) -> list[dict[str, Any]]:
    """Normal records, and among them every kind that is hard on a scorer."""
    hard = [
        odd_record(),
        odd_record(pressure=3e38),
        odd_record(rpm=-1e300),
        odd_record(pressure=5e-324),
        odd_record(valve="never seen", heated=None),
        odd_record(pressure=None, rpm=None, valve=None, heated=None) | {"in/out [l/s]": None},
    ]
    records = normal_records(n, seed=5)
    records[: len(hard)] = hard[:n]
    return records


# --- one record, one score ---------------------------------------------------------------------------


def test_record_gets_the_same_score_in_any_batch_and_order(scorer: Scorer) -> None:
    records = hard_records(60)
    together = scorer.score(scorer.decoder.objects(records))
    alone = [scorer.score(scorer.decoder.objects([record])) for record in records]
    order = np.random.default_rng(3).permutation(len(records))
    shuffled = scorer.score(scorer.decoder.objects([records[i] for i in order]))
    for name in STATISTICS:
        expected = together.statistics[name]
        np.testing.assert_allclose([one.statistics[name][0] for one in alone], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(shuffled.statistics[name], expected[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_batch_is_whole_at_every_border_of_a_chunk(scorer: Scorer, n: int) -> None:
    scored = scorer.score(scorer.decoder.objects(hard_records(max(n, 6))[:n]))
    last = scorer.score(scorer.decoder.objects([hard_records(max(n, 6))[n - 1]]))
    assert scored.contributions.shape == (n, N_FIELDS)
    assert scored.flagged.shape == scored.kl.shape == scored.p_values["elbo"].shape == (n,)
    assert scored.statistics["score"][-1] == pytest.approx(last.statistics["score"][0], rel=1e-5)


def test_empty_batch_has_the_shapes_of_no_records(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([]))
    assert scored.contributions.shape == (0, N_FIELDS)
    assert scored.outputs.expected_numbers.shape == (0, len(PUMPS.numbers))
    assert (scored.flagged.shape, scored.statistics["score"].shape) == ((0,), (0,))


def test_everything_is_finite(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects(hard_records(50)))
    for values in (*scored.statistics.values(), *scored.p_values.values(), scored.contributions):
        assert np.isfinite(values).all()


# --- what the statistics are -------------------------------------------------------------------------


def test_contributions_and_kl_are_the_negative_elbo(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects(hard_records(50)))
    total = scored.contributions.sum(axis=1) + scored.kl
    np.testing.assert_allclose(total, -scored.statistics["elbo"], rtol=1e-12)
    np.testing.assert_allclose(scored.contributions.sum(axis=1), scored.statistics["reconstruction_error"], rtol=1e-12)


def test_contributions_are_those_of_the_model(scorer: Scorer) -> None:
    """Pressure 1, flow 0 and rpm −1 widths off their centres: their mean, the latent, is 0."""
    record = {"pressure": 5.5, "in/out [l/s]": 20.0, "rpm": 1400.0, "valve": "shut", "heated": False}
    scored = scorer.score(scorer.decoder.objects([record]))
    root = 0.5 * np.log(2 * np.pi)
    expected = [0.5 + root, -np.log(0.18), root, 0.5 + root, -np.log(0.7)]
    np.testing.assert_allclose(scored.contributions[0], expected, rtol=1e-6)
    assert scored.kl.tolist() == [0.0]


def test_missing_value_is_charged_what_is_typical(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([odd_record(rpm=None, valve=None)]))
    typical = scorer.bundle.calibration.combination.typical
    for name in ("rpm", "valve"):
        j = PUMPS.positions[name]
        assert scored.missing[0, j]
        assert scored.contributions[0, j] == typical[j]
    assert scored.missing.sum() == 2


def test_nats_of_unseen_categories_count_in_full_beside_the_other_parts(scorer: Scorer) -> None:
    """Valve: a chance of 1 % to be unseen, −log 0.01 nats; of a known category, however rare, nothing is added."""
    scored = scorer.score(scorer.decoder.objects([odd_record(valve="ajar"), odd_record(valve="shut")]))
    combination = scorer.bundle.calibration.combination
    others = combination.score(scored.contributions, scored.kl, scored.outputs.evidence)
    assert scored.statistics["score"] - others == pytest.approx([-np.log(0.01), 0.0], abs=1e-5)


def test_unseen_category_is_scored_and_counted(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([odd_record(valve="ajar")]))
    assert np.flatnonzero(scored.unseen[0]).tolist() == [PUMPS.positions["valve"]]
    assert scored.contributions[0, PUMPS.positions["valve"]] == pytest.approx(-np.log(0.01), rel=1e-6)


def test_flagged_is_a_p_value_at_most_the_rate_is_a_score_beyond_the_threshold(scorer: Scorer) -> None:
    batch = scorer.decoder.objects(hard_records(400))
    for rate in (0.0, 0.005, 0.05, 0.3, 0.999):
        decision = scorer.decider.decide(rate)
        scored = scorer.score(batch, decision)
        beyond = scored.statistics["score"] > decision.thresholds["score"]
        assert scored.flagged.tolist() == beyond.tolist()
        assert scored.flagged.tolist() == (scored.p_values["score"] <= decision.effective_rate).tolist()


def test_bundles_own_rate_decides_where_no_decision_is_given(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([odd_record()]))
    assert scored.decision.rate == scorer.bundle.calibration.rate
    assert scored.flagged.tolist() == [True]


# --- what is refused ---------------------------------------------------------------------------------


def test_replay_of_a_whole_bundle_says_nothing(scorer: Scorer) -> None:
    scorer.replay()


@pytest.mark.parametrize("name", STATISTICS)
def test_replay_refuses_golden_records_that_score_differently(bundle: Bundle, name: str) -> None:
    *others, last = bundle.golden
    changed = {n: getattr(last, n) * (1.001 if n == name else 1.0) for n in STATISTICS}
    other = type(last)(last.record, **changed)
    with pytest.raises(BundleError) as info:
        Scorer(replace(bundle, golden=(*others, other))).replay()
    assert str(info.value) == (
        f"bundle '{bundle.label}': golden record 3 no longer gets its {name}; "
        "this machine computes the model differently from the one that exported it"
    )


def test_replay_refuses_golden_records_of_another_schema(bundle: Bundle) -> None:
    last = bundle.golden[-1]
    other = type(last)({**last.record, "rpm": "fast"}, last.score, last.elbo, last.reconstruction_error)
    with pytest.raises(BundleError, match=r"golden record 0, field 'rpm': expected a number$"):
        Scorer(replace(bundle, golden=(other,))).replay()


def test_calibration_of_other_fields_is_refused(bundle: Bundle) -> None:
    combination = bundle.calibration.combination
    other = combination.model_copy(update={"fields": combination.fields[::-1]})
    calibration = bundle.calibration.model_copy(update={"combination": other})
    with pytest.raises(BundleError, match=r"calibration\.json was made for other fields than schema\.json has$"):
        Scorer(replace(bundle, calibration=calibration))


def changed_graph(change: Callable[[onnx.GraphProto], object]) -> bytes:
    model = onnx.load_from_string(pump_graph())
    change(model.graph)
    return bytes(model.SerializeToString())


def renamed_output(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["kl"], ["divergence"]))
    graph.output.append(helper.make_tensor_value_info("divergence", TensorProto.FLOAT, ["n", 1]))
    graph.output.remove(next(output for output in graph.output if output.name == "kl"))


def another_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("secret", TensorProto.FLOAT, ["n", 1]))
    graph.node.append(helper.make_node("Identity", ["secret"], ["unused"]))


def fewer_contributions(graph: onnx.GraphProto) -> None:
    constant = next(value for value in graph.initializer if value.name == "in_order")
    constant.CopyFrom(numpy_helper.from_array(np.array([0, 1]), "in_order"))
    del next(output for output in graph.output if output.name == "contributions").type.tensor_type.shape.dim[:]


def category_out_of_range(graph: onnx.GraphProto) -> None:
    constant = next(value for value in graph.initializer if value.name == "surprise0")
    constant.CopyFrom(numpy_helper.from_array(np.zeros(1, dtype=np.float32), "surprise0"))


def test_graph_with_another_interface_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"^bundle 'x': score\.onnx: expected outputs contributions, kl, .*, got "):
        Graph(PUMPS, changed_graph(renamed_output), "bundle 'x'")
    with pytest.raises(BundleError, match=r"^bundle 'x': score\.onnx: expected inputs numbers, codes, hidden, got "):
        Graph(PUMPS, changed_graph(another_input), "bundle 'x'")


def test_graph_that_answers_for_other_fields_is_refused_in_replay(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"score\.onnx answers for other fields than schema\.json has$"):
        Scorer(replace(bundle, graph=changed_graph(fewer_contributions))).replay()


def test_graph_that_fails_while_it_runs_is_refused_in_replay(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    scorer = Scorer(replace(bundle, graph=changed_graph(category_out_of_range)))
    with pytest.raises(BundleError, match=r"score\.onnx cannot be run: "):
        scorer.replay()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "graph",
    [b"", b"\x00", b"garbage" * 100, pump_graph()[:-200], pump_graph()[200:]],
    ids=["", "0", "text", "head", "tail"],
)
def test_broken_graph_is_refused_and_the_runtime_prints_nothing(
    graph: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BundleError, match=r"^bundle 'x': score\.onnx cannot be loaded: "):
        Graph(PUMPS, graph, "bundle 'x'")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["weights.bin", "sub/weights.bin", "link.bin", "../outside.bin", "absolute"])
def test_graph_with_weights_in_another_file_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    weights = np.array([5.0, 20.0, 1500.0]).tobytes()
    for path in (inside / "weights.bin", inside / "sub/weights.bin", tmp_path / "outside.bin"):
        path.write_bytes(weights)
    os.link(tmp_path / "outside.bin", inside / "link.bin")
    monkeypatch.chdir(inside)

    def outsource(graph: onnx.GraphProto) -> None:
        centre = next(value for value in graph.initializer if value.name == "centre")
        centre.ClearField("raw_data")
        centre.data_location = TensorProto.EXTERNAL
        location = str(tmp_path / "outside.bin") if place == "absolute" else place
        for key, value in {"location": location, "length": str(len(weights))}.items():
            entry = centre.external_data.add()
            entry.key, entry.value = key, value

    with pytest.raises(BundleError, match=r"score\.onnx cannot be loaded: "):
        Graph(PUMPS, changed_graph(outsource), "bundle 'x'")
