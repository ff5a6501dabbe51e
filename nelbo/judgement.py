"""A judgement: a window against the reference, with an error budget split over fields, tests and looks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nelbo.divergence import g_test, jensen_shannon, psi, psi_by_chance, rank_test
from nelbo.drift import FieldSketch
from nelbo.schema import Column
from nelbo.tails import beta_binomial_tail, hypergeometric_tail
from nelbo.window import Window

# The chance of a false alarm in 20,000 records of the same source is at most 1 %, of which parts are for
BUDGET_MARTINGALE = 0.003
BUDGET_VALUES = 0.003  # the distribution of each field's values
BUDGET_RATES = 0.002  # each field's missing values and unseen categories
BUDGET_FLAGGED = 0.002

MIN_RECORDS = 250  # of a window that is judged: a field that moved by half a standard deviation just shows in it

# What chance does not explain may still be too small to matter: a large window finds everything. Chosen:
_MIN_PSI = 0.02  # beyond chance; a number that moved by a seventh of a standard deviation
_MIN_RATE_CHANGE = 0.005  # missing or unseen, a share of records
_MIN_FLAGGED_RATIO = 1.5  # of the share flagged to the share expected

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FieldDrift:
    """How far one field's values are from the reference.

    Attributes:
        field: its name.
        psi: population stability index over its cells: bins or categories, all that are rare or unseen, missing.
        psi_by_chance: what it is on average without any change, in windows of this size.
        js: Jensen–Shannon divergence over the same cells, in bits.
        p_value: of the values that are there.
        missing: share of records without a value.
        missing_reference: the same in the reference.
        missing_p_value: of the two, two-sided.
        unseen: share of records with a category that the fit did not see.
        unseen_p_value: of it, one-sided.
        changes: which of "values", "missing" and "unseen" are beyond chance, and large enough to matter.
        evidence: the smallest of the p-values, each divided by the level that it has to keep below: ≤ 1 is beyond
            chance.
    """

    field: str
    psi: float
    psi_by_chance: float
    js: float
    p_value: float
    missing: float
    missing_reference: float
    missing_p_value: float
    unseen: float
    unseen_p_value: float
    changes: tuple[str, ...]
    evidence: float

    @property
    def excess(self) -> float:
        """The index beyond what chance gives."""
        return self.psi - self.psi_by_chance


@dataclass(frozen=True)
class Flagged:
    """How many records the bundle's own rate flags.

    Attributes:
        n: flagged records.
        rate: their share.
        expected: the effective rate.
        p_value: of so many or more, given that the calibration set is one draw.
        is_too_many: beyond chance, and by enough to matter.
    """

    n: int
    rate: float
    expected: float
    p_value: float
    is_too_many: bool


@dataclass(frozen=True)
class Judgement:
    """What one window says.

    Attributes:
        n_records: in the window.
        fields: in the schema's order.
        flagged: at the bundle's own rate.
    """

    n_records: int
    fields: tuple[FieldDrift, ...]
    flagged: Flagged

    @property
    def changed(self) -> tuple[FieldDrift, ...]:
        """The fields that changed, the most affected first."""
        return tuple(sorted((f for f in self.fields if f.changes), key=lambda f: -f.excess))

    @property
    def most_different(self) -> FieldDrift | None:
        """The field that chance explains least, changed or not."""
        return min(self.fields, key=lambda f: (f.evidence, -f.excess), default=None)

    @property
    def is_finding(self) -> bool:
        """Something is beyond chance."""
        return bool(self.changed) or self.flagged.is_too_many


def judge(window: Window, share: float = 1.0) -> Judgement:
    """A window against its reference.

    Args:
        window: of at least `MIN_RECORDS` records; fewer find nothing.
        share: of the error budget; 1 for a window that is looked at once.
    """
    if window.n_records < MIN_RECORDS:
        share = 0.0
    n_fields = max(1, len(window.schema.fields))
    fields = tuple(_field_drift(window, column, share / n_fields) for column in window.schema.fields)
    return Judgement(window.n_records, fields, _flagged(window, share))


def _field_drift(window: Window, column: Column, share: float) -> FieldDrift:
    sketch = window.reference.fields[column.name]
    counts, of_reference = window.counts(column.name), np.array([*sketch.counts, sketch.missing])
    cells, reference = _comparable(column, counts), _comparable(column, of_reference)
    n, n_reference = max(1, window.n_records), max(1, window.reference.n_records)
    p_value = _values_p_value(column, cells[:-1], reference[:-1])
    missing_p_value = _missing_p_value(int(counts[-1]), window.n_records, sketch.missing, window.reference.n_records)
    unseen = int(counts[column.unseen_code]) if column.is_coded else 0
    unseen_p_value = _unseen_p_value(column, unseen, window.n_records, sketch, window.reference.n_records)
    missing, missing_reference = int(counts[-1]) / n, sketch.missing / n_reference
    size, by_chance = psi(cells, reference), psi_by_chance(cells, reference)
    n_rates = 1 + column.is_coded
    tests = {
        "values": (p_value, BUDGET_VALUES * share, size - by_chance >= _MIN_PSI),
        "missing": (
            missing_p_value,
            BUDGET_RATES * share / n_rates,
            abs(missing - missing_reference) >= _MIN_RATE_CHANGE,
        ),
        "unseen": (unseen_p_value, BUDGET_RATES * share / n_rates, unseen / n >= _MIN_RATE_CHANGE),
    }
    return FieldDrift(
        field=column.name,
        psi=size,
        psi_by_chance=by_chance,
        js=jensen_shannon(cells, reference),
        p_value=p_value,
        missing=missing,
        missing_reference=missing_reference,
        missing_p_value=missing_p_value,
        unseen=unseen / n,
        unseen_p_value=unseen_p_value,
        changes=tuple(name for name, (p, level, matters) in tests.items() if p < level and matters),
        evidence=min(p / level if level else float("inf") for p, level, _ in tests.values()),
    )


def _comparable(column: Column, counts: Counts) -> Counts:
    """A field's cells, with rare and unseen categories in one.

    Of the fit every category is seen, of fresh records not: a rare one moves from one of these cells to the other
    without any change of the source.
    """
    if not column.is_coded:
        return counts
    known, missing = counts[: column.rare_code], counts[-1]
    return np.array([*known, counts[column.rare_code] + counts[column.unseen_code], missing])


def _values_p_value(column: Column, cells: Counts, reference: Counts) -> float:
    """Of the values that are there; a number is tested twice, for any change and for a move."""
    if column.is_coded:
        return g_test(cells, reference)
    return min(1.0, 2 * min(g_test(cells, reference), rank_test(cells, reference)))


def _missing_p_value(missing: int, n: int, in_reference: int, n_reference: int) -> float:
    """Two-sided, by Fisher's exact test: the reference is a sample, too."""
    more = hypergeometric_tail(missing, n, in_reference, n_reference)
    fewer = hypergeometric_tail(in_reference, n_reference, missing, n)
    return min(1.0, 2 * min(more, fewer))


def _unseen_p_value(column: Column, unseen: int, n: int, sketch: FieldSketch, n_reference: int) -> float:
    """By Fisher's exact test against the records whose category would be unseen, had they not been there.

    No record of the fit is unseen, and still fresh ones will be where categories are many (Good and Turing). Those
    that came once would have been; they are rare, and at most one of each rare category.
    """
    if not unseen:
        return 1.0
    alone = min(len(column.rare), sketch.counts[column.rare_code])
    return hypergeometric_tail(unseen, n, sketch.counts[column.unseen_code] + alone, n_reference)


def _flagged(window: Window, share: float) -> Flagged:
    """More flagged records than expected; too few are left to the martingale, since ties make them few anyway."""
    decision = window.decision
    n_allowed = round(decision.effective_rate * (decision.n_calibration + 1))
    rate = window.n_flagged / max(1, window.n_records)
    p_value = 1.0
    if n_allowed:
        p_value = beta_binomial_tail(
            window.n_flagged, window.n_records, n_allowed, decision.n_calibration + 1 - n_allowed
        )
    matters = rate >= _MIN_FLAGGED_RATIO * decision.effective_rate
    return Flagged(
        window.n_flagged, rate, decision.effective_rate, p_value, matters and p_value < BUDGET_FLAGGED * share
    )
