"""A tiny real bundle, built without torch in milliseconds: what tests of scoring and serving score with."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nelbo.bundle import Bundle, Golden, Manifest, read_bundle, write_bundle
from nelbo.calibration import (
    STATISTICS,
    CalibrationFile,
    Combination,
    IncreasingMap,
    Scores,
    StatisticName,
    fit_combination,
    raised,
)
from nelbo.drift import reference_of
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Column, Schema
from nelbo.scoring import Graph, Scorer, combine, states, upward
from nelbo.segments import Segments
from nelbo.store import Store

# Names with a slash, a blank and brackets, so that pointers have something to escape.
PUMPS = Schema(
    columns=(
        Column(name="serial", role="id"),
        Column(name="pressure", role="field", kind="numeric", step=0.01),
        Column(name="valve", role="field", kind="categorical", categories=("open", "shut")),
        Column(name="in/out [l/s]", role="field", kind="numeric"),
        Column(name="rpm", role="field", kind="numeric", nullable=True, step=1.0),
        Column(name="heated", role="field", kind="boolean"),
        Column(name="failed", role="label"),
    )
)
_CENTRE = {"pressure": 5.0, "in/out [l/s]": 20.0, "rpm": 1500.0}
_WIDTH = {"pressure": 0.5, "in/out [l/s]": 2.0, "rpm": 100.0}
_SHARES = {"valve": (0.8, 0.18, 0.01, 0.01), "heated": (0.7, 0.28, 0.01, 0.01)}  # each code, rare, unseen
_OPSET = 18
VERSION = "20260302T081500Z-4f1c"


def normal_records(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of healthy pumps: numbers that move together, a value left out here and there."""
    rng = np.random.default_rng(seed)
    load = rng.normal(size=n)
    records = []
    for i in range(n):
        numbers = {
            name: round(_CENTRE[name] + _WIDTH[name] * float(0.8 * load[i] + 0.6 * rng.normal()), 2) for name in _CENTRE
        }
        record = {"serial": f"P-{i}", **numbers, "valve": str(rng.choice(["open", "shut"], p=[0.8, 0.2]))}
        record["heated"] = bool(rng.random() < 0.3)
        if rng.random() < 0.1:
            record["rpm"] = None
        records.append(record)
    return records


def odd_record(**values: object) -> dict[str, Any]:
    """A record that every sensible rate flags, unless its values are replaced."""
    odd = {"serial": "P-odd", "pressure": 9.5, "in/out [l/s]": 2.0, "rpm": 3000.0, "valve": "shut", "heated": True}
    return odd | values


def write_tiny_bundle(
    models: Path,
    name: str = "pumps",
    *,
    version: str = VERSION,
    n_calibration: int = 199,
    rate: float = 0.05,
    seed: int = 0,
    segment: str | None = None,
    unit: str | None = None,
    **promised: Any,
) -> Path:
    """Writes a bundle for records of pumps, calibrated with the scorer that will serve it.

    Args:
        models: the store's folder.
        name: of the model.
        version: of the bundle.
        n_calibration: how many records set p-values; 199 carry rates from 0.005 on.
        rate: the bundle's own false-alarm rate.
        seed: of the calibration records; another seed gives other thresholds.
        segment: the field whose categories are judged apart.
        unit: of the pressure; another one is another schema.
        promised: other members of calibration.json.

    Returns:
        The bundle's folder.
    """
    graph, decoder = pump_graph(), RecordDecoder(PUMPS, name)
    part_a, part_b = (decoder.objects(normal_records(n, s)) for n, s in ((400, seed + 1000), (n_calibration, seed)))
    calibration = _calibrated(graph, part_a, part_b, rate, segment, promised)
    manifest = Manifest(
        name=name,
        version=version,
        created=datetime(2026, 3, 2, 8, 15, tzinfo=UTC).isoformat(),
        schema_digest=PUMPS.digest,
        files={},
        opset=_OPSET,
        libraries={"onnx": onnx.__version__},
        seed=seed,
        data={"n_calibration": n_calibration},
        config={},
        metrics={"auroc": 0.97},
    )
    golden = [*normal_records(3, seed + 2000), odd_record()]
    scored = _scored(Bundle(manifest, PUMPS, graph, calibration, reference_of(PUMPS, part_a), (), ""), golden)
    files = {
        "schema.json": _with_unit(unit).to_json(),
        "score.onnx": graph,
        "calibration.json": calibration.model_dump_json().encode(),
        "reference.json": reference_of(PUMPS, part_a).model_dump_json().encode(),
        "golden.ndjson": msgspec.json.Encoder().encode_lines(scored),
        "MODEL_CARD.md": f"# {name}\n\nHealthy pumps, made up for tests.\n".encode(),
    }
    return write_bundle(models, manifest, files)


def _with_unit(unit: str | None) -> Schema:
    """The schema of pumps, their pressure in this unit."""
    columns = [c.model_copy(update={"unit": unit}) if c.name == "pressure" else c for c in PUMPS.columns]
    return Schema(columns=tuple(columns))


def tiny_scorer(models: Path) -> Scorer:
    """A scorer of a tiny bundle, written to `models` for it."""
    return Scorer(read_bundle(write_tiny_bundle(models)))


def _scored(bundle: Bundle, records: list[dict[str, Any]]) -> list[Golden]:
    scorer = Scorer(bundle)
    statistics = scorer.score(scorer.decoder.objects(records)).statistics
    return [Golden(record, *(float(statistics[n][i]) for n in STATISTICS)) for i, record in enumerate(records)]


def plain_combination(*, categorical: bool) -> Combination:
    """Of one field: its nats are the score, counted twice where they are of a category."""
    straight = IncreasingMap(x=(0.0,), y=(0.0,), slope=1.0)
    return Combination(
        fields=("a",),
        typical=(0.0,),
        location=(0.0,),
        spread=(1.0,),
        categorical=(categorical,),
        energy=straight,
        evidence={},
        oddest_category=straight if categorical else None,
    )


def _calibrated(
    graph: bytes, part_a: Batch, part_b: Batch, rate: float, segment: str | None, promised: dict[str, Any]
) -> CalibrationFile:
    model = Graph(PUMPS, graph, "pumps")
    outputs, missing = model.run(part_a), states(PUMPS, part_a)[0]
    names = tuple(field.name for field in PUMPS.fields)
    categorical = tuple(field.is_coded for field in PUMPS.fields)
    kl = outputs.kl.sum(axis=1)
    combination = fit_combination(names, categorical, outputs.contributions, missing, kl, outputs.evidence)
    statistics, _, _ = combine(combination, model.run(part_b), *states(PUMPS, part_b))
    scores: dict[StatisticName, tuple[float, ...]] = {
        name: tuple(raised(upward(name, statistics[name])).tolist()) for name in STATISTICS
    }
    segments = None if segment is None else _segments(segment, part_b, statistics)
    return CalibrationFile(
        created="2026-03-02T08:15:00+00:00",
        rate=rate,
        combination=combination,
        scores=scores,
        segments=segments,
        **promised,
    )


def _segments(segment: str, batch: Batch, statistics: dict[StatisticName, Scores]) -> Segments:
    """Every category of a field without missing values; rare and unseen ones do not occur."""
    (field,) = (field for field in PUMPS.codes if field.name == segment)
    codes = batch.codes[:, PUMPS.codes.index(field)]
    members = {
        name: tuple(codes[np.argsort(upward(name, values), kind="stable")].tolist())
        for name, values in statistics.items()
    }
    return Segments(field=segment, values=field.known, members=members)


def pump_graph() -> bytes:
    """`score.onnx` of a linear model with one latent, the mean of the standardised numbers.

    contribution of a number = (u - z)² / 2 + log √(2π); of a category = −log share; KL = z² / 2; the evidence is the
    mean of |u − z|.
    """
    numbers = [column.name for column in PUMPS.numbers]
    codes = [column.name for column in PUMPS.codes]
    built = [PUMPS.positions[name] for name in numbers + codes]
    constants = {
        "centre": np.array([_CENTRE[name] for name in numbers]),
        "width": np.array([_WIDTH[name] for name in numbers]),
        "zero64": np.array(0.0),
        "low": np.array(-1e6),
        "high": np.array(1e6),
        "zero": np.array(0.0, dtype=np.float32),
        "half": np.array(0.5, dtype=np.float32),
        "log_root": np.array(0.5 * np.log(2 * np.pi), dtype=np.float32),
        "none": np.array(0, dtype=np.int64),
        "last": np.array([1], dtype=np.int64),
        "at_numbers": np.array([PUMPS.positions[name] for name in numbers]),
        "at_codes": np.array([PUMPS.positions[name] for name in codes]),
        "in_order": np.argsort(built),
    }
    for j, name in enumerate(codes):
        constants[f"surprise{j}"] = -np.log(np.array(_SHARES[name], dtype=np.float32))
        constants[f"column{j}"] = np.array([j])
    surprises = [f"s{j}" for j in range(len(codes))]
    nodes = [
        _node("Gather", ["hidden", "at_numbers"], "hidden_numbers", axis=1),
        _node("Gather", ["hidden", "at_codes"], "hidden_codes", axis=1),
        _node("IsNaN", ["numbers"], "nan"),
        _node("Or", ["nan", "hidden_numbers"], "gone"),
        _node("Sub", ["numbers", "centre"], "shifted"),
        _node("Div", ["shifted", "width"], "scaled"),
        _node("Clip", ["scaled", "low", "high"], "clipped"),
        _node("Where", ["gone", "zero64", "clipped"], "u64"),
        _node("Cast", ["u64"], "u", to=TensorProto.FLOAT),
        _node("ReduceMean", ["u", "last"], "latents", keepdims=1),
        _node("Mul", ["latents", "latents"], "z2"),
        _node("Mul", ["z2", "half"], "kl"),
        _node("Sub", ["u", "latents"], "residual"),
        _node("Mul", ["residual", "residual"], "r2"),
        _node("Mul", ["r2", "half"], "r2_half"),
        _node("Add", ["r2_half", "log_root"], "nll"),
        _node("Abs", ["residual"], "distance"),
        _node("Where", ["gone", "zero", "distance"], "distances"),
        _node("ReduceMean", ["distances", "last"], "evidence", keepdims=1),
        _node("Where", ["gone", "zero", "nll"], "of_numbers"),
        _node("Cast", ["latents"], "z64", to=TensorProto.DOUBLE),
        _node("Mul", ["z64", "width"], "spread"),
        _node("Add", ["spread", "centre"], "expected_numbers"),
        _node("Less", ["codes", "none"], "absent"),
        _node("Or", ["absent", "hidden_codes"], "gone_codes"),
        _node("Where", ["gone_codes", "none", "codes"], "safe"),
        _node("Mul", ["safe", "none"], "expected_codes"),  # the first category is the likeliest of both
    ]
    for j in range(len(codes)):
        nodes += [
            _node("Gather", ["safe", f"column{j}"], f"code{j}", axis=1),
            _node("Gather", [f"surprise{j}", f"code{j}"], f"s{j}"),
        ]
    nodes += [
        _node("Concat", surprises, "surprises", axis=1),
        _node("Where", ["gone_codes", "zero", "surprises"], "of_codes"),
        _node("Concat", ["of_numbers", "of_codes"], "unordered", axis=1),
        _node("Gather", ["unordered", "in_order"], "contributions", axis=1),
    ]
    return _model(nodes, constants)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def _model(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]) -> bytes:
    inputs = {
        "numbers": (TensorProto.DOUBLE, len(PUMPS.numbers)),
        "codes": (TensorProto.INT64, len(PUMPS.codes)),
        "hidden": (TensorProto.BOOL, len(PUMPS.fields)),
    }
    outputs = {
        "contributions": (TensorProto.FLOAT, len(PUMPS.fields)),
        "kl": (TensorProto.FLOAT, 1),
        "evidence": (TensorProto.FLOAT, 1),
        "expected_numbers": (TensorProto.DOUBLE, len(PUMPS.numbers)),
        "expected_codes": (TensorProto.INT64, len(PUMPS.codes)),
        "latents": (TensorProto.FLOAT, 1),
    }
    graph = helper.make_graph(
        nodes,
        "pumps",
        [helper.make_tensor_value_info(name, kind, ["n", width]) for name, (kind, width) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, ["n", width]) for name, (kind, width) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def versions(root: Path, *names: str) -> Store:
    """A store of pumps with these versions, the first of them live."""
    store = Store(root)
    for seed, name in enumerate(names):
        write_tiny_bundle(root, version=name, seed=seed)
        store.promote("pumps", names[0])
    return store
