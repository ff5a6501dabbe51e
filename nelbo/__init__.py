"""Calibrated anomaly scores for records: score with a bundle, from a notebook, a cron job or a service."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nelbo.bundle import Bundle, read_bundle
    from nelbo.errors import (
        BodyError,
        BundleError,
        CalibrationError,
        NelboError,
        RecordError,
        SchemaError,
        StoreError,
        TableError,
    )
    from nelbo.schema import Column, Schema
    from nelbo.scoring import Scored, Scorer
    from nelbo.store import Store

__all__ = [
    "BodyError",
    "Bundle",
    "BundleError",
    "CalibrationError",
    "Column",
    "NelboError",
    "RecordError",
    "Schema",
    "SchemaError",
    "Scored",
    "Scorer",
    "Store",
    "StoreError",
    "TableError",
    "read_bundle",
]

_HOMES = {
    "Bundle": "bundle",
    "Column": "schema",
    "Schema": "schema",
    "Scored": "scoring",
    "Scorer": "scoring",
    "Store": "store",
    "read_bundle": "bundle",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for.

    A process that probes a graph needs little of this package: the less there is, the sooner it starts, and the less of
    the service's start goes into copying what it shares with it.
    """
    if name not in __all__:
        raise AttributeError(f"module 'nelbo' has no attribute '{name}'")
    return getattr(import_module(f"nelbo.{_HOMES.get(name, 'errors')}"), name)
