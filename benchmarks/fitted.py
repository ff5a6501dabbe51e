"""Fits that are kept: a long benchmark that is run again finds them, and so does another one on the same records.

A fit lies in `FOLDER/<table>-<seed>/`: its records, its store, and `fit.json` that says what it was made of. Code that
has changed since does not count as long as the bundle loads and scores its golden records as before; to fit anew,
empty the folder.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.detectors import fitted
from nelbo.bundle import Bundle, read_bundle, replace_file
from nelbo.errors import NelboError
from nelbo.scoring import Scorer
from training.config import Config
from training.data import file_digest

_FIT = "fit.json"


class _Made(msgspec.Struct, frozen=True):
    """What a fit was made of.

    Attributes:
        config: of the fit, whole.
        seed: of the fit.
        records: SHA-256 of the records, as Parquet.
        schema: of the schema's file; None where it was inferred.
    """

    config: str
    seed: int
    records: str
    schema: str | None


class _Kept(msgspec.Struct, frozen=True):
    """`fit.json`.

    Attributes:
        made_of: what it says.
        bundle: its folder, from where the file lies.
    """

    made_of: _Made
    bundle: str


def fitted_once(
    normal: pa.Table, folder: Path, table: str, seed: int, config: Config | None = None, schema: Path | None = None
) -> Bundle:
    """The bundle of a fit of normal records: the one that a folder keeps, where it is of the same records and settings.

    Args:
        normal: records to fit on.
        folder: of the kept fits.
        table: name of the table that they come from.
        seed: of the fit.
        config: of the fit; None for the default.
        schema: path of one; None infers it.
    """
    place = folder / f"{table}-{seed}"
    made_of = _Made(
        (config or Config()).model_dump_json(), seed, _digest(normal), None if schema is None else file_digest(schema)
    )
    found = _found(place, made_of)
    if found is None:
        place.mkdir(parents=True, exist_ok=True)
        found = fitted(normal, place, seed, config, schema)
        # Last: a fit that was cut off has none, and is made again.
        kept = _Kept(made_of, f"models/{found.name}/{found.version}")
        replace_file(place / _FIT, msgspec.json.encode(kept))
    return found


@contextmanager
def folder_of_fits(given: Path | None) -> Iterator[Path]:
    """The folder that a person named, or one that goes when the run ends."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _found(place: Path, made_of: _Made) -> Bundle | None:
    try:
        kept = msgspec.json.decode((place / _FIT).read_bytes(), type=_Kept)
        if kept.made_of != made_of:
            return None
        bundle = read_bundle(place / kept.bundle)
        Scorer(bundle).replay()
    except (FileNotFoundError, msgspec.DecodeError, NelboError):
        return None
    return bundle


def _digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    # Pages end where chunks do: the same records in other chunks would be other bytes.
    pq.write_table(table.combine_chunks(), sink)
    return hashlib.sha256(sink.getvalue()).hexdigest()
