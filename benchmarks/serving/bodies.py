"""The same records as request bodies, one for each way that the service and its peers read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.serving.records import FIELDS, Matrix

JSON = "application/json"


@dataclass(frozen=True)
class Body:
    """A request body.

    Attributes:
        data: its bytes.
        content_type: of it.
        headers: besides.
    """

    data: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def kept_in(self, folder: Path, name: str) -> Path:
        """The path of a file with these bytes, for programs that send files."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(self.data)
        return path


def bodies(records: Matrix) -> dict[str, Body]:
    """Every form by name.

    Args:
        records: shape (n, 30).
    """
    rows = records.tolist()
    objects = [dict(zip(FIELDS, row, strict=True)) for row in rows]
    columns = dict(zip(FIELDS, records.T.tolist(), strict=True))
    lines = b"".join(_json(record) + b"\n" for record in objects)
    return {
        "objects": Body(_json({"records": objects})),
        "columns": Body(_json({"columns": columns})),
        "array": Body(_json({"x": rows})),
        "v2 JSON": Body(_json(_tensor(records) | {"data": records.ravel().tolist()}, "inputs")),
        "v2 binary": _binary(records),
        "NDJSON": Body(lines, "application/x-ndjson"),
        "CSV": Body(_csv(rows), "text/csv"),
        "Arrow": Body(_arrow(columns), "application/vnd.apache.arrow.stream"),
    }


def _json(value: object, only_item_of: str | None = None) -> bytes:
    whole = value if only_item_of is None else {only_item_of: [value]}
    return json.dumps(whole, separators=(",", ":")).encode()


def _tensor(records: Matrix) -> dict[str, object]:
    return {"name": "x", "shape": list(records.shape), "datatype": "FP32"}


def _binary(records: Matrix) -> Body:
    """The protocol's binary tensor data extension: a JSON header, then the raw values."""
    raw = records.astype("<f4").tobytes()
    header = _json(_tensor(records) | {"parameters": {"binary_data_size": len(raw)}}, "inputs")
    length = {"Inference-Header-Content-Length": str(len(header))}
    return Body(header + raw, "application/octet-stream", length)


def _csv(rows: list[list[float]]) -> bytes:
    lines = [",".join(FIELDS), *(",".join(map(repr, row)) for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def _arrow(columns: Mapping[str, list[float]]) -> bytes:
    batch = pa.record_batch({name: np.asarray(values) for name, values in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data
