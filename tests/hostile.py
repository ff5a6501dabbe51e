"""Bundles that somebody made to do harm: their digests are right, what they cover is not."""

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nelbo.bundle import MANIFEST, sha256
from tests.bundles import write_tiny_bundle

Change = Callable[[ModelProto], object]


def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Changes the manifest as someone who knows how its digest is made."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    change(manifest)
    manifest["digest"] = "0" * 64
    text = json.dumps(manifest)
    (folder / MANIFEST).write_text(text.replace("0" * 64, sha256(text.encode())))
    return folder


def replaced(folder: Path, name: str, data: bytes) -> Path:
    """Replaces a file and its digests."""
    (folder / name).write_bytes(data)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = sha256(data)
        if name == "schema.json":
            manifest["schema_digest"] = sha256(data)

    return resealed(folder, change)


def with_graph(folder: Path, change: Change) -> Path:
    """Replaces the graph by a changed one."""
    model = ModelProto.FromString((folder / "score.onnx").read_bytes())
    change(model)
    return replaced(folder, "score.onnx", model.SerializeToString())


# --- parts of graphs ---------------------------------------------------------------------------------


def external(location: str) -> TensorProto:
    """A constant whose data is in another file."""
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def add_constant(model: ModelProto, name: str, value: object, kind: Any = np.int64) -> None:
    """A constant with data in the file."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))


def prepend(model: ModelProto, *nodes: NodeProto) -> None:
    """Nodes before all others, so that they see the inputs and constants alone."""
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def added_to_kl(model: ModelProto, value: str) -> None:
    """Adds a value of one element to an output, so that it has to be worked out."""
    (maker,) = (node for node in model.graph.node if "kl" in node.output)
    maker.output[0] = "kl_before"
    at = list(model.graph.node).index(maker)
    nodes = list(model.graph.node)
    nodes.insert(at + 1, helper.make_node("Add", ["kl_before", value], ["kl"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def branch() -> onnx.GraphProto:
    """A graph to put within another."""
    inside = helper.make_graph([], "inside", [], [helper.make_tensor_value_info("stolen", TensorProto.FLOAT, [1])])
    inside.initializer.append(external("w.bin"))
    return inside


# --- hostile graphs ----------------------------------------------------------------------------------


def _external_in_a_constant_node(model: ModelProto) -> None:
    prepend(model, helper.make_node("Constant", [], ["stolen"], value=external("w.bin")))


def _external_in_a_sparse_constant(model: ModelProto) -> None:
    model.graph.sparse_initializer.add(values=external("w.bin"))


def _external_in_a_branch(model: ModelProto) -> None:
    prepend(model, helper.make_node("If", ["hidden"], ["x"], then_branch=branch(), else_branch=branch()))


def _external_beside_data(model: ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")


def _external_of_a_list(model: ModelProto) -> None:
    node = helper.make_node("Abs", ["numbers"], ["x"])
    node.attribute.append(AttributeProto(name="all", type=AttributeProto.TENSORS, tensors=[external("w.bin")]))
    prepend(model, node)


def _custom_domain(model: ModelProto) -> None:
    prepend(model, helper.make_node("Abs", ["numbers"], ["x"], domain="com.evil"))


def _microsofts_domain(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _unknown_operator(model: ModelProto) -> None:
    prepend(model, helper.make_node("Detonate", ["numbers"], ["x"]))


def _loop(model: ModelProto) -> None:
    prepend(model, helper.make_node("Loop", ["", ""], ["x"], body=helper.make_graph([], "forever", [], [])))


def _local_function(model: ModelProto) -> None:
    model.functions.append(helper.make_function("", "Abs", ["x"], ["y"], [], []))


def _training(model: ModelProto) -> None:
    model.training_info.add()


def _settings_of_the_runtime(model: ModelProto) -> None:
    model.metadata_props.add(key="ort_config", value='{"session_options": {"intra_op_num_threads": 512}}')


def _huge_shape(model: ModelProto) -> None:
    add_constant(model, "shape", [1_000_000, 1_000_000])
    prepend(model, helper.make_node("ConstantOfShape", ["shape"], ["x"]))


def _shape_from_records(model: ModelProto) -> None:
    prepend(
        model,
        helper.make_node("Cast", ["numbers"], ["lengths"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["lengths"], ["x"]),
    )


def _shape_worked_out(model: ModelProto) -> None:
    add_constant(model, "many", [1 << 40])
    prepend(
        model,
        helper.make_node("Shape", ["numbers"], ["n"]),
        helper.make_node("Sub", ["many", "n"], ["rest"]),
        helper.make_node("ConstantOfShape", ["rest"], ["x"]),
    )


def _fewer_records_more_memory(model: ModelProto) -> None:
    add_constant(model, "weights", np.zeros(65_536), np.float32)
    prepend(
        model,
        helper.make_node("Shape", ["numbers"], ["n"]),
        helper.make_node("Reshape", ["weights", "n"], ["x"]),
    )


def _slice_from_the_end(model: ModelProto) -> None:
    add_constant(model, "start", [-5])
    add_constant(model, "end", [1 << 40])
    prepend(model, helper.make_node("Slice", ["numbers", "start", "end"], ["x"]))


def _huge_dims(model: ModelProto) -> None:
    tensor = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20], raw_data=b"\0" * 4)
    model.graph.initializer.append(tensor)


def _wrapping_dims(model: ModelProto) -> None:
    tensor = TensorProto(name="wraps", data_type=TensorProto.FLOAT, dims=[1 << 32, 1 << 32], raw_data=b"")
    model.graph.initializer.append(tensor)


def _negative_dims(model: ModelProto) -> None:
    tensor = TensorProto(name="less", data_type=TensorProto.FLOAT, dims=[-1, -1], raw_data=b"\0" * 4)
    model.graph.initializer.append(tensor)


def _strings(model: ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="s", data_type=TensorProto.STRING, dims=[1], string_data=[b"x"]))


def _cycle(model: ModelProto) -> None:
    prepend(model, helper.make_node("Add", ["numbers", "y"], ["x"]), helper.make_node("Abs", ["x"], ["y"]))


def _made_twice(model: ModelProto) -> None:
    prepend(model, helper.make_node("Abs", ["numbers"], ["latents"]))


def _other_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("password", TensorProto.FLOAT, [1]))


def _other_output(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("centre", TensorProto.DOUBLE, [3]))


def _output_never_made(model: ModelProto) -> None:
    del model.graph.node[-1]


def _too_many_nodes(model: ModelProto) -> None:
    prepend(model, *(helper.make_node("Abs", ["numbers"], [f"x{i}"]) for i in range(10_001)))


def _terminal_codes(model: ModelProto) -> None:
    name = '\x1b[2J\x1b]0;owned\x07\n{"event":"model loaded","level":"info"}\u202e'
    prepend(model, helper.make_node(name, ["numbers"], ["x"]))


def _long_name(model: ModelProto) -> None:
    prepend(model, helper.make_node("A" * 10_000_000, ["numbers"], ["x"]))


# What only a run shows.


def _nan_weights(model: ModelProto) -> None:
    add_constant(model, "undefined", [[np.nan]], np.float32)
    added_to_kl(model, "undefined")


def _division_by_zero(model: ModelProto) -> None:
    add_constant(model, "nothing", [[0.0]], np.float32)
    prepend(model, helper.make_node("Div", ["nothing", "nothing"], ["undefined"]))
    added_to_kl(model, "undefined")


def _other_weights(model: ModelProto) -> None:
    add_constant(model, "little", [[0.01]], np.float32)
    added_to_kl(model, "little")


def _allocation(model: ModelProto) -> None:
    """6.4 GB from constants of 80 kB."""
    add_constant(model, "column", np.zeros((40_000, 1)), np.float32)
    add_constant(model, "row", np.zeros((1, 40_000)), np.float32)
    add_constant(model, "both", [0, 1])
    prepend(
        model,
        helper.make_node("Add", ["column", "row"], ["square"]),
        helper.make_node("ReduceSum", ["square", "both"], ["sum"], keepdims=1),
    )
    added_to_kl(model, "sum")


def _allocation_by_records(model: ModelProto) -> None:
    """4 GB for a chunk of records, so that it is not seen while the graph is loaded."""
    add_constant(model, "row", np.zeros((1, 4_000_000)), np.float32)
    add_constant(model, "along", [1])
    prepend(
        model,
        helper.make_node("Cast", ["hidden"], ["hidden_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["hidden_f", "along"], ["column"], keepdims=1),
        helper.make_node("Add", ["column", "row"], ["square"]),
        helper.make_node("ReduceSum", ["square", "along"], ["sum"], keepdims=1),
    )
    added_to_kl(model, "sum")


def _wide_output(model: ModelProto) -> None:
    """Of a chunk of records 20 MB, of a request of 10,000 some 800."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["narrow" if name == "latents" else name for name in names]
    add_constant(model, "row", np.zeros((1, 20_000)), np.float32)
    add_constant(model, "along", [1])
    model.graph.node.append(helper.make_node("ReduceSum", ["narrow", "along"], ["column"], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["column", "row"], ["latents"]))
    (latents,) = (output for output in model.graph.output if output.name == "latents")
    latents.type.tensor_type.shape.dim[1].dim_value = 20_000


def _endless(model: ModelProto) -> None:
    """Five thousand products of large matrices."""
    add_constant(model, "m", np.full((1000, 1000), 1e-3), np.float32)
    add_constant(model, "both", [0, 1])
    names = ["m", *(f"m{i}" for i in range(1, 5000))]
    prepend(
        model,
        *(helper.make_node("MatMul", [one, "m"], [other]) for one, other in itertools.pairwise(names)),
        helper.make_node("ReduceSum", [names[-1], "both"], ["sum"], keepdims=1),
    )
    added_to_kl(model, "sum")


def _nested(depth: int) -> Callable[[Path], object]:
    """Graphs in attributes of nodes of graphs, written by hand: the library that writes ONNX would not."""

    def change(folder: Path) -> None:
        inside = b""
        for _ in range(depth):
            for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
                inside = tag + _length(len(inside)) + inside
        whole = b"\x08\x08\x3a" + _length(len(inside)) + inside  # ModelProto.ir_version, ModelProto.graph
        replaced(folder, "score.onnx", whole)

    return change


def _length(n: int) -> bytes:
    groups = []
    while n > 0x7F:
        groups.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*groups, n])


def graph(change: Change) -> Callable[[Path], object]:
    """The same change, of a bundle."""
    return lambda folder: with_graph(folder, change)


def stolen(link: Callable[[Path], object], location: str = "w.bin") -> Callable[[Path], object]:
    """A constant whose data is in another file, which is put where it is looked for."""

    def change(folder: Path) -> None:
        link(folder)
        with_graph(folder, lambda model: model.graph.initializer.append(external(location)))

    return change


def file(name: str, data: bytes) -> Callable[[Path], object]:
    """Another file of right digest; a manifest has none."""
    if name == MANIFEST:
        return lambda folder: (folder / name).write_bytes(data)
    return lambda folder: replaced(folder, name, data)


def edited(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """A JSON file of right digest with something changed in it; NaN and Infinity are written as such."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_bytes())
        change(content)
        replaced(folder, name, json.dumps(content).encode())

    return edit


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Another manifest."""
    return lambda folder: resealed(folder, change)


def instead(name: str, put: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in a file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        put(folder / name)

    return change


def _nested_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "w.bin").write_bytes(b"\0" * 4)


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def _columns(n: int) -> bytes:
    columns = [{"name": f"x{i}", "role": "field", "kind": "numeric"} for i in range(n)]
    return json.dumps({"columns": columns}).encode()


def _fields(n: int) -> bytes:
    return b'{"n_records":1,"fields":{' + b",".join(b'"%d":{}' % i for i in range(n)) + b"}}"


_GOLDEN = b'{"record":{},"score":0,"elbo":0,"reconstruction_error":0}\n'


@dataclass(frozen=True)
class Hostile:
    """A bundle made to do harm.

    Attributes:
        make: of a bundle that is whole.
        says: what the refusal says, among other things.
    """

    make: Callable[[Path], object]
    says: str


# Refused by what is read, before onnxruntime sees the graph.
READ: dict[str, Hostile] = {
    # Data outside the file, in every disguise.
    "external data beside the graph": Hostile(
        stolen(lambda folder: (folder / "w.bin").write_bytes(b"\0" * 4)), "'external_data'"
    ),
    "external data in a folder within": Hostile(stolen(_nested_folder, "sub/w.bin"), "'external_data'"),
    "external data at an absolute path": Hostile(stolen(lambda _: None, "/etc/hostname"), "'external_data'"),
    "external data above the folder": Hostile(stolen(lambda _: None, "../../../../etc/hostname"), "'external_data'"),
    "external data by a symbolic link": Hostile(
        stolen(lambda folder: (folder / "w.bin").symlink_to("/etc/hostname")), "'external_data'"
    ),
    "external data by a hard link": Hostile(
        stolen(lambda folder: (folder / "w.bin").hardlink_to(folder / "score.onnx")), "'external_data'"
    ),
    "external data from memory": Hostile(stolen(lambda _: None, "*/_ORT_MEM_ADDR_/*"), "'external_data'"),
    "external data of a constant node": Hostile(graph(_external_in_a_constant_node), "'external_data'"),
    "external data of a sparse constant": Hostile(graph(_external_in_a_sparse_constant), "'sparse_initializer'"),
    "external data of a branch": Hostile(graph(_external_in_a_branch), "AttributeProto has 'g'"),
    "external data of a list": Hostile(graph(_external_of_a_list), "AttributeProto has 'tensors'"),
    "external data beside data": Hostile(graph(_external_beside_data), "'external_data'"),
    # Code.
    "an operator of another domain": Hostile(
        graph(_custom_domain), "operator 'Abs' of the domain 'com.evil' is not allowed"
    ),
    "operators of Microsoft's": Hostile(graph(_microsofts_domain), "expected one set of operators"),
    "an unknown operator": Hostile(graph(_unknown_operator), "operator 'Detonate' is not allowed"),
    "a loop": Hostile(graph(_loop), "AttributeProto has 'g'"),
    "a function of its own": Hostile(graph(_local_function), "'functions'"),
    "a training graph": Hostile(graph(_training), "'training_info'"),
    "settings of the runtime": Hostile(graph(_settings_of_the_runtime), "'metadata_props'"),
    "graphs in graphs, 20,000 deep": Hostile(_nested(20_000), "AttributeProto has 'g'"),
    # Memory.
    "a constant shape of a million millions": Hostile(graph(_huge_shape), "more than 16777216 elements"),
    "a shape that a record says": Hostile(graph(_shape_from_records), "'lengths' sets a shape"),
    "a shape that is worked out": Hostile(graph(_shape_worked_out), "'rest' sets a shape"),
    "more memory for fewer records": Hostile(graph(_fewer_records_more_memory), "'n' sets a length and is no constant"),
    "a slice from the end": Hostile(graph(_slice_from_the_end), "'start' counts from the end"),
    "a huge constant of few bytes": Hostile(graph(_huge_dims), "needs 4611686018427387904 bytes, got 4"),
    "a constant whose size wraps around": Hostile(graph(_wrapping_dims), "needs 73786976294838206464 bytes, got 0"),
    "a constant of negative size": Hostile(graph(_negative_dims), "has the shape [-1, -1], which is none"),
    "more operations than any model has": Hostile(graph(_too_many_nodes), "expected at most 10000 operations"),
    # No model of records.
    "a constant of strings": Hostile(graph(_strings), "'string_data'"),
    "a cycle": Hostile(graph(_cycle), "'y' is used before it is made"),
    "a value made twice": Hostile(graph(_made_twice), "'latents' is made twice"),
    "another input": Hostile(graph(_other_input), "expected inputs numbers, codes, hidden"),
    "another output": Hostile(graph(_other_output), "expected outputs contributions, kl"),
    "an output that nothing makes": Hostile(graph(_output_never_made), "output 'contributions' is never made"),
    "terminal codes in a name": Hostile(graph(_terminal_codes), r"operator '\x1b[2J\x1b]0;owned\x07\n"),
    "a name of ten million letters": Hostile(graph(_long_name), "a text has 10000000 bytes"),
    "no protobuf": Hostile(file("score.onnx", b"PK\x03\x04" + b"\0" * 100), "score.onnx: "),
    "a pickle": Hostile(file("score.onnx", b"\x80\x04\x95cos\nsystem\n(S'id'\ntR."), "score.onnx: "),
    "an empty graph file": Hostile(file("score.onnx", b""), "score.onnx: "),
    # Files.
    "a path out of the folder": Hostile(
        manifest(lambda m: m["files"].update({"../../aliases.json": "0" * 64})), "which is no file name"
    ),
    "an absolute path": Hostile(
        manifest(lambda m: m["files"].update({"/etc/hostname": "0" * 64})), "which is no file name"
    ),
    "a symbolic link": Hostile(
        instead("golden.ndjson", lambda path: path.symlink_to("/etc/hostname")), "golden.ndjson is a symbolic link"
    ),
    "a pipe": Hostile(instead("calibration.json", os.mkfifo), "calibration.json is not a file"),
    "an endless device": Hostile(
        instead("schema.json", lambda path: path.symlink_to("/dev/zero")), "schema.json is a symbolic link"
    ),
    "a terabyte": Hostile(instead("reference.json", _sparse), "reference.json is larger than 16 MiB"),
    "a hundred files": Hostile(
        manifest(lambda m: m["files"].update({f"f{i}": "0" * 64 for i in range(100)})), "expected at most 64 files"
    ),
    "a version that is a path": Hostile(manifest(lambda m: m.update(version="../../evil")), "is not a version"),
    "a name that is a path": Hostile(manifest(lambda m: m.update(name="../evil")), "is not a model name"),
    # JSON.
    "a manifest of a hundred thousand levels": Hostile(file(MANIFEST, b"[" * 100_000), MANIFEST),
    "a schema of three thousand columns": Hostile(
        file("schema.json", _columns(3_000)), "schema.json: expected at most 2500 columns, got 3000"
    ),
    "a schema of a hundred thousand levels": Hostile(
        file("schema.json", b'{"columns":' + b"[" * 100_000), "schema.json: "
    ),
    "a number of a million digits": Hostile(
        file("reference.json", b'{"n_records":' + b"9" * 1_000_000 + b"}"), "reference.json: "
    ),
    "no golden record": Hostile(file("golden.ndjson", b""), "golden.ndjson holds no record"),
    "a hundred thousand golden records": Hostile(
        file("golden.ndjson", _GOLDEN * 100_000), "golden.ndjson: expected at most 50000 keys"
    ),
    "two thousand golden records": Hostile(
        file("golden.ndjson", _GOLDEN * 2_000), "golden.ndjson: expected at most 1000 records"
    ),
    "a reference of a million wrong fields": Hostile(
        file("reference.json", _fields(1_000_000)), "reference.json: expected at most 50000 keys"
    ),
    "a reference of other fields": Hostile(
        edited("reference.json", lambda r: r["fields"].pop("rpm")), "reference.json: was made for other fields"
    ),
    "a reference without counts": Hostile(
        edited("reference.json", lambda r: r["fields"]["rpm"].update(counts=[])),
        "reference.json: field 'rpm': expected",
    ),
    "a golden record of a hundred thousand levels": Hostile(
        file("golden.ndjson", b'{"record":' + b"[" * 100_000), "golden.ndjson: "
    ),
    "a calibration of NaN": Hostile(
        edited("calibration.json", lambda c: c["scores"].update(score=[float("nan")] * 199)), "calibration.json"
    ),
    "an infinite calibration": Hostile(
        edited("calibration.json", lambda c: c["scores"].update(elbo=[float("inf")] * 199)), "calibration.json"
    ),
    "a calibration of nothing": Hostile(
        edited("calibration.json", lambda c: c.update(scores={"score": [], "elbo": [], "reconstruction_error": []})),
        "calibration.json",
    ),
    "a calibration of no time": Hostile(
        edited("calibration.json", lambda c: c.update(created="yesterday")), "calibration.json: created: "
    ),
    "a calibration of a time of nowhere": Hostile(
        edited("calibration.json", lambda c: c.update(created="2026-01-01T00:00:00")),
        "calibration.json: created: '2026-01-01T00:00:00' is a time without an offset",
    ),
    "a reference of more records than numbers tell apart": Hostile(
        edited("reference.json", lambda r: r.update(n_records=10**400)),
        "reference.json: expected 1 to 9007199254740992",
    ),
    "a reference of no record": Hostile(
        edited("reference.json", lambda r: r.update(n_records=0)), "reference.json: expected 1 to 9007199254740992"
    ),
    "a reference that misses more records than there are": Hostile(
        edited("reference.json", lambda r: r["fields"]["rpm"].update(missing=401)),
        "reference.json: field 'rpm' counts other than the 400 records",
    ),
    "a reference of negative counts": Hostile(
        edited("reference.json", lambda r: r["fields"]["pressure"].update(counts=[-1] * 21)), "reference.json"
    ),
}

# Refused by the probe, in a process of its own.
PROBED: dict[str, Hostile] = {
    "gigabytes from few bytes": Hostile(graph(_allocation), "the probe could not run it"),
    "gigabytes for many records": Hostile(graph(_allocation_by_records), "the probe could not run it"),
    "a run without end": Hostile(graph(_endless), "the probe took more than"),
}

# Refused because the golden records do not score as they did.
REPLAYED: dict[str, Hostile] = {
    "weights that are no numbers": Hostile(graph(_nan_weights), "golden records: "),
    "a division by zero": Hostile(graph(_division_by_zero), "golden records: "),
    "other weights": Hostile(graph(_other_weights), "golden record 0 no longer gets its "),
    "golden records of other fields": Hostile(file("golden.ndjson", _GOLDEN), "golden record 0"),
    "an output that is wide": Hostile(graph(_wide_output), "expected outputs of 4 records by at most 1024"),
}

ALL = READ | PROBED | REPLAYED


def hostile_bundle(models: Path, name: str) -> Path:
    """One of them, in a store of its own."""
    folder = write_tiny_bundle(models)
    ALL[name].make(folder)
    return folder
