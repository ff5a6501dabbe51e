"""What normal traffic looks like, field by field, in bounded space: the reference that drift is measured against."""

from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, ValidationError

from nelbo.bounds import Many, first_fault
from nelbo.errors import BundleError
from nelbo.records import Batch
from nelbo.schema import Column, Schema

_MOST_RECORDS = 2**53  # whole numbers that floats tell apart, as counts become ones
_N_BINS = 20  # chosen; the usual number for a population stability index is 10 to 20


class FieldSketch(BaseModel):
    """Counts of one field's values; two sketches with the same edges add up.

    Attributes:
        edges: numeric; ascending inner edges, a value v falls into bin #{edges ≤ v}.
        counts: numeric, per bin (one more than edges); coded, per code.
        missing: records without a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edges: Many[FiniteFloat] = ()
    counts: Many[NonNegativeInt]
    missing: NonNegativeInt


class Reference(BaseModel):
    """`reference.json`: one sketch a field, over the records that the model was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    n_records: NonNegativeInt
    fields: dict[str, FieldSketch]


def reference_of(schema: Schema, batch: Batch) -> Reference:
    """The reference of a batch of normal records."""
    sketches = {}
    for j, column in enumerate(schema.numbers):
        sketches[column.name] = _sketch_numbers(batch.numbers[:, j])
    for j, column in enumerate(schema.codes):
        sketches[column.name] = _sketch_codes(column, batch.codes[:, j])
    ordered = {field.name: sketches[field.name] for field in schema.fields}
    return Reference(n_records=len(batch), fields=ordered)


def _sketch_numbers(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> FieldSketch:
    present = values[np.isfinite(values)]
    quantiles = np.linspace(0, 1, _N_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(present, quantiles)) if present.size else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=edges.size + 1)
    return FieldSketch(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), missing=values.size - present.size)


def _sketch_codes(column: Column, codes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FieldSketch:
    present = codes[codes >= 0]
    counts = np.bincount(present, minlength=column.n_codes)
    return FieldSketch(counts=tuple(counts.tolist()), missing=codes.size - present.size)


def parse_reference(text: bytes, source: str) -> Reference:
    """A reference from the bytes of its file.

    Raises:
        BundleError: naming the source.
    """
    try:
        return Reference.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{source}: reference.json: {first_fault(error)[1]}") from error


def misfit(reference: Reference, schema: Schema) -> str | None:
    """Why a reference is not one of this schema's records; None if it is."""
    if not 0 < reference.n_records <= _MOST_RECORDS:
        return f"expected 1 to {_MOST_RECORDS} records"
    if list(reference.fields) != [field.name for field in schema.fields]:
        return "was made for other fields than schema.json has"
    for field in schema.fields:
        sketch = reference.fields[field.name]
        n = 0 if field.is_coded else len(sketch.edges)
        n_counts = field.n_codes if field.is_coded else n + 1
        is_ascending = all(low < high for low, high in pairwise(sketch.edges))
        if len(sketch.counts) != n_counts or len(sketch.edges) != n or not is_ascending:
            return f"field '{field.name}': expected {n_counts} counts, and edges that ascend"
        if sum(sketch.counts) + sketch.missing != reference.n_records:
            return f"field '{field.name}' counts other than the {reference.n_records} records of n_records"
    return None
