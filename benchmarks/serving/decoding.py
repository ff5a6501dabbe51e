"""Records with gaps and categories: bytes to arrays, beside what `msgspec` alone takes for the same structs."""

import json
import statistics
import time
from collections.abc import Callable

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from benchmarks.report import markdown_table
from benchmarks.serving.bars import Bar
from benchmarks.serving.setup import Setup
from nelbo.records import RecordDecoder
from nelbo.schema import Schema
from service.memory import collect_seldom, keep_freed_memory

TITLE = "Decoding of gaps and categories"
_N_NUMERIC, _N_CATEGORICAL, _N_CATEGORIES, _N_RECORDS = 20, 10, 20, 1000
_MISSING = 0.05  # the share of numbers that are null; chosen
_REPEATS = 20


class Found(msgspec.Struct, frozen=True):
    """The figures, µs of CPU for a body of a thousand records, the lowest of each round.

    Attributes:
        structs_us: `msgspec` alone.
        arrays_us: `RecordDecoder.json`.
    """

    structs_us: list[float]
    arrays_us: list[float]

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios."""
        return statistics.median(b / a for a, b in zip(self.structs_us, self.arrays_us, strict=True))


def schema() -> Schema:
    """20 numeric fields that may be missing and 10 categorical ones."""
    numeric = [
        {"name": f"number_{j:02d}", "role": "field", "kind": "numeric", "nullable": True} for j in range(_N_NUMERIC)
    ]
    categories = [f"category {i}" for i in range(_N_CATEGORIES)]
    categorical = [
        {"name": f"kind_{j:02d}", "role": "field", "kind": "categorical", "categories": categories}
        for j in range(_N_CATEGORICAL)
    ]
    return Schema.model_validate_json(json.dumps({"columns": [*numeric, *categorical]}))


def body(of: Schema, n: int = _N_RECORDS) -> bytes:
    """Records of that schema as objects."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[object]] = {}
    for column in of.fields:
        if column.is_coded:
            columns[column.name] = list(rng.choice(column.categories, n).tolist())
        else:
            values, missing = rng.normal(size=n), rng.random(n) < _MISSING
            columns[column.name] = [
                None if gone else float(f"{value:.6g}") for value, gone in zip(values, missing, strict=True)
            ]
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return json.dumps({"records": records}, separators=(",", ":")).encode()


def bare(of: Schema) -> msgspec.json.Decoder[msgspec.Struct]:
    """The decoder of structs with the types that the schema's records have in JSON, and of nothing else."""
    fields = [
        (column.name, float | None | UnsetType, UNSET) if column.nullable else (column.name, str | None)
        for column in sorted(of.fields, key=lambda column: column.nullable)
    ]
    record = msgspec.defstruct("Record", fields, forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(
        msgspec.defstruct("Body", [("records", list[record])], forbid_unknown_fields=True, gc=False)  # type: ignore[valid-type]
    )


def measure(setup: Setup) -> Found:
    """Both in turn, in a process that treats memory as the service's does."""
    keep_freed_memory()
    collect_seldom()
    of = schema()
    sent, structs, arrays = body(of), bare(of).decode, RecordDecoder(of).json
    found = Found([], [])
    for _ in range(setup.rounds):
        found.structs_us.append(_best_us(structs, sent))
        found.arrays_us.append(_best_us(arrays, sent))
    return found


def bars(found: Found) -> list[Bar]:
    """What is asked of decoding."""
    return [Bar("20 nullable numbers, 10 categories: CPU over bare msgspec", round(found.ratio, 3), 2.5, at_most=True)]


def section(found: Found) -> str:
    """Its table."""
    rows = [
        (name, f"{statistics.median(us):,.0f}", f"{1e6 * _N_RECORDS / statistics.median(us):,.0f}")
        for name, us in (("msgspec to structs", found.structs_us), ("RecordDecoder.json to arrays", found.arrays_us))
    ]
    what = f"{_N_RECORDS:,} records of 20 numbers, one in twenty null, and 10 categories, as objects"
    intro = f"{what}; without HTTP, in a process that treats memory as the service's does."
    return f"{intro}\n\n{markdown_table(['decoder', 'CPU, µs', 'records a core-second'], rows)}"


def _best_us(call: Callable[[bytes], object], sent: bytes) -> float:
    taken = []
    for _ in range(_REPEATS):
        before = time.process_time()
        call(sent)
        taken.append(1e6 * (time.process_time() - before))
    return round(min(taken), 1)
