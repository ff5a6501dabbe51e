"""What a person wishes of false alarms, in one of three forms."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from nelbo.errors import IntentError

SECONDS = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0}


@dataclass(frozen=True)
class Intent:
    """A false-alarm rate, with a confidence or without; or a false discovery rate; or nothing: the bundle's own rate.

    Attributes:
        rate: share of normal records that may be flagged.
        confidence: probability with which the true rate is to stay below `rate`, whichever records calibrated.
        fdr: share of the flagged records of a request or file that may be normal, in the mean.
    """

    rate: float | None = None
    confidence: float | None = None
    fdr: float | None = None


def intent_of(
    *,
    rate: float | None = None,
    confidence: float | None = None,
    max_false_alarms: float | None = None,
    per: str | None = None,
    records_per_s: float | None = None,
    fdr: float | None = None,
) -> Intent:
    """The intent that some of these make up.

    Args:
        rate: as in `Intent`; 0 flags nothing.
        confidence: as in `Intent`.
        max_false_alarms: how many normal records may be flagged in a while of normal traffic.
        per: that while: hour, day or week.
        records_per_s: the traffic.
        fdr: as in `Intent`.

    Raises:
        IntentError: naming the first of them that is no such number, lacks another one, or contradicts one.

    >>> intent_of(max_false_alarms=864, per="day", records_per_s=1.0)
    Intent(rate=0.01, confidence=None, fdr=None)
    """
    budget = {"max_false_alarms": max_false_alarms, "per": per, "records_per_s": records_per_s}
    given = [name for name, value in budget.items() if value is not None]
    if given and len(given) < len(budget):
        absent = next(name for name in budget if name not in given)
        raise IntentError(absent, f"it beside {' and '.join(given)}", "none")
    if given and rate is not None:
        raise IntentError("rate", "a rate or max_false_alarms", "both")
    if fdr is not None and (given or rate is not None or confidence is not None):
        raise IntentError("fdr", "it without rate, confidence and max_false_alarms", "more than one of them")
    _refuse_outside("rate", rate, "a number, 0 ≤ rate < 1", lambda x: 0 <= x < 1)
    # Below a half, a confidence would promise the contrary.
    _refuse_outside("confidence", confidence, "a number, 0.5 ≤ confidence < 1", lambda x: 0.5 <= x < 1)
    _refuse_outside("fdr", fdr, "a number, 0 < fdr < 1", lambda x: 0 < x < 1)
    if max_false_alarms is not None and per is not None and records_per_s is not None:
        rate = _rate_of(max_false_alarms, per, records_per_s)
    return Intent(rate, confidence, fdr)


def _refuse_outside(name: str, value: float | None, expected: str, is_right: Callable[[float], bool]) -> None:
    if value is not None and not is_right(value):
        raise IntentError(name, expected, f"{value:g}")


def _rate_of(max_false_alarms: float, per: str, records_per_s: float) -> float:
    if per not in SECONDS:
        raise IntentError("per", f"one of {', '.join(SECONDS)}", per)
    _refuse_outside("records_per_s", records_per_s, "a number above 0", lambda x: isfinite(x) and x > 0)
    n_records = records_per_s * SECONDS[per]
    expected = f"a number above 0 and below the {n_records:g} records of a {per}"
    _refuse_outside("max_false_alarms", max_false_alarms, expected, lambda x: 0 < x < n_records)
    return max_false_alarms / n_records
