"""A window: what incoming records look like, counted in the cells that the reference has."""

import numpy as np
from numpy.typing import NDArray

from nelbo.decision import Decision
from nelbo.drift import Reference
from nelbo.schema import Schema
from nelbo.scoring import Scored

_PENDING = 256  # records kept uncounted, so that a single one costs no more than an append; chosen

Counts = NDArray[np.int64]


class Window:
    """Counts of scored records. It takes the same memory whatever comes in.

    Attributes:
        schema: of the bundle.
        reference: of the bundle.
        decision: of the bundle's own rate. It decides what counts as flagged here, since each request may ask for
            another rate.

    Args:
        schema: as above.
        reference: as above.
        decision: as above.
    """

    def __init__(self, schema: Schema, reference: Reference, decision: Decision) -> None:
        self.schema, self.reference, self.decision = schema, reference, decision
        self._edges = [np.array(reference.fields[column.name].edges) for column in schema.numbers]
        # A field's cells: one a bin or a code, and the last for missing values.
        self._counts = {name: np.zeros(len(s.counts) + 1, dtype=np.int64) for name, s in reference.fields.items()}
        self._n_records = self._n_flagged = 0
        self._pending: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        self._n_pending = 0

    @property
    def n_records(self) -> int:
        """How many records have been added."""
        return self._n_records

    @property
    def n_flagged(self) -> int:
        """How many of them the bundle's own rate flags."""
        return self._n_flagged

    def add(self, scored: Scored, rows: slice = slice(None)) -> None:
        """Counts scored records.

        Args:
            scored: of the bundle's scorer, with any decision.
            rows: which of them.
        """
        scores = scored.statistics["score"][rows]
        self._n_records += scores.size
        self._n_flagged += int(np.count_nonzero(scores > self.decision.threshold("score", scored.segments[rows])))
        self._pending.append((scored.batch.numbers[rows], scored.batch.codes[rows]))
        self._n_pending += scores.size
        # Empty batches would pile up, too.
        if self._n_pending >= _PENDING or len(self._pending) >= _PENDING:
            self._count()

    def merged(self, other: "Window") -> "Window":
        """The window of the records of both.

        Args:
            other: of the same bundle.
        """
        both = Window(self.schema, self.reference, self.decision)
        for window in (self, other):
            both._n_records += window.n_records
            both._n_flagged += window.n_flagged
            for name in both._counts:
                both._counts[name] += window.counts(name)
        return both

    def counts(self, field: str) -> Counts:
        """Records in each cell of a field: its bins or codes, and the last for missing values."""
        self._count()
        return self._counts[field]

    def _count(self) -> None:
        if not self._pending:
            return
        numbers, codes = (np.concatenate(part) for part in zip(*self._pending, strict=True))
        self._pending, self._n_pending = [], 0
        for column, edges, values in zip(self.schema.numbers, self._edges, numbers.T, strict=True):
            cells = np.where(np.isnan(values), edges.size + 1, np.searchsorted(edges, values, side="right"))
            self._add(column.name, cells)
        for column, codes_of in zip(self.schema.codes, codes.T, strict=True):
            self._add(column.name, np.where(codes_of < 0, column.n_codes, codes_of))

    def _add(self, field: str, cells: Counts) -> None:
        counts = self._counts[field]
        counts += np.bincount(cells, minlength=counts.size)
