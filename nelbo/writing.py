"""Results of a file's records, into a file: NDJSON with everything, CSV and Parquet with what a table holds.

A file of results is made of parts, each written by itself, so that several processes can write one file together.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nelbo.calibration import STATISTICS
from nelbo.errors import TableError
from nelbo.footer import MAGIC, moved
from nelbo.results import Explain, Explained, explained_alarms, results
from nelbo.schema import Schema
from nelbo.scoring import Scored, Scorer
from nelbo.spreadsheet import plain, plain_text

N_TOP = 3  # fields that a table names for each record; chosen
_GROUP = 1 << 17  # records in a row group of Parquet, as others write them; takes some 20 MB while it grows

_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("flagged", pa.bool_()),
        ("p_value", pa.float64()),
        *((column, pa.float64()) for name in STATISTICS for column in (name, f"{name}_p_value")),
        ("kl", pa.float64()),
        *((f"top_field_{i + 1}", pa.string()) for i in range(N_TOP)),
        ("missing", pa.string()),
        ("unseen", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
    ]
)

Writer = Callable[[Scored], None]  # takes scored batches, one after the other
Opener = Callable[[IO[bytes], Scorer, Explain], AbstractContextManager[Writer]]


@dataclass(frozen=True)
class Format:
    """How results become a file.

    Attributes:
        head: the bytes that a file begins with.
        part: opens a file to write some batches to.
        append: puts such a part behind what a file has; what to remember of it.
        tail: the bytes that a file ends with, by what was remembered of its parts, one at least.
    """

    head: Callable[[Schema], bytes]
    part: Opener
    append: Callable[[IO[bytes], IO[bytes]], bytes]
    tail: Callable[[Sequence[bytes]], bytes]


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
        TableError: the suffix is none of .ndjson, .jsonl, .csv, .parquet.
    """
    if path.suffix not in _FORMATS:
        raise TableError(f"{path}: expected a name that ends in {', '.join(_FORMATS)}")
    return _FORMATS[path.suffix]


# --- text --------------------------------------------------------------------------------------------


@contextmanager
def lines(file: IO[bytes], scorer: Scorer, explain: Explain) -> Iterator[Writer]:
    """A writer of JSON lines."""
    encoder = msgspec.json.Encoder()
    yield lambda scored: (file.write(encoder.encode_lines(results(scorer, scored, explain))), None)[1]


@contextmanager
def _csv(file: IO[bytes], scorer: Scorer, explain: Explain) -> Iterator[Writer]:
    options = pa_csv.WriteOptions(include_header=False)
    yield lambda scored: pa_csv.write_csv(plain(rows_of(scorer, scored, explain)), file, options)


def _csv_head(schema: Schema) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(plain_text, _schema(schema).names))
    return text.getvalue().encode()


def _append_text(file: IO[bytes], part: IO[bytes]) -> bytes:
    copyfileobj(part, file)
    return b""


# --- Parquet -----------------------------------------------------------------------------------------


@contextmanager
def _parquet(file: IO[bytes], scorer: Scorer, explain: Explain) -> Iterator[Writer]:
    schema = _schema(scorer.schema)
    # Hardly two records have the same score; to look for repeated ones took four times as long as to write.
    repeated = [field.name for field in schema if field.name.endswith("p_value") or pa.types.is_string(field.type)]
    with pq.ParquetWriter(file, schema, use_dictionary=repeated) as writer:
        waiting: list[pa.Table] = []

        def write(scored: Scored) -> None:
            waiting.append(rows_of(scorer, scored, explain))
            if sum(table.num_rows for table in waiting) >= _GROUP:
                flush()

        def flush() -> None:
            if any(table.num_rows for table in waiting):  # a row group of no records is one that readers stumble on
                writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

        yield write
        flush()


def _append_parquet(file: IO[bytes], part: IO[bytes]) -> bytes:
    """Puts the row groups of a whole Parquet file behind those of another one, and returns its footer, moved there."""
    size = part.seek(-8, io.SEEK_END) + 8
    n = int.from_bytes(part.read(4), "little")
    part.seek(size - 8 - n)
    footer = moved(part.read(n), by=file.tell() - len(MAGIC))
    part.seek(len(MAGIC))
    _copy(part, file, size - 8 - n - len(MAGIC))
    return footer


def _copy(source: IO[bytes], target: IO[bytes], n_bytes: int) -> None:
    while n_bytes:
        read = source.read(min(n_bytes, 1 << 20))
        if not read:
            raise EOFError("a part of the results is shorter than it was written")
        n_bytes -= target.write(read)


def _parquet_tail(footers: Sequence[bytes]) -> bytes:
    first, *others = (_metadata(footer) for footer in footers)
    for other in others:
        first.append_row_groups(other)
    file = io.BytesIO()
    first.write_metadata_file(file)
    return file.getvalue()[len(MAGIC) :]


def _metadata(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(io.BytesIO(MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC))


_LINES = Format(lambda _: b"", lines, _append_text, lambda _: b"")
_CSV = Format(_csv_head, _csv, _append_text, lambda _: b"")
_PARQUET = Format(lambda _: MAGIC, _parquet, _append_parquet, _parquet_tail)
_FORMATS = {".ndjson": _LINES, ".jsonl": _LINES, ".csv": _CSV, ".parquet": _PARQUET}


# --- results as a table ------------------------------------------------------------------------------


def rows_of(
    scorer: Scorer, scored: Scored, explain: Explain = "flagged", go_on: Callable[[], None] = lambda: None
) -> pa.Table:
    """The results of a batch as a table, in the order of its records, faulty ones included.

    Args:
        scorer: that scored.
        scored: the batch.
        explain: "none" gives no reasons; a table has room for those of flagged records alone.
        go_on: as for `results`.
    """
    names, n = [field.name for field in scorer.schema.fields], len(scored.batch)
    found = {} if explain == "none" else explained_alarms(scorer, scored, go_on)
    top = _top_fields(scorer, scored, found)
    columns: dict[str, Any] = {"index": scored.batch.index, "flagged": scored.flagged}
    columns["p_value"] = scored.p_values["score"]
    for name in STATISTICS:
        columns[name], columns[f"{name}_p_value"] = scored.statistics[name], scored.p_values[name]
    columns["kl"] = scored.kl
    for i in range(N_TOP):
        columns[f"top_field_{i + 1}"] = pa.array(names).take(pa.array(top[:, i])) if i < len(names) else pa.nulls(n)
    columns["missing"], columns["unseen"] = _listed(names, scored.missing), _listed(names, scored.unseen)
    columns["reason"] = _texts(n, {row: explained.reason for row, explained in found.items()})
    columns["error"] = pa.nulls(n)
    good = pa.table({name: _typed(columns[name], _SCHEMA.field(name).type) for name in _SCHEMA.names})
    good = _with_ids(good, scorer.schema, scored.batch.ids)
    faulty = [{"index": error.index, "error": str(error)} for error in scored.batch.errors]
    if not faulty:
        return good
    return pa.concat_tables([good, pa.Table.from_pylist(faulty, schema=good.schema)]).sort_by("index")


def _typed(column: Any, kind: pa.DataType) -> pa.Array:
    return column.cast(kind) if isinstance(column, pa.Array) else pa.array(column, type=kind)


def _top_fields(scorer: Scorer, scored: Scored, found: Mapping[int, Explained]) -> NDArray[np.intp]:
    """Positions of the fields that a table names, the first one first, (n, N_TOP) at most.

    Of an explained record those that explain the alarm, and then by attribution. Of another one those that lie farthest
    beyond what is usual of the field: to hide each in turn would take as long as to score as many records.
    """
    combination = scorer.bundle.calibration.combination
    oddness = (scored.contributions - np.array(combination.location)) / np.array(combination.spread)
    top = _largest(oddness, min(N_TOP, oddness.shape[1]))
    for row, explained in found.items():
        causes = list(explained.repair.changes) if explained.repair else []
        named = dict.fromkeys([*causes, *(part.field for part in explained.contributions or ())])
        top[row] = [scorer.schema.positions[name] for name in named][:N_TOP]
    return top


def _largest(values: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Positions of the n largest of each row, the largest first; to sort all of them takes five times as long.

    Args:
        values: shape (m, at least n), finite; they are used up.
        n: how many.
    """
    rows, found = np.arange(len(values)), np.empty((len(values), n), dtype=np.intp)
    for i in range(n):
        found[:, i] = values.argmax(axis=1)
        values[rows, found[:, i]] = -np.inf
    return found


def _listed(names: Sequence[str], flags: NDArray[np.bool_]) -> pa.Array:
    """The names that hold of each record, as one text; null where none does."""
    rows = np.flatnonzero(flags.any(axis=1))
    if not rows.size:
        return pa.nulls(len(flags))
    # Few sets of fields are missing together in many records: each is put into words once.
    packed = np.packbits(flags[rows], axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    texts = [", ".join(names[j] for j in np.flatnonzero(flags[row]).tolist()) for row in rows[first].tolist()]
    return _texts(len(flags), dict(zip(rows.tolist(), map(texts.__getitem__, which.ravel().tolist()), strict=True)))


def _texts(n: int, of_rows: Mapping[int, str | None]) -> pa.Array:
    """A column of n texts, null but for some rows."""
    texts = np.full(n, None, dtype=object)
    texts[list(of_rows)] = list(of_rows.values())
    return pa.array(texts, type=pa.string())


def _id_names(schema: Schema) -> dict[str, str]:
    """The id columns by the name they have in the output: `id_` goes before a name that the results need themselves."""
    found: dict[str, str] = {}
    names = [column.name for column in schema.with_role("id")]
    for name in names:
        shown = name
        while shown in _SCHEMA.names or shown in found or (shown != name and shown in names):
            shown = f"id_{shown}"
        found[shown] = name
    return found


def _schema(schema: Schema) -> pa.Schema:
    """The columns of the table of results."""
    ids = [(name, pa.string()) for name in _id_names(schema)]
    return pa.schema([_SCHEMA.field(0), *ids, *list(_SCHEMA)[1:]])


def _with_ids(table: pa.Table, schema: Schema, ids: Sequence[Any]) -> pa.Table:
    names = _id_names(schema)
    for at, (shown, name) in enumerate(names.items()):
        values = [entry.get(name) if isinstance(entry, dict) else entry for entry in ids]
        texts = [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
        table = table.add_column(1 + at, shown, pa.array(texts, type=pa.string()))
    return table
