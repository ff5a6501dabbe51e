from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nelbo.drift import Reference, reference_of
from nelbo.judgement import MIN_RECORDS, Judgement, judge
from nelbo.records import RecordDecoder
from nelbo.schema import Column, Schema
from nelbo.scoring import Scorer
from nelbo.window import Window
from tests.bundles import PUMPS, normal_records, tiny_scorer

Change = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


@cache
def reference() -> Reference:
    return reference_of(PUMPS, RecordDecoder(PUMPS).objects(normal_records(4_000, 9_999)))


def judged(scorer: Scorer, n: int, seed: int, change: Change | None = None) -> Judgement:
    """Records of healthy pumps, changed, against 4,000 others."""
    rng = np.random.default_rng(seed)
    window = Window(PUMPS, reference(), scorer.decider.decide())
    records = [change(record, rng) if change else record for record in normal_records(n, seed)]
    window.add(scorer.score(scorer.decoder.objects(records)))
    return judge(window)


def moved(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return record | {"in/out [l/s]": record["in/out [l/s]"] + 1.0}


def ajar(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return record | {"valve": "ajar"} if rng.random() < 0.04 else record


def silent(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return record | {"rpm": None} if rng.random() < 0.2 else record


def shut(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return record | {"valve": "shut"} if rng.random() < 0.3 else record


@pytest.mark.parametrize(
    ("change", "field", "changes"),
    [
        (moved, "in/out [l/s]", ("values",)),
        (ajar, "valve", ("values", "unseen")),
        (silent, "rpm", ("missing",)),
        (shut, "valve", ("values",)),
    ],
)
def test_changed_field_is_named_with_what_changed(
    scorer: Scorer, change: Change, field: str, changes: tuple[str, ...]
) -> None:
    found = judged(scorer, 500, 1, change).changed
    assert [(one.field, one.changes) for one in found] == [(field, changes)]


def test_windows_of_the_same_source_change_nothing(scorer: Scorer) -> None:
    found = [bool(judged(scorer, MIN_RECORDS, seed).changed) for seed in range(100)]
    assert sum(found) <= 3  # 0.5 a look: four of a hundred come once in 500 times


def test_too_few_records_find_nothing(scorer: Scorer) -> None:
    def far(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return record | {"pressure": 90.0}

    assert judged(scorer, MIN_RECORDS, 1, far).is_finding
    found = judged(scorer, MIN_RECORDS - 1, 1, far)
    assert not found.is_finding
    assert found.fields[0].p_value < 1e-20  # told, not acted upon


def test_large_window_does_not_alarm_on_next_to_nothing(scorer: Scorer) -> None:
    def little(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return record | {"pressure": record["pressure"] + 0.04}  # 0.08 of its standard deviation

    pressure = judged(scorer, 20_000, 2, little).fields[0]
    assert pressure.p_value < 1e-4
    assert pressure.changes == ()


def test_missing_values_are_fishers_exact_test(scorer: Scorer) -> None:
    rpm = judged(scorer, 500, 3).fields[3]
    found = [[round(rpm.missing * 500), 500 - round(rpm.missing * 500)]]
    found += [[round(rpm.missing_reference * 4000), 4000 - round(rpm.missing_reference * 4000)]]
    tails = [stats.fisher_exact(found, alternative=side).pvalue for side in ("greater", "less")]
    assert rpm.missing_p_value == pytest.approx(min(1, 2 * min(tails)), rel=1e-7)


def test_flagged_rate_is_judged_by_a_beta_binomial(scorer: Scorer) -> None:
    flagged = judged(scorer, 500, 4, moved).flagged
    assert flagged.expected == 0.05
    assert flagged.p_value == pytest.approx(stats.betabinom.sf(flagged.n - 1, 500, 10, 190), rel=1e-6)


def test_many_more_flagged_than_expected_are_too_many(scorer: Scorer) -> None:
    def odd(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return record | {"pressure": 9.5} if rng.random() < 0.4 else record

    assert judged(scorer, 500, 5, odd).flagged.is_too_many
    assert not judged(scorer, 500, 5).flagged.is_too_many


def test_rare_categories_lead_one_to_expect_unseen_ones(scorer: Scorer) -> None:
    """Where 40 of 2,000 records had a category of their own, 1 in 50 fresh ones will be new."""
    rare = tuple(f"town {i}" for i in range(40))
    found = []
    for column in (
        Column(name="town", role="field", kind="categorical", categories=("x",), rare=rare),
        Column(name="town", role="field", kind="categorical", categories=("x",)),
    ):
        schema = Schema(columns=(column,))
        decoder = RecordDecoder(schema)
        towns = [{"town": t} for t in [*rare, *["x"] * 1960]] if column.rare else [{"town": "x"}] * 2000
        window = Window(schema, reference_of(schema, decoder.objects(towns)), scorer.decider.decide())
        codes = decoder.objects([{"town": "x"}] * 490 + [{"town": "new"}] * 10)
        window._pending.append((codes.numbers, codes.codes))
        window._n_records = 500
        found.append(judge(window).is_finding)
    assert found == [False, True]
