import numpy as np
import pytest

from nelbo.drift import reference_of
from nelbo.scoring import Scored, Scorer
from nelbo.window import Window
from tests.bundles import normal_records, odd_record, tiny_scorer


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(tmp_path_factory.mktemp("models"))


def window(scorer: Scorer, *batches: Scored) -> Window:
    made = Window(scorer.schema, scorer.bundle.reference, scorer.decider.decide())
    for scored in batches:
        made.add(scored)
    return made


def scored(scorer: Scorer, n: int, seed: int, rate: float | None = None) -> Scored:
    records = [*normal_records(n, seed), odd_record(valve="ajar")]
    return scorer.score(scorer.decoder.objects(records), scorer.decider.decide(rate))


def counts(of: Window) -> list[list[int]]:
    return [of.counts(field.name).tolist() for field in of.schema.fields]


def test_records_of_the_fit_are_counted_as_the_reference_has_them(scorer: Scorer) -> None:
    batch = scorer.decoder.objects([*normal_records(300, 5), odd_record(valve="ajar")])
    made = Window(scorer.schema, reference_of(scorer.schema, batch), scorer.decider.decide())
    made.add(scorer.score(batch))
    for name, sketch in made.reference.fields.items():
        assert made.counts(name).tolist() == [*sketch.counts, sketch.missing]


def test_merged_windows_count_as_one(scorer: Scorer) -> None:
    one, other = scored(scorer, 40, 1), scored(scorer, 300, 2)
    merged, whole = window(scorer, one).merged(window(scorer, other)), window(scorer, one, other)
    assert counts(merged) == counts(whole)
    assert (merged.n_records, merged.n_flagged) == (whole.n_records, whole.n_flagged) == (342, whole.n_flagged)
    assert whole.n_flagged >= 2


def test_merging_leaves_both_as_they_were(scorer: Scorer) -> None:
    one, other = window(scorer, scored(scorer, 40, 1)), window(scorer, scored(scorer, 30, 2))
    before = counts(one), counts(other)
    one.merged(other).add(scored(scorer, 300, 3))
    assert (counts(one), counts(other)) == before


def test_rate_of_a_request_does_not_change_what_counts_as_flagged(scorer: Scorer) -> None:
    strict, loose = (window(scorer, scored(scorer, 200, 4, rate)) for rate in (0.005, 0.5))
    own = int((scored(scorer, 200, 4).p_values["score"] <= 0.05).sum())
    assert strict.n_flagged == loose.n_flagged == own > 1


def test_memory_does_not_grow_with_what_comes_in(scorer: Scorer) -> None:
    made, nothing = window(scorer), scorer.score(scorer.decoder.objects([]))
    one = scored(scorer, 0, 0)
    for _ in range(1_000):
        made.add(one)
        made.add(nothing)
        assert sum(numbers.nbytes + codes.nbytes for numbers, codes in made._pending) < 256 * 8 * 5
        assert len(made._pending) < 256
    assert made.n_records == 1_000
    assert made.counts("valve")[3] == 1_000
    assert sum(of.nbytes for of in made._counts.values()) < 1_000


def test_part_of_a_batch_is_counted(scorer: Scorer) -> None:
    whole = scored(scorer, 99, 6)
    parts = window(scorer)
    parts.add(whole, slice(0, 30))
    parts.add(whole, slice(30, None))
    assert counts(parts) == counts(window(scorer, whole))
    assert np.sum(parts.counts("rpm")) == 100
