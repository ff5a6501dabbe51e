"""Whether a table of a million records fits in memory while it is fitted, and how fast that is.

python -m benchmarks.large_table [--rows 1000000] [--format parquet|csv]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from benchmarks.report import markdown_table, write_report

N_NUMERIC, N_CATEGORICAL = 30, 5
_MOST_GB = 6.0  # what the project asks of itself
_CHUNK = 100_000


def chunks(n_rows: int) -> Iterator[pa.RecordBatch]:
    """Records of six causes: numbers that follow from them, categories that follow from their signs."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(6, N_NUMERIC))
    for start in range(0, n_rows, _CHUNK):
        n = min(_CHUNK, n_rows - start)
        z = rng.normal(size=(n, 6))
        x = z @ loadings + 0.3 * rng.normal(size=(n, N_NUMERIC))
        columns = {f"x{j:02d}": np.round(x[:, j], 4) for j in range(N_NUMERIC)}
        for j in range(N_CATEGORICAL):
            likely = (z[:, j] > 0).astype(int) + 2 * (z[:, j + 1] > 0)
            code = np.where(rng.random(n) < 0.1, rng.integers(0, 12, n), likely)
            columns[f"c{j}"] = np.array([f"v{i}" for i in range(12)])[code]
        yield pa.RecordBatch.from_pydict(columns)


def write_table(path: Path, n_rows: int) -> None:
    """The table as a file, by its suffix; a chunk at a time."""
    batches = chunks(n_rows)
    first = next(batches)
    opener = pq.ParquetWriter if path.suffix == ".parquet" else pc.CSVWriter
    with opener(path, first.schema) as writer:
        for batch in (first, *batches):
            writer.write_batch(batch)


def main() -> None:
    """Generates the table, fits it by the command, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / f"large.{options.format}"
        write_table(table, options.rows)
        n_bytes = table.stat().st_size
        start = time.perf_counter()
        nelbo = Path(sys.executable).with_name("nelbo")
        command: list[str | Path] = [nelbo, "fit", table, "--name", "large", "--models", name, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - start
    # Linux counts in KiB.
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    fitted = json.loads(done.stdout)
    found = {
        "rows": options.rows,
        "format": options.format,
        "file_mb": round(n_bytes / 1e6),
        "seconds": round(seconds, 1),
        "rows_per_s": round(options.rows / seconds),
        "peak_gb": round(peak_gb, 2),
        "n_fit": fitted["data"]["n_fit"],
        "passes": peak_gb <= _MOST_GB,
    }
    body = markdown_table(list(found), [list(found.values())])
    print(body)
    command_line = f"python -m benchmarks.large_table --rows {options.rows} --format {options.format}"
    title = f"A fit of {options.rows:,} records of {N_NUMERIC} numbers and {N_CATEGORICAL} categories"
    write_report(f"large_table_{options.format}", title, command_line, found, body)


if __name__ == "__main__":
    main()
