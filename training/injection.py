"""Synthetic anomalies for tables without labels: normal records with one wrong cell."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nelbo.records import Batch
from nelbo.schema import Schema
from nelbo.scoring import states
from nelbo.structs import MISSING
from training.layout import Layout

_SHIFT = 4.0  # robust standard deviations: outside the bulk, inside what most sensors can say; chosen
_PER_KIND = 250  # an AUROC to about 0.02; chosen

Cells = NDArray[np.bool_]

KINDS = {
    "shift": f"a number moved by {_SHIFT:g} robust standard deviations",
    "swap": "a value taken from another record",
    "wrong category": "another known category",
    "unseen category": "a category that training did not see",
}


@dataclass(frozen=True)
class Injected:
    """Normal records that were made wrong.

    Attributes:
        batch: n records.
        kind: of each record, what was done to it.
        field: shape (n,), position of the field that it was done to.
    """

    batch: Batch
    kind: tuple[str, ...]
    field: NDArray[np.int64]


def inject(layout: Layout, normal: Batch, donors: Batch, rng: np.random.Generator) -> Injected:
    """Copies of normal records, each with one wrong cell; every kind that the fields allow, equally often.

    Args:
        layout: of the table.
        normal: records that the model has not seen.
        donors: records to swap a value from, and where a missing value is no surprise.
        rng: draws records, fields and values.
    """
    parts = [_injected(layout, normal, donors, kind, rng) for kind in KINDS]
    return Injected(
        batch=replace(
            normal,
            numbers=np.concatenate([part.batch.numbers for part in parts]),
            codes=np.concatenate([part.batch.codes for part in parts]),
            index=np.concatenate([part.batch.index for part in parts]),
            ids=[None] * sum(len(part.batch) for part in parts),
            values={},
        ),
        kind=tuple(kind for part in parts for kind in part.kind),
        field=np.concatenate([part.field for part in parts]),
    )


def _injected(layout: Layout, normal: Batch, donors: Batch, kind: str, rng: np.random.Generator) -> Injected:
    rows = rng.integers(0, len(normal), _PER_KIND)
    numbers, codes = normal.numbers[rows].copy(), normal.codes[rows].copy()
    changed = np.full(_PER_KIND, -1)
    batch = replace(normal, numbers=numbers, codes=codes, index=normal.index[rows], ids=[None] * len(rows), values={})
    allowed = _allowed(layout, batch, kind)
    for row in range(_PER_KIND):
        fields = np.flatnonzero(allowed[row])
        if fields.size:
            field = int(rng.choice(fields))
            value = _other_value(layout, batch, donors, kind, row, field, rng)
            if value is not None:
                _put(layout.schema, batch, row, field, value)
                changed[row] = field
    kept = np.flatnonzero(changed >= 0)
    batch = replace(
        batch, numbers=numbers[kept], codes=codes[kept], index=batch.index[kept], ids=[None] * len(kept), values={}
    )
    return Injected(batch, (kind,) * len(kept), changed[kept])


def _allowed(layout: Layout, batch: Batch, kind: str) -> Cells:
    """Which cells a kind of change makes sense for: those with a value, of a fitting field."""
    fields = layout.schema.fields
    fitting = {
        "shift": [field.kind == "numeric" for field in fields],
        "swap": [True for _ in fields],
        "wrong category": [field.is_coded and len(field.known) > 1 for field in fields],
        "unseen category": [field.kind == "categorical" for field in fields],
    }
    missing, _ = states(layout.schema, batch)
    return ~missing & np.array(fitting[kind], dtype=np.bool_)


def _put(schema: Schema, batch: Batch, row: int, field: int, value: float) -> None:
    column = schema.fields[field]
    if column.is_coded:
        batch.codes[row, schema.codes.index(column)] = int(value)
    else:
        batch.numbers[row, schema.numbers.index(column)] = value


def _other_value(
    layout: Layout, batch: Batch, donors: Batch, kind: str, row: int, field: int, rng: np.random.Generator
) -> float | None:
    """What the cell becomes; None if there is nothing else it could be."""
    column = layout.schema.fields[field]
    if column.is_coded:
        j = layout.schema.codes.index(column)
        before, known = float(batch.codes[row, j]), donors.codes[:, j]
        others = known[(known != MISSING) & (known != before)].astype(np.float64)
    else:
        j = layout.schema.numbers.index(column)
        before, values = float(batch.numbers[row, j]), donors.numbers[:, j]
        others = values[np.isfinite(values) & (values != before)]
    match kind:
        case "shift":
            distance = _SHIFT * float(layout.scale[layout.numeric.index(j)])
            after = before + float(rng.choice([-distance, distance]))
            after = round(after / column.step) * column.step if column.step else after
            return after if after != before else None
        case "swap":
            return float(rng.choice(others)) if others.size else None
        case "wrong category":
            return float(rng.choice(np.setdiff1d(np.arange(len(column.known)), before)))
        case _:
            return float(column.unseen_code)
