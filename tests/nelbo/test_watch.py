from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from nelbo.scoring import Scorer
from nelbo.verdict import Verdict
from nelbo.watch import Watch
from tests.bundles import VERSION, normal_records, odd_record, tiny_scorer

NOW = datetime(2026, 3, 3, tzinfo=UTC)
Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


def watch(scorer: Scorer, seed: int = 0) -> Watch:
    return Watch(scorer, np.random.default_rng(seed))


def feed(watched: Watch, scorer: Scorer, records: list[dict[str, Any]], size: int = 100) -> Verdict:
    for start in range(0, len(records), size):
        watched.add(scorer.score(scorer.decoder.objects(records[start : start + size])))
    return watched.verdict(NOW)


def moved(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"in/out [l/s]": record["in/out [l/s]"] + 2.0}


def test_stream_of_the_same_source_is_fresh(scorer: Scorer) -> None:
    for seed in range(5):
        found = feed(watch(scorer, seed), scorer, normal_records(5_000, seed + 50))
        assert (found.state, found.next_command) == ("fresh", None), found.reason
        assert found.reason == "nothing in 4000 records is beyond chance"


def test_too_few_records_are_fresh_and_say_so(scorer: Scorer) -> None:
    found = feed(watch(scorer), scorer, [moved(record) for record in normal_records(40)])
    assert (found.state, found.reason) == ("fresh", "there are 40 records, and a judgement needs 250")


def test_moved_field_is_named_first_with_the_command_to_fit(scorer: Scorer) -> None:
    watched = watch(scorer)
    feed(watched, scorer, normal_records(1_000, 1))
    found = feed(watched, scorer, [moved(record) for record in normal_records(500, 2)])
    assert found.state in ("drifting", "stale")
    assert found.reason.startswith("field 'in/out [l/s]' has changed most: PSI ")
    assert found.next_command == "nelbo fit TABLE --name pumps"


def test_new_category_is_named_first(scorer: Scorer) -> None:
    records = normal_records(500, 3)
    for record in records[::12]:
        record["valve"] = "ajar"
    found = feed(watch(scorer), scorer, records)
    assert "field 'valve' has changed most: 8.4% of " in found.reason
    assert "have a category that the fit did not see" in found.reason


def test_of_a_field_that_moved_and_is_missing_less_the_move_is_told(scorer: Scorer) -> None:
    """A tenth of rpm is missing in the fit; here none is, and all are four widths higher."""
    records = [record | {"rpm": (record["rpm"] or 1500.0) + 400.0} for record in normal_records(500, 6)]
    found = feed(watch(scorer), scorer, records)
    (rpm,) = (field for field in found.judgement.fields if field.field == "rpm")
    assert rpm.changes == ("values", "missing")
    assert found.reason.startswith("field 'rpm' has changed most: PSI ")


def test_how_records_are_batched_does_not_matter(scorer: Scorer) -> None:
    records = [*normal_records(600, 4), *map(moved, normal_records(400, 5))]
    found = [feed(watch(scorer), scorer, records, size) for size in (1, 130, 1_000)]
    assert found[0].reason == found[1].reason == found[2].reason
    assert found[0].state == found[1].state == found[2].state != "fresh"


def test_change_that_is_over_is_forgotten(scorer: Scorer) -> None:
    watched = watch(scorer)
    assert feed(watched, scorer, [moved(record) for record in normal_records(1_000, 6)]).state != "fresh"
    # Its longest window had 1,000 records, and the martingale starts anew every 1,990: the alarm holds for one more.
    assert feed(watched, scorer, normal_records(5_000, 7)).state == "fresh"


def test_too_many_flagged_records_are_stale(scorer: Scorer) -> None:
    records = normal_records(500, 8)
    for i in range(0, 500, 4):
        records[i] = odd_record()
    found = feed(watch(scorer), scorer, records)
    assert found.state == "stale"
    assert "records are flagged, where 5.00% are expected" in found.reason


def test_unlikely_combinations_alone_ask_for_a_calibration(scorer: Scorer) -> None:
    """Every field as it was, each shuffled by itself: only the scores can tell."""
    records, rng = normal_records(3_000, 9), np.random.default_rng(9)
    order = rng.permutation(len(records))
    shuffled = [record | {"pressure": records[i]["pressure"]} for record, i in zip(records, order, strict=True)]
    found = feed(watch(scorer), scorer, shuffled)
    assert found.state in ("drifting", "stale")
    assert found.judgement.changed == ()
    assert "differs most, still within chance by itself" in found.reason
    assert found.next_command == f"nelbo calibrate pumps@{VERSION} TABLE"


def test_old_calibration_is_stale(scorer: Scorer) -> None:
    watched = watch(scorer)
    feed(watched, scorer, normal_records(500, 10))
    created = datetime.fromisoformat(scorer.bundle.calibration.created)
    assert watched.verdict(created + timedelta(days=365)).state == "fresh"
    found = watched.verdict(created + timedelta(days=366))
    assert (found.state, found.reason) == ("stale", "the calibration is 366 days old, and 365 are allowed")
    assert found.next_command == f"nelbo calibrate pumps@{VERSION} TABLE"
    assert watched.verdict(created + timedelta(days=30), max_age_days=7).state == "stale"


def test_memory_does_not_grow_with_the_stream(scorer: Scorer) -> None:
    watched, batch = watch(scorer), scorer.score(scorer.decoder.objects(normal_records(8_000, 11)))
    for _ in range(12):
        watched.add(batch)
    assert sum(window is not None for window in watched._waiting) <= 7
    assert len(watched._judgements) == 7
