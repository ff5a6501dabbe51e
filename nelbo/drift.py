"""What normal traffic looks like, field by field, in bounded space: the reference that drift is measured against."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nelbo.errors import BundleError
from nelbo.records import Batch
from nelbo.schema import Column, Schema

_N_BINS = 20  # chosen; the usual number for a population stability index is 10 to 20


class FieldSketch(BaseModel):
    """Counts of one field's values; two sketches with the same edges add up.

    Attributes:
        edges: numeric; ascending inner edges, a value v falls into bin #{edges ≤ v}.
        counts: numeric, per bin (one more than edges); coded, per code.
        missing: records without a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...]
    missing: int


class Reference(BaseModel):
    """`reference.json`: one sketch a field, over the records that the model was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    n_records: int
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
        raise BundleError(f"{source}: reference.json: {error.errors()[0]['msg']}") from error
