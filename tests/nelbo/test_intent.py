import pytest

from nelbo.errors import IntentError
from nelbo.intent import Intent, intent_of


@pytest.mark.parametrize(
    ("given", "intent"),
    [
        ({}, Intent()),
        ({"rate": 0.0}, Intent(rate=0.0)),
        ({"rate": 0.01, "confidence": 0.9}, Intent(rate=0.01, confidence=0.9)),
        ({"confidence": 0.9}, Intent(confidence=0.9)),
        ({"fdr": 0.1}, Intent(fdr=0.1)),
        # 5 of 86,400,000 records a day.
        ({"max_false_alarms": 5, "per": "day", "records_per_s": 1000}, Intent(rate=5 / 86_400_000)),
        (
            {"max_false_alarms": 2, "per": "hour", "records_per_s": 1 / 18, "confidence": 0.9},
            Intent(rate=0.01, confidence=0.9),
        ),
        ({"max_false_alarms": 6048, "per": "week", "records_per_s": 1}, Intent(rate=0.01)),
    ],
)
def test_wish_is_understood(given: dict[str, float | str], intent: Intent) -> None:
    found = intent_of(**given)  # type: ignore[arg-type]
    assert (found.confidence, found.fdr) == (intent.confidence, intent.fdr)
    assert found.rate == pytest.approx(intent.rate)


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"rate": 1.0}, "rate"),
        ({"rate": -0.1}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"confidence": 0.49}, "confidence"),
        ({"confidence": 1.0}, "confidence"),
        ({"fdr": 0.0}, "fdr"),
        ({"fdr": 1.0}, "fdr"),
        ({"fdr": 0.1, "rate": 0.1}, "fdr"),
        ({"fdr": 0.1, "confidence": 0.9}, "fdr"),
        ({"fdr": 0.1, "max_false_alarms": 1, "per": "day", "records_per_s": 1}, "fdr"),
        ({"rate": 0.1, "max_false_alarms": 1, "per": "day", "records_per_s": 1}, "rate"),
        ({"max_false_alarms": 1}, "per"),
        ({"per": "day"}, "max_false_alarms"),
        ({"max_false_alarms": 1, "per": "day"}, "records_per_s"),
        ({"max_false_alarms": 1, "per": "year", "records_per_s": 1}, "per"),
        ({"max_false_alarms": 0, "per": "day", "records_per_s": 1}, "max_false_alarms"),
        ({"max_false_alarms": 3600, "per": "hour", "records_per_s": 1}, "max_false_alarms"),
        ({"max_false_alarms": float("inf"), "per": "day", "records_per_s": 1}, "max_false_alarms"),
        ({"max_false_alarms": 1, "per": "day", "records_per_s": 0}, "records_per_s"),
        ({"max_false_alarms": 1, "per": "day", "records_per_s": float("inf")}, "records_per_s"),
    ],
)
def test_wish_that_means_nothing_is_refused_by_name(given: dict[str, float | str], parameter: str) -> None:
    with pytest.raises(IntentError, match=f"^{parameter}: expected .*, got ") as info:
        intent_of(**given)  # type: ignore[arg-type]
    assert info.value.parameter == parameter
