"""What onnxruntime alone takes for some records of a table: its session runs on arrays that are ready.

`python -m benchmarks.session_alone BUNDLE TABLE FIRST N` prints the processor's seconds a record.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nelbo.scoring import CHUNK

_OUTPUTS = ["contributions", "kl", "evidence", "expected_numbers", "expected_codes", "latents"]  # as nelbo asks for


def numbers(table: Path, first: int, n: int) -> NDArray[np.float64]:
    """Some records of a table of numbers, from the row group on in which they begin."""
    with pq.ParquetFile(table) as file:
        group = first // file.metadata.row_group(0).num_rows
        batches = file.iter_batches(n, row_groups=[group])
        return np.asarray(np.column_stack([column.to_numpy() for column in next(batches).columns]))


def seconds_a_record(graph: bytes, records: NDArray[np.float64]) -> float:
    """Of the session's runs, in batches as large as `nelbo score` runs them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}
    n, n_fields = len(records), records.shape[1]
    feeds = []
    for start in range(0, n, CHUNK):
        rows = records[start : start + CHUNK]
        feed = {"numbers": rows, "codes": np.zeros((len(rows), 0), dtype=np.int64)}
        feed["hidden"] = np.zeros((len(rows), n_fields), dtype=np.bool_)
        feeds.append({name: value for name, value in feed.items() if name in names})
    for feed in feeds[:50]:  # to warm up
        session.run(_OUTPUTS, feed)
    start_s = time.process_time()
    for feed in feeds:
        session.run(_OUTPUTS, feed)
    return (time.process_time() - start_s) / n


if __name__ == "__main__":
    bundle, path, first, n = sys.argv[1:]
    graph = (Path(bundle) / "score.onnx").read_bytes()
    print(json.dumps(seconds_a_record(graph, numbers(Path(path), int(first), int(n)))))
