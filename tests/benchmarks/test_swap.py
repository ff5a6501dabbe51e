import json
from pathlib import Path

import msgspec
import pytest

from benchmarks.swap import Answer, Question, fault, main, verdicts

MODELS = Path(__file__).parents[2] / "models"


def test_ten_swaps_under_traffic_fail_no_request_and_each_gets_its_versions_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--models", str(MODELS), "--swaps", "10", "--rate", "50"], tmp_path)
    assert (code, capsys.readouterr().out.count("passes: ")) == (0, 3)
    found = json.loads((tmp_path / "swap.json").read_text())
    forms = {key.partition(",")[0] for key in found["answers"]}
    assert (forms, found["most_in_memory"] <= 2) == ({"json", "lines", "v2"}, True)


def said(version: str, value: float) -> Answer:
    result = {"score": {"value": value}, "p_value": 0.5, "flagged": False}
    return Answer("http/1.1 200 ok", msgspec.json.encode({"model": {"version": version}, "results": [result]}))


def test_an_answer_of_another_version_than_it_names_is_noticed() -> None:
    asked = Question("json", "/", "application/json", b"", {"a": [(1.0, 0.5, False)], "b": [(2.0, 0.5, False)]})
    assert [fault(asked, said("a", 1.0)), fault(asked, said("b", 2.0))] == [None, None]
    assert "not what version 'b' says" in str(fault(asked, said("b", 1.0)))
    assert "status 503" in str(fault(asked, Answer("http/1.1 503 unavailable", b"")))


def test_three_versions_in_memory_and_unanswered_calls_are_misses() -> None:
    fine = {
        "answers": {"json, version a": 5, "json, version b": 5},
        "failures": [],
        "rate": 200,
        "most_in_memory": 2,
        "n_scrapes": 9,
        "reload_statuses": {"200": 100},
        "reload_loads": 3,
    }
    assert [is_met for _, is_met in verdicts(fine, 10)] == [True] * 3
    wrong = fine | {"failures": ["x"], "most_in_memory": 3, "reload_statuses": {"200": 99, "503": 1}}
    assert [is_met for _, is_met in verdicts(wrong, 10)] == [False] * 3
