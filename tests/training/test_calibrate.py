from dataclasses import replace

import numpy as np
import pytest

from nelbo.records import Batch, RecordDecoder
from nelbo.scoring import Graph
from tests.bundles import PUMPS, normal_records, pump_graph
from training import calibrate
from training.calibrate import intervals_of


@pytest.fixture(scope="session")
def graph() -> Graph:
    return Graph(PUMPS, pump_graph(), "pumps")


def records(n: int, seed: int = 0) -> Batch:
    return RecordDecoder(PUMPS, "pumps").objects(normal_records(n, seed))


def test_each_numeric_field_has_an_interval_and_no_other(graph: Graph) -> None:
    assert list(intervals_of(graph, records(100))) == ["pressure", "in/out [l/s]", "rpm"]


def test_field_that_is_hardly_ever_there_has_none(graph: Graph) -> None:
    batch = records(100)
    numbers = batch.numbers.copy()
    numbers[18:, 2] = np.nan
    assert list(intervals_of(graph, replace(batch, numbers=numbers))) == ["pressure", "in/out [l/s]"]
    assert intervals_of(graph, records(18)) == {}


def test_interval_is_around_what_the_other_fields_let_expect(graph: Graph) -> None:
    """Pressure hidden, flow and rpm both three widths up make the latent 2, and a width of pressure is 0.5."""
    interval = intervals_of(graph, records(1000))["pressure"]
    record = {**normal_records(1)[0], "in/out [l/s]": 26.0, "rpm": 1800.0}
    hidden = np.array([[field.name == "pressure" for field in PUMPS.fields]])
    expected = float(graph.run(RecordDecoder(PUMPS, "pumps").objects([record]), hidden).expected_numbers[0, 0])
    assert expected == pytest.approx(6.0, rel=1e-6)
    low, high = interval.ends(expected)
    assert 5.0 < low < 6.0 < high < 8.0


def test_nine_of_ten_new_records_lie_within(graph: Graph) -> None:
    intervals, batch = intervals_of(graph, records(1000)), records(2000, seed=7)
    for at, field in enumerate(PUMPS.numbers):
        hidden = np.tile([one.name == field.name for one in PUMPS.fields], (len(batch), 1))
        expected = graph.run(batch, hidden).expected_numbers[:, at]
        ends = np.array([intervals[field.name].ends(number) for number in expected.tolist()])
        is_there = np.isfinite(batch.numbers[:, at])
        is_within = (ends[:, 0] <= batch.numbers[:, at]) & (batch.numbers[:, at] <= ends[:, 1])
        assert is_within[is_there].mean() == pytest.approx(0.9, abs=0.035)  # the band of 99 %


def test_a_large_table_gives_some_of_its_records(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_INTERVAL_RUNS", 300)
    assert intervals_of(graph, records(1000))["pressure"].n == (100,)
    monkeypatch.setattr(calibrate, "_INTERVAL_RUNS", 30)
    assert intervals_of(graph, records(1000))["pressure"].n == (59,)


def test_fields_of_a_wide_table_are_hidden_in_turns(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = intervals_of(graph, records(200))
    monkeypatch.setattr(calibrate, "_MOST_ALONE", 2)
    monkeypatch.setattr(calibrate, "_TURNS_OF_WIDE", 3)  # each of three fields has one to itself
    assert intervals_of(graph, records(200)) == alone
    monkeypatch.setattr(calibrate, "_TURNS_OF_WIDE", 1)  # nothing is left that tells of them
    (low, high), (lower, higher) = (of["rpm"].ends(1500.0) for of in (alone, intervals_of(graph, records(200))))
    assert higher - lower > high - low
