import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nelbo.bundle import read_bundle
from nelbo.calibration import STATISTICS, parse_calibration
from nelbo.errors import BundleError
from nelbo.results import decision_answer, results
from nelbo.scoring import Scorer
from nelbo.segments import Segments
from nelbo.window import Window
from tests.bundles import PUMPS, normal_records, odd_record, write_tiny_bundle


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """199 calibration records, of which about 40 are of shut valves."""
    return Scorer(read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models"), segment="valve")))


def test_record_is_judged_by_its_segment_where_that_has_enough_records(scorer: Scorer) -> None:
    records = [odd_record(valve=valve) for valve in ("open", "shut", "ajar")]
    n_open, n_shut = scorer.decider.n_of_segments
    assert (n_open + n_shut, n_open > 99 > n_shut) == (199, True)
    scored = scorer.score(scorer.decoder.objects(records), scorer.decider.decide(0.05))
    assert scored.decision.judges(scored.segments).tolist() == [0, 1, -1]  # an unseen category is judged by all
    smallest = [1 / (n_open + 1), 1 / (n_shut + 1), 1 / 200]
    assert scored.p_values["score"].tolist() == pytest.approx(smallest)
    strict = scorer.score(scorer.decoder.objects(records), scorer.decider.decide(0.01))
    assert strict.decision.judges(strict.segments).tolist() == [0, -1, -1]  # 39 records do not carry 1 %


def test_segment_too_small_for_the_bundles_own_rate_never_judges(tmp_path: Path) -> None:
    """About 40 records do not carry the bundle's 1 %; at 10 %, or at 0, they would, and p-values would be coarse."""
    scorer = Scorer(read_bundle(write_tiny_bundle(tmp_path, segment="valve", rate=0.01)))
    for rate in (0.0, 0.01, 0.1, 0.5):
        assert list(scorer.decider.decide(rate).segments) == [0]


def test_window_counts_by_the_bundles_own_decision_whatever_a_request_asks(scorer: Scorer) -> None:
    batch = scorer.decoder.objects(normal_records(300, seed=9))
    counts = []
    for rate in (None, 0.005, 0.3):
        window = Window(scorer.schema, scorer.bundle.reference, scorer.decider.decide())
        window.add(scorer.score(batch, scorer.decider.decide(rate)))
        counts.append(window.n_flagged)
    assert counts[0] == counts[1] == counts[2]


def test_missing_value_of_the_segments_field_is_judged_by_all(tmp_path: Path) -> None:
    scorer = Scorer(read_bundle(write_tiny_bundle(tmp_path, segment="heated")))
    batch = scorer.decoder.objects(normal_records(5))
    batch.codes[0, [field.name for field in PUMPS.codes].index("heated")] = -1
    assert scorer.score(batch).segments[0] == -1


def test_flagged_exactly_where_the_p_value_is_up_to_the_segments_effective_rate(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([*normal_records(400, seed=3), odd_record()]))
    rates = np.array([scored.decision.of(number).effective_rate for number in scored.segments.tolist()])
    assert np.array_equal(scored.flagged, scored.p_values["score"] <= rates)
    assert scored.flagged.any()


def test_answer_names_the_segment_and_what_held_in_it(scorer: Scorer) -> None:
    scored = scorer.score(scorer.decoder.objects([odd_record(valve="shut"), odd_record(valve="ajar")]))
    found = msgspec.to_builtins(results(scorer, scored))
    assert [result["segment"] for result in found] == ["shut", None]
    decision = msgspec.to_builtins(decision_answer(scorer, scored.decision, set(scored.segments.tolist())))
    (of_shut,) = decision["segments"]
    assert (of_shut["segment"], of_shut["n_calibration"]) == ("shut", scorer.decider.n_of_segments[1])
    assert of_shut["threshold"] == found[0]["score"]["threshold"] != found[1]["score"]["threshold"]


def test_bundle_without_segments_says_so(tmp_path: Path) -> None:
    plain = Scorer(read_bundle(write_tiny_bundle(tmp_path)))
    assert decision_answer(plain, plain.decider.decide(), {-1}).segments is None


@pytest.mark.parametrize(
    ("field", "values", "detail"),
    [
        ("rpm", ("open",), "segments are those of 'rpm', which is no field of categories"),
        ("gone", ("open",), "segments are those of 'gone', which is no field of categories"),
        ("valve", ("ajar",), "segment 'ajar' is no category of 'valve'"),
    ],
)
def test_segments_of_another_schema_are_refused(
    tmp_path: Path, field: str, values: tuple[str, ...], detail: str
) -> None:
    bundle = read_bundle(write_tiny_bundle(tmp_path))
    members = dict.fromkeys(STATISTICS, (-1,) * bundle.calibration.n)
    segments = Segments(field=field, values=values, members=members)
    calibration = bundle.calibration.model_copy(update={"segments": segments})
    with pytest.raises(BundleError) as info:
        Scorer(type(bundle)(**(vars(bundle) | {"calibration": calibration})))
    assert str(info.value) == f"bundle '{bundle.label}': calibration.json: {detail}"


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        (
            {"score": [0], "elbo": [0], "reconstruction_error": [0]},
            "the file: segments need a member for every score of every statistic",
        ),
        ({"score": [0] * 199}, "the file: segments need a member for every score of every statistic"),
        ({name: [2] * 199 for name in STATISTICS}, "segments: a member belongs to segment 2, and there are 2"),
    ],
)
def test_members_that_do_not_fit_are_refused(scorer: Scorer, members: dict[str, list[int]], detail: str) -> None:
    found = json.loads(scorer.bundle.calibration.model_dump_json())
    found["segments"]["members"] = members
    with pytest.raises(BundleError) as info:
        parse_calibration(json.dumps(found).encode(), "bundle 'a@1'")
    assert str(info.value) == f"bundle 'a@1': calibration.json: {detail}"
