"""Results of a file's records, into a file: NDJSON with everything, CSV and Parquet with what a table holds."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nelbo.calibration import STATISTICS
from nelbo.errors import TableError
from nelbo.results import Explain, Explained, explained_alarms, results
from nelbo.schema import Schema
from nelbo.scoring import Scored, Scorer

N_TOP = 3  # fields that a table names for each record; chosen

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


@contextmanager
def writer(output: Path | None, standard_output: IO[bytes], scorer: Scorer, explain: Explain) -> Iterator[Writer]:
    """A writer to a file, by its suffix, or of JSON lines to standard output.

    The file appears when the last batch is written: a run that fails leaves none.

    Raises:
        TableError: the suffix is none of .ndjson, .jsonl, .csv, .parquet, or the file cannot be written.
    """
    if output is None:
        yield _lines(standard_output, scorer, explain)
        return
    openers: dict[str, Callable[[Path], Any]] = {
        ".ndjson": lambda path: _opened_lines(path, scorer, explain),
        ".jsonl": lambda path: _opened_lines(path, scorer, explain),
        ".csv": lambda path: _opened_csv(path, scorer),
        ".parquet": lambda path: _opened_parquet(path, scorer),
    }
    if output.suffix not in openers:
        raise TableError(f"{output}: expected a name that ends in {', '.join(openers)}")
    partial = output.with_name(f".{output.name}.partial")
    try:
        with openers[output.suffix](partial) as write:
            yield write
        partial.replace(output)
    except OSError as error:
        raise TableError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _opened_lines(path: Path, scorer: Scorer, explain: Explain) -> Iterator[Writer]:
    with path.open("wb") as file:
        yield _lines(file, scorer, explain)


def _lines(file: IO[bytes], scorer: Scorer, explain: Explain) -> Writer:
    encoder = msgspec.json.Encoder()
    return lambda scored: (file.write(encoder.encode_lines(results(scorer, scored, explain))), None)[1]


@contextmanager
def _opened_csv(path: Path, scorer: Scorer) -> Iterator[Writer]:
    with path.open("w", newline="", encoding="utf-8") as file:
        yield _csv(file, scorer)


def _csv(file: TextIO, scorer: Scorer) -> Writer:
    rows = csv.writer(file)
    rows.writerow(_names(scorer.schema))

    def write(scored: Scored) -> None:
        table = rows_of(scorer, scored)
        rows.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))

    return write


@contextmanager
def _opened_parquet(path: Path, scorer: Scorer) -> Iterator[Writer]:
    ids = [(name, pa.string()) for name in _id_names(scorer.schema)]
    schema = pa.schema([_SCHEMA.field(0), *ids, *list(_SCHEMA)[1:]])
    with pq.ParquetWriter(path, schema) as file:
        yield lambda scored: file.write_table(rows_of(scorer, scored))


def rows_of(scorer: Scorer, scored: Scored, explain: Explain = "flagged") -> pa.Table:
    """The results of a batch as a table, in the order of its records, faulty ones included.

    Args:
        scorer: that scored.
        scored: the batch.
        explain: "none" gives no reasons; a table has room for those of flagged records alone.
    """
    names = [field.name for field in scorer.schema.fields]
    fields = np.array(names, dtype=object)
    found = {} if explain == "none" else explained_alarms(scorer, scored)
    top = _top_fields(scorer, scored, found)
    columns: dict[str, Any] = {"index": scored.batch.index, "flagged": scored.flagged}
    columns["p_value"] = scored.p_values["score"]
    for name in STATISTICS:
        columns[name], columns[f"{name}_p_value"] = scored.statistics[name], scored.p_values[name]
    columns["kl"] = scored.kl
    for i in range(N_TOP):
        columns[f"top_field_{i + 1}"] = fields[top[:, i]] if i < top.shape[1] else [None] * len(scored.batch)
    columns["missing"] = [_listed(names, row) for row in scored.missing]
    columns["unseen"] = [_listed(names, row) for row in scored.unseen]
    columns["reason"] = [found[row].reason if row in found else None for row in range(len(scored.batch))]
    columns["error"] = [None] * len(scored.batch)
    good = pa.table({name: pa.array(columns[name], type=_SCHEMA.field(name).type) for name in _SCHEMA.names})
    good = _with_ids(good, scorer.schema, scored.batch.ids)
    faulty = [{"index": error.index, "error": str(error)} for error in scored.batch.errors]
    if not faulty:
        return good
    return pa.concat_tables([good, pa.Table.from_pylist(faulty, schema=good.schema)]).sort_by("index")


def _top_fields(scorer: Scorer, scored: Scored, found: Mapping[int, Explained]) -> NDArray[np.intp]:
    """Positions of the fields that a table names, the first one first, (n, N_TOP) at most.

    Of a flagged record those that explain the alarm, and then by attribution. Of another one those that lie farthest
    beyond what is usual of the field: to hide each in turn would take as long as to score as many records.
    """
    combination = scorer.bundle.calibration.combination
    oddness = (scored.contributions - np.array(combination.location)) / np.array(combination.spread)
    top = np.argsort(-oddness, axis=1, kind="stable")[:, :N_TOP]
    for row, explained in found.items():
        causes = list(explained.repair.changes) if explained.repair else []
        named = dict.fromkeys([*causes, *(part.field for part in explained.contributions or ())])
        top[row] = [scorer.schema.positions[name] for name in named][:N_TOP]
    return top


def _listed(names: Sequence[str], row: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str | None:
    return ", ".join(names[j] for j in np.flatnonzero(row).tolist()) or None


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


def _names(schema: Schema) -> list[str]:
    return [_SCHEMA.names[0], *_id_names(schema), *_SCHEMA.names[1:]]


def _with_ids(table: pa.Table, schema: Schema, ids: Sequence[Any]) -> pa.Table:
    names = _id_names(schema)
    for at, (shown, name) in enumerate(names.items()):
        values = [entry.get(name) if isinstance(entry, dict) else entry for entry in ids]
        texts = [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
        table = table.add_column(1 + at, shown, pa.array(texts, type=pa.string()))
    return table
