"""From a table to a bundle: load, split, fit, export, compare, calibrate, write."""

import hashlib
import importlib.metadata
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from nelbo.admission import admit
from nelbo.bundle import Bundle, Code, Golden, Manifest, check_name, new_version, read_bundle, sha256, write_bundle
from nelbo.calibration import STATISTICS, CalibrationFile, Combination
from nelbo.decision import capacity
from nelbo.drift import Reference, reference_of
from nelbo.errors import SchemaChangedError, StoreWriteError
from nelbo.evaluation import Evaluation, evaluate
from nelbo.promotion import refuse_other_schema
from nelbo.records import Batch
from nelbo.results import shown_value
from nelbo.schema import Schema
from nelbo.scoring import Graph, Scorer, combine, states
from nelbo.sources import revision, sources_digest, version
from nelbo.store import Store
from training.calibrate import DEFAULT_RATE, calibrated, chosen_rate, combination_of, now, segment_field
from training.card import model_card
from training.compact import compact
from training.config import Config
from training.data import Data, Label, file_digest, load, read_normal
from training.evaluate import LatentUse, latent_use, latents_in_use
from training.exclusion import read_exclusion
from training.export import OPSET, check_parity, export
from training.facts import Facts, encode
from training.fit import Checkpoint, Progress, fit
from training.layout import lay_out
from training.measuring import Fit, facts_of
from training.report import FACTS, PAGE, page
from training.settle import settle
from training.suspects import Judged, judge, suspects

_N_GOLDEN = 16  # chosen; enough to notice another graph, few enough to replay at every start
_LIBRARIES = ("nelbo", "numpy", "onnx", "onnxruntime", "torch")

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a person asks a fit to do.

    Attributes:
        table: path of the records.
        name: of the model.
        models: the store's folder.
        schema: path of a schema; None infers one.
        label: which records are normal; None if all are.
        rate: false-alarm rate of the bundle; None for 1 %, or what the records carry.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.
        fdr: false discovery rate to hold instead where a request names nothing; None for the rate.
        segment: field of categories whose records are judged apart; None where all are judged by all.
        config: settings of the fit.
        seed: of the split and the fit.
        checkpoint: path to keep the fit's state in; None keeps none.
        exclude: path of a list of records to leave out, as `training.exclusion` reads it; None leaves out none.
        keep: how many of the model's newest versions to leave in the store; None for all.
    """

    table: Path
    name: str
    models: Path
    schema: Path | None = None
    label: Label | None = None
    rate: float | None = None
    confidence: float | None = None
    fdr: float | None = None
    segment: str | None = None
    config: Config = field(default_factory=Config)
    seed: int = 0
    checkpoint: Path | None = None
    exclude: Path | None = None
    keep: int | None = None


@dataclass(frozen=True)
class Outcome:
    """A fit that succeeded.

    Attributes:
        folder: where the bundle lies.
        bundle: read back from there.
        data: what it was made of.
        latents: whether they are in use.
        evaluation: against labels, where there are any.
        losses: (step, nats per record).
        facts: what the report shows.
        judged: its normal records, by how suspicious they are.
    """

    folder: Path
    bundle: Bundle
    data: Data
    latents: LatentUse
    evaluation: Evaluation | None
    losses: list[tuple[int, float]]
    facts: Facts
    judged: Judged


def run(
    request: Request,
    progress: Callable[[Progress], None] = lambda _: None,
    stage: Stage = lambda _: None,
    say: Stage = lambda _: None,
) -> Outcome:
    """Fits a table and writes its bundle, which becomes the model's live version if it reads the same records.

    Args:
        request: what to fit, and how.
        progress: told of each step of the fit.
        stage: told what is being done.
        say: told what a person should know before the fit, and why its bundle is not the live version.

    Raises:
        NelboError: the table, the schema, the name or the rate is wrong; nothing is left behind.
    """
    check_name(request.name)
    stage("reading")
    excluded = None if request.exclude is None else read_exclusion(request.exclude)
    data = load(request.table, request.schema, request.label, request.rate, request.seed, request.confidence, excluded)
    fit_part, part_a, part_b = (data.part(rows) for rows in (data.split.fit, data.split.a, data.split.b))
    if request.segment is not None:
        segment_field(data.schema, request.segment)
    say(capacity(len(part_b)))
    layout = lay_out(data.schema, fit_part)
    stage("fitting")
    fitted = fit(layout, fit_part, request.config, request.seed, progress, _checkpoint(request, data))
    fitted.vae.encoder, fitted.vae.decoder = compact(fitted.vae.encoder), compact(fitted.vae.decoder)
    stage("settling")
    chosen = settle(fitted.vae, fit_part, part_a, request.config, request.seed)
    if not fitted.vae.with_exemplars:
        in_use = latents_in_use(fitted.vae, fit_part, np.random.default_rng([request.seed, 3]))
        fitted.vae.take_expectation_along(in_use)
    stage("exporting")
    onnx = export(fitted.vae, data.schema)
    stage("checking")
    admit(onnx)
    parity = check_parity(fitted.vae, data.schema, onnx, fit_part, request.seed)
    stage("calibrating")
    graph = Graph(data.schema, onnx, "the exported graph")
    combination = combination_of(graph, part_a)
    rate = chosen_rate(request.rate, len(part_b), request.confidence)
    calibration = calibrated(graph, combination, part_b, rate, request.confidence, request.fdr, request.segment)
    latents = latent_use(fitted.vae, part_a, np.random.default_rng([request.seed, 2]))
    manifest = Manifest(
        name=request.name,
        version=new_version(sha256(onnx)),
        created=now(),
        schema_digest="",
        files={},
        opset=OPSET,
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        seed=request.seed,
        data=_provenance(data),
        config=request.config.model_dump(mode="json"),
        metrics={
            "loss": round(fitted.losses[-1][1], 6),
            "latents": latents.as_json(),
            "n_exemplars": fitted.vae.n_exemplars,
            "parity": parity.largest,
        },
        code=code_here(),
    )
    reference = reference_of(data.schema, fit_part)
    stage("comparing")
    draft = Scorer(Bundle(manifest, data.schema, onnx, calibration, reference, golden=(), card=""))
    evaluation = _evaluated(data, draft)
    manifest = manifest.model_copy(update={"metrics": manifest.metrics | {"evaluation": evaluation}})
    as_toml = None if request.config == Config() else _toml(request.config)
    stage("judging")
    judged = judge(draft.bundle, fitted.vae, data, chosen)
    listed, command = suspects(judged, data), _command(request)
    stage("reporting")
    facts = facts_of(Fit(draft, graph, data, layout, fitted.losses, latents, listed, command, as_toml))
    report = {FACTS: encode(facts), PAGE: page(facts)}
    stage("writing")
    folder = _write(request.models, manifest, graph, onnx, calibration, reference, part_b, data.warnings, report)
    _make_live(Store(request.models), manifest, data.schema, request.keep, say)
    return Outcome(folder, read_bundle(folder), data, latents, evaluation, fitted.losses, facts, judged)


def recalibrate(
    bundle: Bundle,
    table: Path,
    label: Label | None,
    rate: float | None,
    models: Path,
    confidence: float | None = None,
    *,
    fdr: float | None = None,
    segment: str | None = None,
    say: Stage = lambda _: None,
) -> Path:
    """A new version of a bundle whose p-values come from the normal records of another table.

    The graph and the way in which parts become a score stay, and so do the scores; p-values and thresholds change.
    The report is left behind: it tells of the old ones.

    Args:
        bundle: the one to start from.
        table: normal records that the model was not fitted on.
        label: which of them are normal; None if all are.
        rate: the new version's own; None for 1 %, or what the records carry. Where neither a rate nor a confidence nor
            a false discovery rate is given, the bundle keeps what it has, as far as the records carry it.
        models: the store's folder.
        confidence: with which the true rate is to stay below it; None where it is to hold in the mean.
        fdr: false discovery rate to hold instead where a request names nothing; None for the rate.
        segment: field of categories whose records are judged apart; None for the one that the bundle has, if any.
        say: told what a person should know before, and why the new version is not the live one.

    Returns:
        The new version's folder; it is the live one if it reads the records that the live one did.
    """
    batch = read_normal(table, bundle.schema, label)
    say(capacity(len(batch)))
    graph = Graph(bundle.schema, bundle.graph, f"bundle '{bundle.label}'")
    usual, old = DEFAULT_RATE, bundle.calibration
    if rate is None and confidence is None and fdr is None:
        confidence, fdr = old.confidence, old.fdr
        # What too few records had to take instead of 1 % was nobody's wish.
        usual = old.rate if old.rate != chosen_rate(None, old.n, old.confidence) else DEFAULT_RATE
    rate = chosen_rate(rate, len(batch), confidence, usual)
    segment = old.segments.field if segment is None and old.segments is not None else segment
    if segment is not None:
        segment_field(bundle.schema, segment)
    calibration = calibrated(graph, bundle.calibration.combination, batch, rate, confidence, fdr, segment)
    provenance = {
        "n_calibration_b": len(batch),
        "calibration_source": table.name,
        "calibration_digest": file_digest(table),
    }
    # What the evaluation says of power and realised rate held for the thresholds before.
    metrics = {name: value for name, value in bundle.manifest.metrics.items() if name != "evaluation"}
    manifest = bundle.manifest.model_copy(
        update={
            "metrics": metrics,
            "version": new_version(sha256(calibration_bytes(calibration))),
            "created": now(),
            "code": code_here(),
            "data": bundle.manifest.data | provenance,
        }
    )
    folder = _write(models, manifest, graph, bundle.graph, calibration, bundle.reference, batch, ())
    _make_live(Store(models), manifest, bundle.schema, None, say)
    return folder


def _write(
    models: Path,
    manifest: Manifest,
    graph: Graph,
    onnx: bytes,
    calibration: CalibrationFile,
    reference: Reference,
    part_b: Batch,
    warnings: tuple[str, ...],
    report: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Writes the bundle, and reads it back as a service would."""
    files = {
        "schema.json": graph.schema.to_json(),
        "score.onnx": onnx,
        "calibration.json": calibration_bytes(calibration),
        "reference.json": reference.model_dump_json().encode() + b"\n",
        "golden.ndjson": golden_lines(graph, calibration.combination, part_b),
        "MODEL_CARD.md": model_card(manifest, graph.schema, calibration, warnings),
        **report,
    }
    folder = write_bundle(models, manifest, files)
    Scorer(read_bundle(folder)).replay()
    return folder


def _make_live(store: Store, manifest: Manifest, schema: Schema, keep: int | None, say: Stage) -> None:
    """Makes a new version the live one, unless whoever sends records would have to change them."""
    name, version = manifest.name, manifest.version
    try:
        refuse_other_schema(store, name, version, schema)
        store.promote(name, version)
        if keep is not None:
            store.prune(name, keep)
    except (SchemaChangedError, StoreWriteError) as error:
        say(f"note: {error}")


def code_here() -> Code:
    """The code that this is."""
    return Code(version=version(), sources=sources_digest(), revision=revision())


def calibration_bytes(calibration: CalibrationFile) -> bytes:
    """The file's bytes."""
    return calibration.model_dump_json().encode() + b"\n"


def golden_lines(graph: Graph, combination: Combination, batch: Batch) -> bytes:
    """Records from the least to the most odd of a batch, with what the scorer says of each."""
    missing, unseen = states(graph.schema, batch)
    statistics, _, _ = combine(combination, graph.run(batch), missing, unseen)
    writable = np.flatnonzero(~unseen.any(axis=1))  # an unseen category has no name to write down
    by_score = writable[np.argsort(statistics["score"][writable], kind="stable")]
    rows = by_score[np.unique(np.linspace(0, len(by_score) - 1, _N_GOLDEN).astype(int))]
    lines = [
        Golden(record_of(graph.schema, batch, int(row)), *(float(statistics[name][row]) for name in STATISTICS))
        for row in rows
    ]
    return msgspec.json.Encoder().encode_lines(lines)


def record_of(schema: Schema, batch: Batch, row: int) -> dict[str, Any]:
    """A record back from arrays; a rare category stands for all rare ones of its field."""
    record: dict[str, Any] = {}
    for column in schema.fields:
        if column.is_coded:
            code = int(batch.codes[row, schema.codes.index(column)])
            names = (*column.known, *column.rare[:1])
            record[column.name] = None if code < 0 else names[code]
        else:
            record[column.name] = shown_value(batch.numbers[:, schema.numbers.index(column)].tolist(), row)
    return record


def _evaluated(data: Data, scorer: Scorer) -> Evaluation | None:
    """How the labelled anomalies of the table stand out from calibration-b, through the scorer."""
    if len(data.anomalies) == 0:
        return None
    parts = [scorer.score(batch, scorer.decider.decide()) for batch in (data.part(data.split.b), data.anomalies)]
    statistics = {name: np.concatenate([part.statistics[name] for part in parts]) for name in STATISTICS}
    segments = np.concatenate([part.segments for part in parts])
    is_anomaly = np.arange(len(segments)) >= len(data.split.b)
    return evaluate(statistics, parts[0].decision, segments, is_anomaly)


def _provenance(data: Data) -> dict[str, str | int]:
    excluded: dict[str, str | int] = {}
    if data.excluded is not None:
        excluded = {"n_excluded": len(data.excluded), "exclusion_digest": data.excluded.digest}
    return excluded | {
        "source": data.source.name,
        "digest": data.digest,
        "n_normal": len(data.normal),
        "n_fit": len(data.split.fit),
        "n_calibration_a": len(data.split.a),
        "n_calibration_b": len(data.split.b),
        "n_anomalies": len(data.anomalies),
    }


def _checkpoint(request: Request, data: Data) -> Checkpoint | None:
    if request.checkpoint is None:
        return None
    shape = f"{data.digest} {data.schema.digest} {request.config.model_dump_json()} {request.seed}"
    if data.excluded is not None:
        shape += f" {data.excluded.digest}"
    return Checkpoint(request.checkpoint, hashlib.sha256(shape.encode()).hexdigest())


def _command(request: Request) -> str:
    """What fits the table again, without the folders of this machine."""
    words = ["nelbo", "fit", request.table.name, "--name", request.name, "--seed", str(request.seed)]
    if request.schema is not None:
        words += ["--schema", request.schema.name]
    if request.label is not None:
        words += ["--label", request.label.column, "--normal", request.label.normal]
    if request.rate is not None:
        words += ["--rate", repr(request.rate)]
    if request.confidence is not None:
        words += ["--confidence", repr(request.confidence)]
    if request.fdr is not None:
        words += ["--fdr", repr(request.fdr)]
    if request.segment is not None:
        words += ["--segment", request.segment]
    if request.exclude is not None:
        words += ["--exclude", request.exclude.name]
    if request.config != Config():
        words += ["--config", "config.toml"]
    return shlex.join(words)


def _toml(config: Config) -> str:
    """A config as the file that gives it; JSON writes numbers, texts and lists as TOML does."""
    settings = config.model_dump(mode="json", exclude_none=True)
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
