"""The model as one ONNX graph, and the proof that it computes the same."""

import logging
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxscript.optimizer import optimize

from nelbo.errors import BundleError
from nelbo.records import Batch
from nelbo.schema import Schema
from nelbo.scoring import Graph
from training.vae import VAE, ScoreGraph

OPSET = 20
OUTPUTS = ("contributions", "kl", "evidence", "expected_numbers", "expected_codes", "latents")
PARITY = 1e-4  # relative; float32 kernels of two runtimes sum in different orders
_N_ADVERSARIAL = 10_000
_SMALL = 512  # elements of a constant that may be worked out beforehand; chosen, below any compact weight


def export(vae: VAE, schema: Schema) -> bytes:
    """`score.onnx`: any number of records, no random operator, no data outside the file."""
    inputs = {
        "numbers": torch.zeros(2, len(schema.numbers), dtype=torch.float64),
        "codes": torch.zeros(2, len(schema.codes), dtype=torch.int64),
        "hidden": torch.zeros(2, len(schema.fields), dtype=torch.bool),
    }
    n = torch.export.Dim("n", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations are no business of a user
        program = torch.onnx.export(
            ScoreGraph(vae).eval(),
            args=(),
            kwargs=inputs,
            dynamic_shapes={name: {0: n} for name in inputs},
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        if program is None:
            raise TypeError("the exporter returned no program")
        # The exporter's own pass would write compact weights out as floats again.
        optimised = optimize(program.model_proto, input_size_limit=_SMALL)
    return _bare(optimised)


def _bare(model: onnx.ModelProto) -> bytes:
    """The graph without the exporter's notes: source paths of this machine, among others."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for entry in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        entry.doc_string = ""
        del entry.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime is from torch.

    Attributes:
        largest: largest difference of any output of any record, relative to the largest of that record's.
        n_records: how many records were compared.
    """

    largest: float
    n_records: int


def check_parity(vae: VAE, schema: Schema, graph: bytes, batch: Batch, seed: int) -> Parity:
    """Compares both on adversarial records: the batch's own with wild, missing and unseen values put in.

    Raises:
        BundleError: they differ by more than 1e-4 relative, or something is NaN or infinite.
    """
    numbers, codes, hidden = adversarial(schema, batch, np.random.default_rng(seed))
    rows = np.arange(len(numbers))
    wild = Batch(numbers, codes, rows, [None] * len(rows), {})
    ours = Graph(schema, graph, "the exported graph").run(wild, hidden)
    inputs = (torch.from_numpy(numbers), torch.from_numpy(codes), torch.from_numpy(hidden))
    with torch.no_grad():
        theirs = ScoreGraph(vae)(*inputs)
    compared = {name: (getattr(ours, name), tensor.numpy()) for name, tensor in zip(OUTPUTS, theirs, strict=True)}
    # A choice between a category and another may swap where both are equally likely.
    del compared["expected_codes"]
    chosen = [column.kind == "numeric" for column in schema.numbers]
    spread = np.ones(len(schema.numbers))
    spread[vae.numeric.numpy()] = vae.scale.numpy()
    compared["expected_numbers"] = tuple((part / spread)[:, chosen] for part in compared["expected_numbers"])
    differences = {name: _difference(name, *pair) for name, pair in compared.items()}
    worst = max(differences, key=differences.__getitem__)
    if differences[worst] > PARITY:
        raise BundleError(
            f"the exported graph's {worst} differ from the model's by {differences[worst]:.1e} relative, "
            f"more than {PARITY:g}"
        )
    return Parity(differences[worst], len(rows))


def _difference(name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    for outputs in (ours, theirs):
        if not np.isfinite(outputs).all():
            row = int(np.argwhere(~np.isfinite(outputs))[0, 0])
            raise BundleError(f"the exported graph's {name} of adversarial record {row} is NaN or infinite")
    if ours.size == 0:
        return 0.0
    # Relative to the record's largest: beside a value of 3e38, a field's own small number is not known more finely.
    largest = np.maximum(1.0, np.abs(theirs).max(axis=1, keepdims=True))
    return float((np.abs(ours - theirs) / largest).max())


def adversarial(
    schema: Schema, batch: Batch, rng: np.random.Generator, n: int = _N_ADVERSARIAL
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Records that nobody should send: ±3e38, ±1e308, denormals, all missing, unseen, everything hidden."""
    rows = rng.integers(0, len(batch), n)
    numbers, codes = batch.numbers[rows].copy(), batch.codes[rows].copy()
    wild = np.array([3e38, -3e38, 1.7e308, -1.7e308, 5e-324, -1e-310, 0.0, -0.0, 1e30, np.nan])
    rate = rng.choice([0.0, 0.1, 0.5, 1.0], size=(n, 1))
    numbers = np.where(rng.random(numbers.shape) < rate, rng.choice(wild, numbers.shape), numbers)
    for j, column in enumerate(schema.codes):
        anything = rng.integers(-1, column.n_codes, n)
        codes[:, j] = np.where(rng.random(n) < rate[:, 0], anything, codes[:, j])
    nothing = rng.random(n) < 0.02
    numbers[nothing], codes[nothing] = np.nan, -1
    hidden = rng.random((n, len(schema.fields))) < rng.choice([0.0, 0.2, 1.0], size=(n, 1), p=[0.6, 0.3, 0.1])
    return numbers, codes, hidden
