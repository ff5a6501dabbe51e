"""Tables made up for tests, and bundles fitted on them with the real pipeline in seconds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from training.config import Config
from training.pipeline import Request, run

QUICK = Config(encoder=(16,), decoder=(16,), steps=150, batch_size=64)


def mixed_table(n: int = 400, seed: int = 0) -> pa.Table:
    """Numbers that follow from each other and from a category; a spike, missing values, a boolean, ids."""
    rng = np.random.default_rng(seed)
    line = rng.choice(["north", "south", "west"], n, p=[0.5, 0.3, 0.2])
    load = rng.normal(0, 1, n)
    torque = np.round(40 + 5 * load + 10 * (line == "north") + rng.normal(0, 0.5, n), 1)
    leak = np.where(rng.random(n) < 0.6, 0.0, rng.lognormal(0, 1, n))
    note = [None if r < 0.1 else float(v) for r, v in zip(rng.random(n), rng.normal(3, 1, n), strict=True)]
    return pa.table(
        {
            "serial": [f"s{i:05d}" for i in range(n)],
            "line": line,
            "torque [Nm]": torque,
            "speed": np.round(1500 - 20 * load + rng.normal(0, 4, n)),
            "leak": leak,
            "note": pa.array(note, type=pa.float64()),
            "guarded": load + rng.normal(0, 1, n) > 0,
            "shifts": rng.integers(0, 2, n),
        }
    )


def numeric_table(n: int = 300, seed: int = 0) -> pa.Table:
    """Five numbers of two causes; one of them has heavy tails."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    x = z @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(n, 5))
    x[:, 4] = np.sinh(2 * x[:, 4])
    return pa.table({f"x{j}": x[:, j] for j in range(5)})


def categorical_table(n: int = 300, seed: int = 0) -> pa.Table:
    """Two categories, the second mostly given by the first."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 3, n)
    b = np.where(rng.random(n) < 0.9, a, rng.integers(0, 3, n))
    return pa.table({"a": [f"a{v}" for v in a], "b": [f"b{v}" for v in b]})


def timed_table(n: int = 300, seed: int = 0) -> pa.Table:
    """A time that orders, another that is a field (office hours), a number."""
    rng = np.random.default_rng(seed)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    at = [start + timedelta(minutes=7 * i) for i in range(n)]
    opened = [
        start + timedelta(days=int(d), hours=float(h))
        for d, h in zip(rng.integers(0, 5, n), rng.uniform(8, 17, n), strict=True)
    ]
    return pa.table(
        {
            "at": [moment.isoformat() for moment in at],
            "opened": [moment.isoformat() for moment in opened],
            "amount": rng.lognormal(3, 0.4, n),
        }
    )


def clustered_table(n: int = 400, seed: int = 0) -> pa.Table:
    """Forty settings of a machine, met again and again: records lie close together, and far from most others."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 10))[rng.integers(0, 40, n)] + 0.001 * rng.normal(size=(n, 10))
    return pa.table({f"x{j}": x[:, j] for j in range(10)})


TABLES = {
    "mixed": mixed_table,
    "numeric": numeric_table,
    "categorical": categorical_table,
    "timed": timed_table,
    "clustered": clustered_table,
}


def write_csv(table: pa.Table, path: Path) -> Path:
    pc.write_csv(table, path)
    return path


def fitted_bundle(folder: Path, kind: str) -> Path:
    """A bundle of one of the tables; the folder is its store."""
    table = write_csv(TABLES[kind](), folder / f"{kind}.csv")
    return run(Request(table=table, name=kind, models=folder / "models", config=QUICK)).folder
