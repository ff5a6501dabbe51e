"""A table on its way to a fit: which records are normal, what the columns are, and what speaks against it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.decision import needed
from nelbo.errors import SchemaError, TableError
from nelbo.inference import fields_from, infer_roles
from nelbo.records import Batch, RecordDecoder, take
from nelbo.schema import Column, Schema, read_schema
from nelbo.tables import Labels, Table, count_records, open_table, read_batches, read_columns
from nelbo.tables import labels as labels_in
from training.calibrate import DEFAULT_RATE, chosen_rate, whole
from training.exclusion import Exclusion
from training.split import Rows, Split, sizes, split

MIN_RECORDS = 20  # a fit, two calibration sets and quartiles need some; chosen
_READ_ROWS = 65_536  # records a batch while reading; chosen
# A fit sees 768,000 records by default, repeats included, so more cells than these would only cost memory: a table of
# 35 columns is read whole up to a million normal records, and sampled beyond.
MOST_CELLS = 40_000_000


@dataclass(frozen=True)
class Data:
    """A table, split and decoded.

    Attributes:
        source: its path.
        digest: SHA-256 of its bytes.
        schema: with categories, spikes and steps from the records to fit on.
        normal: the normal records, without those that a person excluded.
        split: row numbers into `normal`.
        anomalies: labelled records that are not normal; none without a label.
        warnings: what a person should know of the table.
        excluded: records that a person took out of the normal ones; None where nobody did.
    """

    source: Path
    digest: str
    schema: Schema
    normal: Batch
    split: Split
    anomalies: Batch
    warnings: tuple[str, ...]
    excluded: Exclusion | None = None

    def part(self, rows: Rows) -> Batch:
        """Some of the normal records."""
        return take(self.normal, rows)


@dataclass(frozen=True)
class Label:
    """Which records are normal.

    Attributes:
        column: that says it.
        normal: its value, as the table writes it.
    """

    column: str
    normal: str


def load(
    path: Path,
    schema_path: Path | None,
    label: Label | None,
    rate: float | None,
    seed: int,
    confidence: float | None = None,
    excluded: Exclusion | None = None,
) -> Data:
    """Reads a table for a fit.

    Raises:
        TableError: it cannot be read, or not be fitted, or does not hold what is excluded; one sentence says why.
        SchemaError: the schema, or the label, does not fit it.
        CalibrationError: its records do not carry an explicit rate.
    """
    table = open_table(path)
    labels = _without_excluded(_labels(table, label), excluded)
    most = max(MIN_RECORDS, MOST_CELLS // len(table.columns))
    rows, n_normal = _sample(np.flatnonzero(labels.is_normal), most, seed)
    others, n_others = _sample(np.flatnonzero(labels.is_anomaly), most // 10, seed)
    given = None if schema_path is None else read_schema(schema_path)
    normal_columns = read_columns(table, rows=rows)
    schema = _labelled(given or infer_roles(_without(normal_columns, label)), normal_columns, label)
    refuse_unfit(path, schema, given is None, len(rows))
    chosen_rate(rate, sizes(len(rows))[1], confidence)  # refused before the fit, not after it
    parts = split(len(rows), seed, _times(normal_columns, schema))
    # What values a field has is for the records to say that the model is fitted on: a category known from a calibration
    # record only would look less odd there than any fresh one ever will.
    schema = fields_from(schema, normal_columns.take(pa.array(np.sort(parts.fit))))
    both = read(path, schema, rows=np.sort(np.concatenate([rows, others])))
    sampled = [f"fitted on a seeded sample of {len(rows):,} of {n_normal:,} normal records"] * (len(rows) < n_normal)
    sampled += [f"evaluated on a seeded sample of {len(others):,} of {n_others:,} anomalies"] * (len(others) < n_others)
    return Data(
        source=path,
        digest=file_digest(path),
        schema=schema,
        normal=take(both, np.searchsorted(both.index, rows)),
        split=parts,
        anomalies=take(both, np.searchsorted(both.index, others)),
        warnings=(*_left_out(excluded), *sampled, *_warnings(normal_columns, schema, rate, len(rows))),
        excluded=excluded,
    )


def _sample(rows: Rows, most: int, seed: int) -> tuple[Rows, int]:
    """At most so many of the rows, in their order, and how many there were."""
    if len(rows) <= most:
        return rows, len(rows)
    chosen = np.random.default_rng([seed, 4]).choice(rows, most, replace=False)
    return np.sort(chosen), len(rows)


def read(path: Path, schema: Schema, ignored: Sequence[str] = (), rows: Rows | None = None) -> Batch:
    """The records of a table as one batch, without their own values; a table larger than memory is no matter.

    Args:
        path: of the table.
        schema: of its records.
        rows: positions of the records to keep, ascending; None = all. The others may even be unreadable.
        ignored: columns that may be there although the schema does not know them.

    Raises:
        TableError: a record cannot be read.
    """
    table, decoder = open_table(path), RecordDecoder(schema, "the schema")
    batches = [
        whole(_kept(batch, rows), str(path)) for batch in read_batches(table, decoder, _READ_ROWS, ignored=ignored)
    ]
    if not batches:
        raise TableError(f"{path}: holds no record")
    index = np.concatenate([batch.index for batch in batches])
    numbers = np.concatenate([batch.numbers for batch in batches])
    codes = np.concatenate([batch.codes for batch in batches])
    return Batch(numbers, codes, index, [None] * len(index), {})


def _kept(batch: Batch, rows: Rows | None) -> Batch:
    """The wanted records of a batch, and the errors of those among them."""
    if rows is None:
        return take(batch, np.arange(len(batch)))
    errors = tuple(error for error in batch.errors if _holds(rows, error.index))
    kept = np.searchsorted(rows, batch.index)
    is_kept = rows[np.minimum(kept, len(rows) - 1)] == batch.index
    return replace(take(batch, np.flatnonzero(is_kept)), errors=errors)


def _holds(rows: Rows, row: int) -> bool:
    at = int(np.searchsorted(rows, row))
    return at < len(rows) and int(rows[at]) == row


def read_normal(path: Path, schema: Schema, label: Label | None) -> Batch:
    """The normal records of a table under a schema that exists already."""
    if label is None:
        return read(path, schema)
    everything = read(path, schema, ignored=(label.column,))
    labels = _informative(labels_in(open_table(path), label.column, label.normal), label, path)
    return take(everything, np.flatnonzero(labels.is_normal))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- labels and times ---------------------------------------------------------------------------------


def _labels(table: Table, label: Label | None) -> Labels:
    if label is not None:
        return _informative(labels_in(table, label.column, label.normal), label, table.path)
    n = count_records(table)
    if n == 0:
        raise TableError(f"{table.path}: holds no record")
    return Labels(np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_))


def _informative(labels: Labels, label: Label, path: Path) -> Labels:
    if not labels.is_anomaly.any():
        found = f"column '{label.column}' is '{label.normal}' in every record"
        raise TableError(f"{path}: {found}; leave out --label to fit on all of them")
    return labels


def _without_excluded(labels: Labels, excluded: Exclusion | None) -> Labels:
    """Records that a person excluded are neither normal nor anomalies."""
    if excluded is None:
        return labels
    excluded.check(labels.is_normal)
    is_normal = labels.is_normal.copy()
    is_normal[excluded.records] = False
    return replace(labels, is_normal=is_normal)


def _without(columns: pa.Table, label: Label | None) -> pa.Table:
    """The columns to infer a schema from: a label must not be mistaken for a constant, or a field's twin."""
    return columns if label is None else columns.drop_columns([label.column])


def _labelled(schema: Schema, columns: pa.Table, label: Label | None) -> Schema:
    """The schema with the label in its place, in the table's order where it was inferred."""
    if label is None:
        return schema
    others = {column.name: column for column in schema.columns if column.name != label.column}
    with_label = {**others, label.column: Column(name=label.column, role="label")}
    table_order = [name for name in columns.column_names if name in with_label]
    rest = [name for name in with_label if name not in table_order]
    return Schema(extra=schema.extra, columns=tuple(with_label[name] for name in table_order + rest))


def _times(columns: pa.Table, schema: Schema) -> NDArray[np.float64] | None:
    """Seconds of each record, where a column orders them in time."""
    names = [column.name for column in schema.with_role("time") if column.name in columns.column_names]
    if not names:
        return None
    column = columns[names[0]].combine_chunks()
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise SchemaError(f"column '{names[0]}' has role 'time': expected times or numbers, got {column.type}")
    return np.asarray(column.cast(pa.float64()).fill_null(-np.inf).to_numpy(zero_copy_only=False))


# --- the quality gate -------------------------------------------------------------------------------


def refuse_unfit(path: Path, schema: Schema, is_inferred: bool, n: int) -> None:
    """Refuses a table that nothing can be learnt from.

    Raises:
        TableError: in one sentence.
    """
    if n < MIN_RECORDS:
        raise TableError(f"{path}: has {n} normal record{'s' * (n != 1)}, a fit needs at least {MIN_RECORDS}")
    empty = [column.name for column in schema.columns if column.note == "no value in any record"]
    if empty and is_inferred:
        names = ", ".join(f"'{name}'" for name in empty)
        raise TableError(
            f"{path}: column {names} holds no value in any record; drop it, or write a schema that ignores it "
            "(nelbo schema TABLE -o schema.json) and pass it with --schema"
        )
    if not schema.fields:
        why = "; ".join(f"'{c.name}': {c.note or c.role}" for c in schema.columns)
        raise TableError(f"{path}: no column is left to score ({why})")


def _left_out(excluded: Exclusion | None) -> Iterator[str]:
    if excluded:
        n = len(excluded)
        what = "record is" if n == 1 else "records are"
        yield (
            f"{n} {what} left out, as {excluded.source.name} says; if any was normal, "
            "there will be more false alarms than the rate says"
        )


def _warnings(columns: pa.Table, schema: Schema, rate: float | None, n: int) -> Iterator[str]:
    for column in schema.columns:
        if column.note is not None:
            yield f"column '{column.name}' is not a field: {column.note}"
    share = _duplicate_share(columns, [field.name for field in schema.fields])
    if share >= 0.01:
        yield f"{share:.0%} of the normal records repeat another one; ties make p-values cautious"
    _, n_calibration = sizes(n)
    if rate is None and n_calibration < needed(DEFAULT_RATE):
        yield (
            f"{n_calibration} calibration records do not carry the usual rate of 1 %, "
            f"which needs {needed(DEFAULT_RATE)}; the bundle's rate is {1 / (n_calibration + 1):.1%}"
        )


def _duplicate_share(columns: pa.Table, names: list[str]) -> float:
    """Share of records that are equal to an earlier one in every field."""
    present = [name for name in names if name in columns.column_names]
    return 1.0 - n_distinct(columns.select(present)) / float(columns.num_rows)


def n_distinct(columns: pa.Table) -> int:
    """How many records of a table differ.

    On one thread: measured 2026-11-25 on a million records of 35 columns, two took three times the processor time.
    """
    return int(columns.group_by(columns.column_names, use_threads=False).aggregate([]).num_rows)
