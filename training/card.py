"""`MODEL_CARD.md`: what a person must know of a model before trusting it."""

from collections.abc import Iterator
from typing import Any

from nelbo.bundle import Manifest
from nelbo.calibration import CalibrationFile
from nelbo.schema import Schema


def model_card(manifest: Manifest, schema: Schema, calibration: CalibrationFile, warnings: tuple[str, ...]) -> bytes:
    """The card of a bundle, as Markdown."""
    return ("\n".join(_lines(manifest, schema, calibration, warnings)) + "\n").encode()


def _lines(
    manifest: Manifest, schema: Schema, calibration: CalibrationFile, warnings: tuple[str, ...]
) -> Iterator[str]:
    data, latents = manifest.data, manifest.metrics["latents"]
    yield f"# {manifest.name} {manifest.version}"
    yield ""
    yield "A variational autoencoder over records, with thresholds calibrated on records that it has not seen."
    yield ""
    yield "## Use"
    yield (
        "It says how odd a record is among records like those it was fitted on, and which fields make it so. "
        "It does not say that an odd record is bad, and promises nothing where incoming records differ from "
        "those below: then calibrate or fit anew."
    )
    yield ""
    yield "## Data"
    yield f"- table `{data['source']}`, SHA-256 `{data['digest']}`"
    yield (
        f"- {data['n_fit']} records fitted the model, {data['n_calibration_a']} shaped the score, "
        f"{data['n_calibration_b']} give the p-values; these sets are disjoint"
    )
    yield from (f"- {warning}" for warning in warnings)
    yield ""
    yield "## Fields"
    yield from (f"- `{field.name}`: {_described(field.model_dump())}" for field in schema.fields)
    yield ""
    yield "## Calibration"
    k = max(1, int(calibration.rate * (calibration.n + 1)))
    yield f"- rate where a request names none: {calibration.rate:.4g}, effective {k / (calibration.n + 1):.4g}"
    yield f"- smallest rate that {calibration.n} calibration records carry: {1 / (calibration.n + 1):.3g}"
    yield ""
    yield "## Fit"
    yield f"- loss {manifest.metrics['loss']:.4g} nats a record"
    yield f"- {latents['n_active']} of {latents['n_latents']} latents in use"
    yield f"- seed {manifest.seed}; settings {manifest.config}"
    yield from _evaluation(manifest.metrics.get("evaluation"))
    yield ""
    yield "## What the bundle reveals of its data"
    yield (
        "Categories and spikes of fields (`schema.json`), scores of the calibration records (`calibration.json`), "
        "quantiles and counts of fields (`reference.json`), up to 16 whole records without their ids "
        "(`golden.ndjson`), which the service replays before it serves, and where there is a report, the oddest "
        "values of at most 20 records with their ids (`report.json`, `report.html`)."
    )
    yield from _exemplars(manifest.metrics.get("n_exemplars", 0), int(data["n_fit"]))


def _exemplars(n: int, n_fit: int) -> Iterator[str]:
    if n:
        yield ""
        yield (
            f"`score.onnx` holds {n} of the {n_fit} records fitted on as exemplars, chosen so that odd ones are among "
            "them: standardised and rounded to three digits, and encoded. Whoever has the graph can turn them back "
            "into nearly all of their values. "
            'A fit with `prior = "standard_normal"` in its config holds none, and ranks worse.'
        )


def _described(field: dict[str, Any]) -> str:
    parts = [str(field["kind"])]
    if field["spike"] is not None:
        parts.append(f"often exactly {field['spike']:g}")
    if field["categories"]:
        parts.append(f"{len(field['categories'])} categories, {len(field['rare'])} rare ones together")
    if field["nullable"]:
        parts.append("may be missing")
    return ", ".join(parts)


def _evaluation(evaluation: dict[str, Any] | None) -> Iterator[str]:
    if evaluation is None:
        return
    yield ""
    yield "## Labelled anomalies of the same table"
    n_anomalies = evaluation["n_anomalies"]
    yield f"{n_anomalies} anomalies beside the {evaluation['n'] - n_anomalies} records of calibration-b."
    yield ""
    yield "| statistic | AUROC | average precision | power |"
    yield "|---|---|---|---|"
    for name, row in evaluation["statistics"].items():
        yield f"| {name} | {row['auroc']:.3f} | {row['average_precision']:.3f} | {row['power']:.3f} |"
