"""Why records are odd: field by field, and which few fields together make one odd, and what they should have been."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nelbo.calibration import ODDEST_WEIGHT, Combination, Scores
from nelbo.expectation import Expected, expected_category, expected_number, instead
from nelbo.records import Batch, take
from nelbo.schema import Category
from nelbo.scoring import Outputs, Scored, Scorer, combine, novelty
from nelbo.structs import MISSING, code_table

MOST_CAUSES = 5  # asked for; more fields than that would be the record itself
# Of the normal records one in ten is as odd: nobody would look at such a one. To stop as soon as a record is no longer
# flagged leaves out the second of two wrong fields wherever hiding the first was enough: docs/explanations.md
USUAL = 0.1
# Of the p-value that hiding all of them gives, what the first ones must: all of it named more fields that are not
# wrong, and hardly more that are. docs/explanations.md
_ENOUGH = 0.5
# Among so many fields of the largest attribution each further cause is looked for: all fields of a wide record would
# cost as much again for every cause. Fewer miss some: among 16 of NSL-KDD's 37 fields both of two wrong ones were found
# in .730 of the records, among all in .841 (2026-11-22).
_MOST_CANDIDATES = 256
# Two fields of which each is what the other lets expect are looked for among so many, in pairs. Chosen
_MOST_PAIRED = 16
_AT_ONCE = 4096  # copies of records, each with other fields hidden, in one run: some megabytes. Chosen

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Explanation:
    """Why m records are odd, field by field, each field judged by the others alone.

    Attributes:
        rows: shape (m,), which of the scored records.
        attribution: shape (m, n_fields), unitless; how much the score falls when the field is hidden, the surprise
            of the oddest category counted in full. Not −ELBO: the score is what decides, and its fall names a wrong
            category where −ELBO's does not. Attributions do not add up to the score. docs/explanations.md
        expected_numbers: shape (m, n_numbers); what the graph expects of each with its own field hidden.
        expected_codes: shape (m, n_codes).
    """

    rows: Rows
    attribution: Scores
    expected_numbers: Scores
    expected_codes: NDArray[np.int64]

    def some(self, which: Rows) -> "Explanation":
        """Of some of its m records."""
        return Explanation(
            self.rows[which], self.attribution[which], self.expected_numbers[which], self.expected_codes[which]
        )


@dataclass(frozen=True)
class Causes:
    """Which few fields make m records odd: those hidden, a record looks usual.

    Attributes:
        rows: shape (m,), which of the scored records.
        fields: of each record, their positions, in the order in which they were found.
        are_enough: shape (m,); without them the record is not flagged.
        expected_numbers: shape (m, n_numbers); what the graph expects with all of them hidden.
        expected_codes: shape (m, n_codes).
    """

    rows: Rows
    fields: list[list[int]]
    are_enough: Flags
    expected_numbers: Scores
    expected_codes: NDArray[np.int64]


@dataclass(frozen=True)
class Repairs:
    """m records with other values where their causes were, scored again: of each, a normal record close by.

    Attributes:
        changes: of each record, the values by field; a cause whose value is what is expected is left as it is.
        scored: the repaired records.
    """

    changes: list[dict[str, float | Category | None]]
    scored: Scored


# --- field by field -----------------------------------------------------------------------------------


def explaining(combination: Combination) -> Combination:
    """The combination whose fall is the attribution: the oddest category's surprise counts in full.

    The score counts an eighth of it, so that a record is no alarm for one rare category alone. Which field is wrong is
    another question: docs/explanations.md.
    """
    part = combination.oddest_category
    return combination.model_copy(update={"oddest_category": part and part.times(1 / ODDEST_WEIGHT)})


def explain(scorer: Scorer, scored: Scored, rows: Rows) -> Explanation:
    """What each field would have been by the others, and how much less odd the record were without it.

    Args:
        scorer: that scored.
        scored: n records.
        rows: shape (m,), which of them.
    """
    schema, combination = scorer.schema, explaining(scorer.bundle.calibration.combination)
    numbers, codes, _ = schema.places
    n_fields = len(schema.fields)
    without = np.empty((len(rows), n_fields))
    expected_numbers = np.empty((len(rows), len(numbers)))
    expected_codes = np.empty((len(rows), len(codes)), dtype=np.int64)
    for part in _parts(len(rows), n_fields):
        n = len(rows[part])
        copies, hidden = np.repeat(rows[part], n_fields), np.tile(np.eye(n_fields, dtype=np.bool_), (n, 1))
        scores, outputs = _without(scorer, combination, scored, copies, hidden)
        without[part] = scores.reshape(n, n_fields)
        # Of each copy, what is expected of the field that it hides.
        of_numbers = outputs.expected_numbers.reshape(n, n_fields, len(numbers))
        of_codes = outputs.expected_codes.reshape(n, n_fields, len(codes))
        expected_numbers[part] = of_numbers[:, numbers, np.arange(len(numbers))]
        expected_codes[part] = of_codes[:, codes, np.arange(len(codes))]
    whole = _whole(combination, scored)[rows]
    return Explanation(rows, whole[:, None] - without, expected_numbers, expected_codes)


def _without(
    scorer: Scorer, combination: Combination, scored: Scored, rows: Rows, hidden: Flags
) -> tuple[Scores, Outputs]:
    """The scores, by another combination, of records with fields hidden, and what the graph says of them."""
    outputs = scorer.without(take(scored.batch, rows), hidden)
    statistics, _, _ = combine(combination, outputs, scored.missing[rows] | hidden, scored.unseen[rows] & ~hidden)
    return statistics["score"], outputs


def _whole(combination: Combination, scored: Scored) -> Scores:
    """The scores of whole records by another combination."""
    score = combination.score(scored.contributions, scored.kl, scored.outputs.evidence)
    return score + novelty(scored.contributions, scored.unseen)


def _parts(n: int, n_copies: int) -> Iterator[slice]:
    """Slices of n records of which each is copied so often."""
    size = max(1, _AT_ONCE // max(1, n_copies))
    return (slice(start, start + size) for start in range(0, n, size))


# --- the few fields that make a record odd ------------------------------------------------------------


def causes(scorer: Scorer, scored: Scored, explanation: Explanation) -> Causes:
    """Hides the field of the largest attribution, and again beside those hidden, until the record looks usual.

    The attribution of a record's second wrong field may be small while the first one is there: it is taken anew each
    time. Of the fields that were hidden the first are kept that raise the p-value to half of what all of them do:
    where the last ones hardly did, the record is by nature not the most usual.

    Where one field is not enough, pairs are looked at, too: a speed far too high and a torque far too low that goes
    with it make each other likely, and to hide one of them explains nothing.

    Args:
        scorer: that scored.
        scored: n records.
        explanation: of the m records that are looked at.
    """
    search = _Search(scorer, scored, explanation)
    for n_found in range(MOST_CAUSES):
        search.hide_another(n_found)
    search.try_pairs()
    return search.found()


class _Search:
    """The state of a search for the causes of m records at once.

    Attributes:
        rows: shape (m,), which of the scored records.
        order: of each, the fields found so far.
        hidden: shape (m, n_fields), the same.
        is_open: shape (m,); the record looks odd without them, and there may be another.
        falls: shape (m, n_fields), how much the score falls with each field hidden beside them.
        p_values: shape (m, MOST_CAUSES), of the score without the first of them, the first two, …; -1 while flagged.
        paired: shape (m, 16 at most), the fields that are looked at in pairs.
        pairs: shape (m, n_fields), the two without which the score is lowest; none where one field is enough.
        pair_p_values: shape (m,), of the score without them; -1 while flagged.
        beside_first: shape (m, n_fields), the score without the first one and another; NaN where not looked at.
        attribution: shape (m, n_fields), of each field alone.
    """

    def __init__(self, scorer: Scorer, scored: Scored, explanation: Explanation) -> None:
        self.scorer, self.scored, self.rows = scorer, scored, explanation.rows
        self.combination = explaining(scorer.bundle.calibration.combination)
        n, n_fields = explanation.attribution.shape
        self.order: list[list[int]] = [[] for _ in range(n)]
        self.hidden = np.zeros((n, n_fields), dtype=np.bool_)
        self.is_open = np.ones(n, dtype=np.bool_)
        # A value that is not there explains nothing by being hidden.
        self.falls = np.where(scored.missing[self.rows], -np.inf, explanation.attribution)
        self.pairs, self.pair_p_values = np.zeros_like(self.hidden), np.full(n, -1.0)
        self.beside_first = np.full((n, n_fields), np.nan)
        self.paired = _worth_pairing(scorer, scored, explanation)
        self.attribution = explanation.attribution
        self.candidates = np.argsort(-self.falls, axis=1, kind="stable")[:, :_MOST_CANDIDATES]
        self.p_values = np.full((n, MOST_CAUSES), -1.0)
        self.expected_numbers = scored.outputs.expected_numbers[self.rows]
        self.expected_codes = scored.outputs.expected_codes[self.rows]

    def hide_another(self, n_found: int) -> None:
        """Adds a field to those of each record that is still odd, and looks at it without them.

        Args:
            n_found: how many fields such a record has.
        """
        self.is_open &= self.falls.max(axis=1, initial=-np.inf) > 0
        at = np.flatnonzero(self.is_open)
        if not at.size:
            return
        best = self.falls[at].argmax(axis=1)
        self.hidden[at, best] = True
        for i, j in zip(at.tolist(), best.tolist(), strict=True):
            self.order[i].append(j)
        found = self.look(at, self.hidden[at])
        p_values = found.p_values["score"]
        self.p_values[at, n_found] = np.where(found.flagged, -1.0, p_values)
        is_odd = found.flagged | (p_values <= USUAL)
        self.is_open[at] = is_odd
        if n_found + 1 < MOST_CAUSES:
            scores = _whole(self.combination, found)
            after = self.fall_further(at[is_odd], scores[is_odd])
            if n_found == 0:
                self.beside_first = after

    def look(self, at: Rows, hidden: Flags) -> Scored:
        """Some of the records, scored as if what is hidden had been left out."""
        batch = take(self.scored.batch, self.rows[at])
        numbers, codes, _ = self.scorer.schema.places
        batch = replace(
            batch,
            numbers=np.where(hidden[:, numbers], np.nan, batch.numbers),
            codes=np.where(hidden[:, codes], MISSING, batch.codes),
        )
        found = self.scorer.score(batch, self.scored.decision)
        self.expected_numbers[at] = found.outputs.expected_numbers
        self.expected_codes[at] = found.outputs.expected_codes
        return found

    def fall_further(self, at: Rows, scores: Scores) -> Scores:
        """Looks how much further the score falls with one more field hidden.

        Args:
            at: which of the m records.
            scores: of each, with what is hidden by now.

        Returns:
            Shape (m, n_fields), the scores with it; NaN where nothing was looked at.
        """
        self.falls[at] = -np.inf
        found = np.full(self.falls.shape, np.nan)
        n_copies = self.candidates.shape[1]
        for part in _parts(len(at), n_copies):
            copies, fields = np.repeat(at[part], n_copies), self.candidates[at[part]].ravel()
            is_there = ~(self.hidden[copies, fields] | self.scored.missing[self.rows[copies], fields])
            before = np.repeat(scores[part], n_copies)[is_there]
            copies, fields = copies[is_there], fields[is_there]
            hidden = self.hidden[copies]
            hidden[np.arange(len(copies)), fields] = True
            after, _ = _without(self.scorer, self.combination, self.scored, self.rows[copies], hidden)
            self.falls[copies, fields], found[copies, fields] = before - after, after
        return found

    def try_pairs(self) -> None:
        """Looks at two fields at a time of the records that one field does not explain."""
        first, second = np.triu_indices(self.paired.shape[1], k=1)
        at = np.flatnonzero(self.p_values[:, 0] <= USUAL)
        if first.size == 0 or at.size == 0:
            return
        for part in _parts(len(at), first.size):
            copies = np.repeat(at[part], first.size)
            one, other = (self.paired[at[part]][:, chosen].ravel() for chosen in (first, second))
            hidden = np.zeros((copies.size, self.hidden.shape[1]), dtype=np.bool_)
            hidden[np.arange(copies.size), one] = hidden[np.arange(copies.size), other] = True
            # Beside the first field found, each other one has been looked at.
            first_found = np.array([self.order[i][0] if self.order[i] else -1 for i in copies.tolist()])
            scores = np.where(one == first_found, self.beside_first[copies, other], np.nan)
            scores = np.where(other == first_found, self.beside_first[copies, one], scores)
            scores[(hidden & self.scored.missing[self.rows[copies]]).any(axis=1)] = np.inf
            rest = np.flatnonzero(np.isnan(scores))
            scores[rest], _ = _without(
                self.scorer, self.combination, self.scored, self.rows[copies[rest]], hidden[rest]
            )
            best = scores.reshape(-1, first.size).argmin(axis=1) + np.arange(len(at[part])) * first.size
            self.pairs[at[part]] = hidden[best] & np.isfinite(scores[best])[:, None]
        found = self.look(at, self.pairs[at])
        self.pair_p_values[at] = np.where(found.flagged, -1.0, found.p_values["score"])

    def found(self) -> Causes:
        """The causes: the fewest fields that raise the p-value enough, beside what any that were hidden do."""
        most = np.maximum(self.p_values.max(axis=1), self.pair_p_values)
        is_raised = self.p_values >= _ENOUGH * most[:, None]
        n_enough = np.where(is_raised.any(axis=1), 1 + np.argmax(is_raised, axis=1), MOST_CAUSES + 1)
        are_enough = most >= 0
        # Of two fields found one after the other, and two that were looked for, those of the larger p-value.
        by_pair = are_enough & (self.pair_p_values >= _ENOUGH * most)
        by_pair &= (n_enough > 2) | ((n_enough == 2) & (self.pair_p_values > self.p_values[:, 1]))
        is_cut = are_enough & ~by_pair & (n_enough < [len(found) for found in self.order])
        for i in np.flatnonzero(is_cut).tolist():
            self.hidden[i, self.order[i][n_enough[i] :]] = False
            del self.order[i][n_enough[i] :]
        for i in np.flatnonzero(by_pair).tolist():
            self.hidden[i] = self.pairs[i]
            pair = np.flatnonzero(self.pairs[i]).tolist()
            self.order[i] = sorted(pair, key=self.attribution[i].__getitem__, reverse=True)
        # What is expected with their causes hidden, of those looked at last with something else hidden.
        again = np.flatnonzero(is_cut | self.pairs.any(axis=1))
        if again.size:
            self.look(again, self.hidden[again])
        return Causes(self.rows, self.order, are_enough, self.expected_numbers, self.expected_codes)


def _worth_pairing(scorer: Scorer, scored: Scored, explanation: Explanation) -> Rows:
    """The fields of each record that may be odd in pairs, shape (m, 16 at most): all where there are no more.

    Else those of the largest attribution, and the numbers that are furthest out by themselves: two fields that make
    each other likely have no attribution.
    """
    n_fields = explanation.attribution.shape[1]
    if n_fields <= _MOST_PAIRED:
        return np.tile(np.arange(n_fields), (len(explanation.rows), 1))
    furthest = np.full_like(explanation.attribution, -np.inf)
    for at, field in enumerate(scorer.schema.numbers):
        interval = scorer.bundle.calibration.intervals.get(field.name)
        if interval is not None:
            values = np.nan_to_num(scored.batch.numbers[explanation.rows, at], nan=interval.centre)
            furthest[:, scorer.schema.positions[field.name]] = np.abs(values - interval.centre) / interval.scale
    places = [np.argsort(np.argsort(-by, axis=1, kind="stable"), axis=1) for by in (explanation.attribution, furthest)]
    return np.argsort(np.minimum(*places), axis=1, kind="stable")[:, :_MOST_PAIRED]


# --- what they should have been -----------------------------------------------------------------------


def expected_of(scorer: Scorer, numbers: Scores, codes: NDArray[np.int64], position: int) -> Expected:
    """What is expected of one field of a record.

    Args:
        scorer: of the schema, and of the intervals.
        numbers: shape (n_numbers,), what the graph expects.
        codes: shape (n_codes,).
        position: of the field.
    """
    field = scorer.schema.fields[position]
    of_numbers, of_codes, _ = scorer.schema.places
    if field.is_coded:
        return expected_category(field, int(codes[of_codes.index(position)]))
    interval = scorer.bundle.calibration.intervals.get(field.name)
    return expected_number(field, float(numbers[of_numbers.index(position)]), interval)


def repair(scorer: Scorer, scored: Scored, found: Causes) -> Repairs:
    """The records with what is expected in place of their causes, which is what the other fields make likely.

    Args:
        scorer: that scored.
        scored: n records.
        found: the causes of m of them.
    """
    schema = scorer.schema
    batch = take(scored.batch, found.rows)
    changes: list[dict[str, float | Category | None]] = []
    for i, positions in enumerate(found.fields):
        fields = [schema.fields[j] for j in positions]
        expected = (expected_of(scorer, found.expected_numbers[i], found.expected_codes[i], j) for j in positions)
        values = ((field.name, instead(field, one)) for field, one in zip(fields, expected, strict=True))
        row = int(found.rows[i])
        changes.append({name: value for name, value in values if value != scored.batch.values[name][row]})
    _put(batch, changes, scorer)
    return Repairs(changes, scorer.score(batch, scored.decision))


def _put(batch: Batch, changes: Sequence[dict[str, float | Category | None]], scorer: Scorer) -> None:
    """Writes values into the arrays of a batch of its own."""
    numbers = {field.name: at for at, field in enumerate(scorer.schema.numbers)}
    codes = {field.name: (at, code_table(field)) for at, field in enumerate(scorer.schema.codes)}
    for i, of_record in enumerate(changes):
        for name, value in of_record.items():
            if name in numbers:
                batch.numbers[i, numbers[name]] = np.nan if value is None else value
            else:
                at, table = codes[name]
                batch.codes[i, at] = table[value]
