"""The bundle that is measured, and the same graph as other servers want it: one input `x`, one output that decides."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.serving.records import FIELDS, draw
from nelbo.bundle import Bundle, read_bundle
from nelbo.store import Store

NAME = "synthetic"
_N_RECORDS, _SEED = 20_000, 0
_PREFIX = "around_"  # of the names that are added, which none of the graph's own may have


def bundle(folder: Path) -> Bundle:
    """The bundle that `nelbo fit` makes of the synthetic table by its defaults; the one in the folder, if there is one.

    Args:
        folder: of table, store and the graph for peers.
    """
    models = folder / "models"
    if not (models / NAME).is_dir():
        table = _table(folder)
        command = [sys.executable, "-c", "from nelbo.cli import main; main()", "fit", str(table), "--name", NAME]
        subprocess.run([*command, "--models", str(models), "--seed", "0"], check=True)
    found = read_bundle(Store(models).live(NAME))
    onnx.save(around(onnx.load_from_string(found.graph)), peers_graph(folder))
    return found


def peers_graph(folder: Path) -> Path:
    """Where the graph lies that peers serve."""
    return folder / "peers.onnx"


def around(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one input for all fields, and −ELBO as an output beside its own; its nodes stay as they are.

    Args:
        model: a bundle's graph, of numeric fields only.

    Returns:
        A model with input `x`, float32, shape (n, n_fields), and the output `neg_elbo`, float32, shape (n,), nats.
    """
    inputs = {value.name: value for value in model.graph.input}
    if set(inputs) != {"numbers", "codes", "hidden"}:
        raise ValueError(f"expected a graph with the inputs numbers, codes and hidden, got {', '.join(sorted(inputs))}")
    n_fields = inputs["numbers"].type.tensor_type.shape.dim[1].dim_value
    shape, n, none, no_codes, axis = (_PREFIX + name for name in ("shape", "n", "none", "no_codes", "axis"))
    before = [
        helper.make_node("Cast", ["x"], ["numbers"], name=_PREFIX + "numbers", to=TensorProto.DOUBLE),
        helper.make_node("Shape", ["x"], [shape], name=shape),
        _zeros(shape, "hidden", np.bool_),
        helper.make_node("Shape", ["x"], [n], name=n, end=1),
        helper.make_node("Concat", [n, none], [no_codes], name=no_codes, axis=0),
        _zeros(no_codes, "codes", np.int64),
    ]
    sums = [_PREFIX + name for name in ("contributions", "kl")]
    after = [
        helper.make_node("ReduceSum", [part, axis], [total], name=total, keepdims=0)
        for part, total in zip(("contributions", "kl"), sums, strict=True)
    ]
    after.append(helper.make_node("Add", sums, ["neg_elbo"], name=_PREFIX + "add"))
    graph = helper.make_graph(
        [*before, *model.graph.node, *after],
        "for_peers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", n_fields])],
        [helper.make_tensor_value_info("neg_elbo", TensorProto.FLOAT, ["n"]), *model.graph.output],
        [
            *model.graph.initializer,
            numpy_helper.from_array(np.array([1]), axis),
            numpy_helper.from_array(np.array([0]), none),
        ],
        value_info=model.graph.value_info,
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(made)
    return made


def _zeros(shape: str, name: str, kind: type[np.generic]) -> onnx.NodeProto:
    zero = numpy_helper.from_array(np.zeros(1, dtype=kind))
    return helper.make_node("ConstantOfShape", [shape], [name], name=_PREFIX + name, value=zero)


def _table(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.csv"
    lines = [",".join(FIELDS), *(",".join(f"{value:g}" for value in record) for record in draw(_N_RECORDS, _SEED))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
