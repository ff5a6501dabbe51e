import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import extremes
from benchmarks.extremes import BAD, ENDING, OPEN, Choice, Extrapolation, close_with, figures, main, missed, refused


def drawn(times: float, fits: bool = True, ends: bool = False) -> Extrapolation:
    return Extrapolation(times, fits, ends, covered=True, highest=9.0)


def test_figures_count_what_is_off_and_what_of_it_is_offered() -> None:
    found = figures([drawn(1.0), drawn(0.0, fits=False, ends=True), drawn(11.0), drawn(10.0, fits=False)])
    assert (found["close"], found["too_low"], found["too_high"]) == (0.5, 0.25, 0.25)
    assert (found["refused_misfit"], found["refused_end"], found["offered_and_off"]) == (0.25, 0.25, 0.25)


def test_a_refusal_helps_a_tail_that_ends_and_no_other() -> None:
    bad = figures([drawn(0.0, fits=False)] * 2 + [drawn(1.0)] * 8)
    found = {name: {2_000: bad} for name in (*OPEN, *ENDING)}
    assert [words.partition(",")[0] for words in missed(found)] == [name.partition(",")[0] for name in OPEN]
    assert missed({name: {500: bad} for name in found}) == []  # not offered


def test_scores_of_two_kinds_are_refused() -> None:
    assert refused(BAD["2 % beyond a gap"], 2_000, 5) == 1.0
    assert refused(BAD["rounded to 0.5"], 2_000, 5) == 1.0


def test_no_score_of_a_bad_kind_is_lost() -> None:
    for draw in BAD.values():
        assert draw(2_000, np.random.default_rng(0)).shape == (2_000,)


def test_a_tail_held_too_light_leaves_the_largest_score_as_threshold() -> None:
    # The rate beyond it is an exponential variable of mean 1 / n: within [0.01, 1] / n with e⁻⁰·⁰¹ − e⁻¹, 0.62; known
    # to 0.034 from 200 sets.
    narrow = Choice(prior_spread=0.001)
    assert close_with(narrow, OPEN["Pareto, shape 0.5"], 2_000, 200) == pytest.approx(0.62, abs=4 * 0.034)
    assert close_with(narrow, OPEN["exponential"], 2_000, 200) > 0.9


def test_a_run_leaves_its_figures_with_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extremes, "_SIZES", (500, 2_000))
    monkeypatch.setattr(extremes, "_COMPARED", (2_000,))
    assert main(["--seeds", "2"], tmp_path) in (0, 1)
    found = json.loads((tmp_path / "extremes.json").read_text())
    assert set(found["figures"]["normal"]) == {"500", "2000"}
    assert {"date", "processor", "revision"} <= set(found["machine"])
    assert found["command"] == "python -m benchmarks.extremes --seeds 2"
    assert "| exponential | 2,000 |" in (tmp_path / "extremes.md").read_text()
