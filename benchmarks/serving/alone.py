"""What the parts of an answer cost alone: the programs in `limits/` as they are, and the bytes of an answer written."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from benchmarks.serving.process import SERVER_CORE

_LIMITS = Path(__file__).parent / "limits"
_REPEATS = 20


def session_run_us(graph: Path, batches: Sequence[int]) -> dict[int, float]:
    """CPU time of one `session.run` for batches of so many records, µs, by `limits/ort_limit.py`."""
    found = json.loads(_printed("ort_limit.py", str(graph), "--json", "--batches", *map(str, batches)))
    return {row["batch"]: row["cpu_us"] for row in found}


def codec_us(n_records: int) -> list[dict[str, Any]]:
    """What `limits/codec_limit.py` finds: dicts with `kind` (decode, encode), `case` and `cpu_us`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "codec.json")
        _printed("codec_limit.py", "--rows", str(n_records), "--json", str(path))
        found: list[dict[str, Any]] = json.loads(path.read_bytes())
    return found


def cheapest(found: Sequence[dict[str, Any]], kind: str, form: str) -> tuple[str, float]:
    """The case that does all of its work in the least time.

    Args:
        found: by `codec_us`.
        kind: decode or encode.
        form: the word or words that cases begin with.

    Returns:
        The case and its CPU time, µs.
    """
    # "decode only" leaves out what makes the matrix.
    fitting = [row for row in found if row["kind"] == kind and row["case"].startswith(f"{form} ")]
    best = min((row for row in fitting if "decode only" not in row["case"]), key=lambda row: float(row["cpu_us"]))
    return best["case"], float(best["cpu_us"])


def rewriting_us(answer: bytes) -> float:
    """CPU time to write an answer of this content from objects that are ready, by the faster of two libraries, µs."""
    value = orjson.loads(answer)
    encode = msgspec.json.Encoder().encode
    return 1e6 * min(_best_s(lambda: orjson.dumps(value)), _best_s(lambda: encode(value)))


def _best_s(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        before = time.process_time()
        call()
        taken.append(time.process_time() - before)
    return min(taken)


def _printed(program: str, *arguments: str) -> str:
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, str(_LIMITS / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
