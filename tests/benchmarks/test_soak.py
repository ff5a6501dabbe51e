import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import Sample, latency_ratio, main, slope, verdicts


def test_a_service_that_is_asked_and_swapped_for_a_while_holds_what_it_held(tmp_path: Path) -> None:
    """The short form: too short for the slope of the memory, which half an hour shows."""
    options = ["--minutes", "0.25", "--requests", "640", "--reloads", "20"]
    main(options, results=tmp_path, picture=tmp_path / "soak.png")
    found = json.loads((tmp_path / "soak.json").read_text())
    assert (found["unexpected"], sum(found["requests"].values())) == ({}, 660)
    assert found["at_rest"][0] == found["at_rest"][1]
    assert abs(found["memory_slope"]) < 0.15
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_the_slope_of_memory_is_that_of_a_line_through_all_samples() -> None:
    assert slope([Sample(at, 0, 100 + at) for at in range(11)]) == pytest.approx(10 / 105)
    assert abs(slope([Sample(at, 0, 100) for at in range(11)])) < 1e-9


def test_latency_that_doubles_is_seen() -> None:
    samples = [Sample(at, 1, 1, 1.0 if at < 5 else 2.0, 3.0) for at in range(10)]
    assert latency_ratio(samples) == 2
    slower_machine = [replace(sample, reference_ms=sample.p50_ms or 1.0) for sample in samples]
    assert latency_ratio(slower_machine) == 1


def test_each_bar_can_fail() -> None:
    good = {"unexpected": {}, "memory_slope": 0.001, "latency_ratio": 1.0, "at_rest": [{"threads": 1}, {"threads": 1}]}
    assert all(verdicts(good).values())
    bad = {"unexpected": {"x": 1}, "memory_slope": 0.02, "latency_ratio": 2.0, "at_rest": [{"threads": 1}, {}]}
    assert not any(verdicts(bad).values())
