"""Calibrated anomaly scores for records: score with a bundle, from a notebook, a cron job or a service."""

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
