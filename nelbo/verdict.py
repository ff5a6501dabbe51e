"""The verdict on incoming records: one state, the reason in a sentence, and what to run next."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from nelbo.bundle import Bundle
from nelbo.judgement import MIN_RECORDS, FieldDrift, Judgement

State = Literal["fresh", "drifting", "stale"]

# A year shows every season once. Age alone is weak evidence, and what it warns of the window shows sooner. Chosen.
MAX_AGE_DAYS = 365
_LISTED = 3  # further fields that a reason names; chosen


@dataclass(frozen=True)
class Verdict:
    """What holds of the records that came in lately.

    Attributes:
        state: `fresh`: nothing beyond chance. `drifting`: records are no longer like those of the fit, or p-values no
            longer uniform. `stale`: more records are flagged than the calibration allows, or it is too old: thresholds
            do not mean any more what they say.
        reason: one sentence; the field most affected comes first.
        next_command: what to run, None where there is nothing to do.
        judgement: the window that says so.
        is_uniform: whether p-values may still be, by the martingale.
        age_days: of the calibration.
    """

    state: State
    reason: str
    next_command: str | None
    judgement: Judgement
    is_uniform: bool
    age_days: float


def verdict(
    bundle: Bundle,
    judgement: Judgement,
    is_uniform: bool,
    now: datetime,
    names: tuple[str, str] | None = None,
    max_age_days: float = MAX_AGE_DAYS,
) -> Verdict:
    """The one state of all evidence.

    Args:
        bundle: whose records they are.
        judgement: of the window.
        is_uniform: whether p-values may still be uniform.
        now: aware of its time zone.
        names: what the next command should call the bundle and a table of recent records.
        max_age_days: of the calibration.
    """
    age_days = (now - datetime.fromisoformat(bundle.calibration.created)).total_seconds() / 86_400
    is_old = age_days > max_age_days
    reasons = [*_of_fields(judgement, is_uniform), *_of_scores(judgement, is_uniform)]
    if is_old:
        reasons.append(f"the calibration is {age_days:.0f} days old, and {max_age_days:g} are allowed")
    state: State = "fresh"
    if is_old or judgement.flagged.is_too_many:
        state = "stale"
    elif reasons:
        state = "drifting"
    called, table = names or (bundle.label, "TABLE")
    command = f"nelbo fit {table} --name {bundle.name}" if judgement.changed else f"nelbo calibrate {called} {table}"
    return Verdict(
        state,
        "; ".join(reasons) if reasons else _nothing(judgement),
        command if reasons else None,
        judgement,
        is_uniform,
        age_days,
    )


def _of_fields(judgement: Judgement, is_uniform: bool) -> list[str]:
    """About fields: those that changed, or else the one that differs most, where scores have changed."""
    n = judgement.n_records
    if judgement.changed:
        first, *others = judgement.changed
        said = [f"field '{first.field}' has changed most: {_how(first, _clearest(first), n)}"]
        if others:
            listed = ", ".join(f"'{other.field}'" for other in others[:_LISTED])
            further = len(others) - _LISTED
            said.append(f"also changed: {listed}" + (f" and {further} more" if further > 0 else ""))
        return said
    closest = judgement.most_different
    if closest is None or (is_uniform and not judgement.flagged.is_too_many):
        return []
    return [f"field '{closest.field}' differs most, still within chance by itself: {_how(closest, 'values', n)}"]


def _clearest(field: FieldDrift) -> str:
    """New categories, where there are some; else what chance explains least, values or their absence."""
    if "unseen" in field.changes:
        return "unseen"
    by_chance = {"values": field.p_value, "missing": field.missing_p_value}
    return min((change for change in by_chance if change in field.changes), key=by_chance.__getitem__)


def _how(field: FieldDrift, change: str, n: int) -> str:
    if change == "unseen":
        return f"{field.unseen:.1%} of {n} records have a category that the fit did not see"
    if change == "missing":
        return f"{field.missing:.1%} of {n} records have no value, {field.missing_reference:.1%} had none in the fit"
    return f"PSI {field.psi:.2f}, where chance gives {field.psi_by_chance:.2f} in {n} records"


def _of_scores(judgement: Judgement, is_uniform: bool) -> list[str]:
    said = []
    if judgement.flagged.is_too_many:
        flagged = judgement.flagged
        said.append(
            f"{flagged.rate:.2%} of {judgement.n_records} records are flagged, "
            f"where {flagged.expected:.2%} are expected"
        )
    if not is_uniform:
        said.append("p-values are no longer uniform")
    return said


def _nothing(judgement: Judgement) -> str:
    if judgement.n_records < MIN_RECORDS:
        return f"there are {judgement.n_records} records, and a judgement needs {MIN_RECORDS}"
    return f"nothing in {judgement.n_records} records is beyond chance"
