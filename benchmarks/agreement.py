"""Do all ways in give the same figures? One file of records by `nelbo score` and by HTTP, in batches and by columns.

python -m benchmarks.agreement MODEL TABLE [--models models] [--n 10000]
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.serving_process import serving, wait_until_ready
from nelbo.bundle import read_bundle
from nelbo.calibration import STATISTICS
from nelbo.schema import Column, Schema
from nelbo.store import Store
from nelbo.tables import open_table, read_columns

_TOLERANCE = 1e-5
_BATCHES = (1, 100, 1_000)
_NAMES = (*STATISTICS, *(f"{name} p-value" for name in STATISTICS))

Record = dict[str, Any]
Figures = NDArray[np.float64]  # shape (n, 6), in the order of _NAMES


def figures_of(results: Sequence[Mapping[str, Any]]) -> Figures:
    """The statistics and p-values of each result."""
    values = [[result[name]["value"] for name in STATISTICS] for result in results]
    p_values = [[result[name]["p_value"] for name in STATISTICS] for result in results]
    return np.hstack([np.array(values), np.array(p_values)])


def largest_difference(one: Figures, other: Figures) -> NDArray[np.float64]:
    """Largest relative difference of each figure over the records, shape (6,); absolute where a figure is below 1.

    Nats are logarithms: a reconstruction error of 0.0003 is a sum of addends around 1 that cancel, and has no
    more digits than these.

    >>> largest_difference(np.array([[2.0, 0.5]]), np.array([[2.5, 0.25]]))
    array([0.2 , 0.25])
    """
    size = np.maximum(1.0, np.maximum(np.abs(one), np.abs(other)))
    return np.asarray((np.abs(one - other) / size).max(axis=0))


# --- the ways in ------------------------------------------------------------------------------------


def by_file(table: pa.Table, name: str, models: Path) -> Figures:
    """`nelbo score` on a CSV file, JSON lines out."""
    with tempfile.TemporaryDirectory() as folder:
        records, scores = Path(folder, "records.csv"), Path(folder, "scores.ndjson")
        pa_csv.write_csv(table, records)
        nelbo = Path(sys.executable).with_name("nelbo")
        subprocess.run([nelbo, "score", name, records, "-o", scores, "--models", models], check=True)
        return figures_of([msgspec.json.decode(line) for line in scores.read_bytes().splitlines()])


def by_objects(client: httpx.Client, path: str, records: Sequence[Record], size: int) -> Figures:
    """JSON objects, so many a request."""
    parts = (records[start : start + size] for start in range(0, len(records), size))
    return np.vstack([_posted(client, path, {"records": part}) for part in parts])


def by_columns(client: httpx.Client, path: str, records: Sequence[Record]) -> Figures:
    """One list a field, all records in one request."""
    return _posted(client, path, {"columns": {name: [record[name] for record in records] for name in records[0]}})


def _posted(client: httpx.Client, path: str, body: object) -> Figures:
    answer = client.post(
        path, content=msgspec.json.encode(body), headers={"content-type": "application/json"}, timeout=60
    )
    return figures_of(msgspec.json.decode(answer.raise_for_status().content)["results"])


# --- the records ------------------------------------------------------------------------------------


def first_records(path: Path, schema: Schema, n: int) -> tuple[pa.Table, list[Record]]:
    """The first n records of a table, as a table and as JSON objects."""
    table = read_columns(open_table(path)).slice(0, n)
    known = [column for column in schema.columns if column.name in table.column_names]
    table = table.select([column.name for column in known])
    columns = [[_json_value(column, value) for value in table[column.name].to_pylist()] for column in known]
    names = [column.name for column in known]
    return table, [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _json_value(column: Column, value: Any) -> Any:
    """A cell as a client would send it: a file's digits may be a name to the schema."""
    if value is None or value != value:  # noqa: PLR0124  # NaN alone differs from itself
        return None
    if column.kind == "categorical" and any(isinstance(known, str) for known in column.known):
        return str(value)
    if column.kind == "boolean":
        return bool(value)
    return value.isoformat() if column.kind == "timestamp" and not isinstance(value, int | float | str) else value


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints the largest difference of each way from the file's; 1 where one is beyond 1e-5."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement")
    parser.add_argument("model")
    parser.add_argument("table", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--n", type=int, default=10_000)
    options = parser.parse_args(arguments)
    schema = read_bundle(Store(options.models).live(options.model)).schema
    table, records = first_records(options.table, schema, options.n)
    reference = by_file(table, options.model, options.models)
    ways: dict[str, Figures] = {}
    path = f"/v1/models/{options.model}/score?explain=none"
    with serving(options.models, MAX_RECORDS=len(records)) as service, httpx.Client(base_url=service.url) as client:
        wait_until_ready(service.url)
        for size in _BATCHES:
            ways[f"HTTP, {size} objects a request"] = by_objects(client, path, records, size)
        ways["HTTP, columns"] = by_columns(client, path, records)
    differences = {way: largest_difference(reference, figures) for way, figures in ways.items()}
    return _conclude(options, len(records), differences, results)


def _conclude(
    options: argparse.Namespace, n: int, differences: Mapping[str, NDArray[np.float64]], results: Path
) -> int:
    largest = max(float(difference.max()) for difference in differences.values())
    passes = largest <= _TOLERANCE
    sentence = (
        f"{n} records, against `nelbo score`: the largest relative difference of any figure is {largest:.1e} "
        f"(asked for: {_TOLERANCE:g}): {'passes' if passes else 'FAILS'}."
    )
    rows = [(way, *(f"{value:.1e}" for value in difference)) for way, difference in differences.items()]
    body = f"{sentence}\n\n{markdown_table(['way in', *_NAMES], rows)}"
    print(body)
    found = {
        "n": n,
        "largest": largest,
        "passes": passes,
        "ways": {way: dict(zip(_NAMES, map(float, row), strict=True)) for way, row in differences.items()},
    }
    command = f"python -m benchmarks.agreement {options.model} {options.table.name} --n {options.n}"
    name = f"agreement_{options.model}"
    write_report(name, f"Agreement of the ways in: {options.model}", command, found, body, results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())
