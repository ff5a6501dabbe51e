"""What a graph may be made of: `score.onnx` is looked through before onnxruntime sees it.

The declaration below is the part of ONNX's format (onnx.proto, version 10 of its intermediate representation) that
exports of nelbo use. Other operators, other domains, functions, graphs within graphs and data outside the file are not
in it, so no list of forbidden things has to be complete.

It also bounds what a graph takes: lengths that a graph works out may come from constants and from the number of
records alone, and grow with the latter. What a graph takes for a whole chunk of records, which `nelbo.probe` measures,
it never takes more of, whatever the records are.
"""

from collections.abc import Iterator, Mapping
from math import prod

from nelbo.errors import BundleError
from nelbo.wire import Entry, Found, Message, read

# --- the format --------------------------------------------------------------------------------------

_TENSOR = Message(
    "TensorProto",
    {1: Entry("dims", "int", many=True), 2: Entry("type", "int"), 8: Entry("name", "text")}
    | {9: Entry("raw", "bytes"), 12: Entry("note", "text")},
    {3: "segment", 4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data", 10: "double_data"}
    | {11: "uint64_data", 13: "external_data", 14: "data_location", 16: "metadata_props"},
)
_ATTRIBUTE = Message(
    "AttributeProto",
    {1: Entry("name", "text"), 2: Entry("f", "float"), 3: Entry("i", "int"), 5: Entry("t", _TENSOR)}
    | {8: Entry("ints", "int", many=True), 13: Entry("note", "text"), 20: Entry("type", "int")},
    {4: "s", 6: "g", 7: "floats", 9: "strings", 10: "tensors", 11: "graphs", 14: "tp", 15: "type_protos"}
    | {21: "ref_attr_name", 22: "sparse_tensor", 23: "sparse_tensors"},
)
_NODE = Message(
    "NodeProto",
    {1: Entry("inputs", "text", many=True), 2: Entry("outputs", "text", many=True), 3: Entry("name", "text")}
    | {4: Entry("operator", "text"), 5: Entry("attributes", _ATTRIBUTE, many=True), 6: Entry("note", "text")}
    | {7: Entry("domain", "text")},
    {8: "overload", 9: "metadata_props", 10: "device_configurations"},
)
_LENGTH = Message("Dimension", {1: Entry("size", "int"), 2: Entry("symbol", "text")}, {3: "denotation"})
_SHAPE = Message("TensorShapeProto", {1: Entry("lengths", _LENGTH, many=True)})
_TENSOR_TYPE = Message("TypeProto.Tensor", {1: Entry("type", "int"), 2: Entry("shape", _SHAPE)})
_TYPE = Message(
    "TypeProto",
    {1: Entry("tensor", _TENSOR_TYPE)},
    {4: "sequence_type", 5: "map_type", 6: "denotation", 7: "opaque_type", 8: "sparse_tensor_type"}
    | {9: "optional_type"},
)
_VALUE = Message(
    "ValueInfoProto",
    {1: Entry("name", "text"), 2: Entry("type", _TYPE), 3: Entry("note", "text")},
    {4: "metadata_props"},
)
_GRAPH = Message(
    "GraphProto",
    {1: Entry("nodes", _NODE, many=True), 2: Entry("name", "text"), 5: Entry("constants", _TENSOR, many=True)}
    | {10: Entry("note", "text"), 11: Entry("inputs", _VALUE, many=True), 12: Entry("outputs", _VALUE, many=True)},
    {13: "value_info", 14: "quantization_annotation", 15: "sparse_initializer", 16: "metadata_props"},
)
_OPSET = Message("OperatorSetIdProto", {1: Entry("domain", "text"), 2: Entry("version", "int")})
_MODEL = Message(
    "ModelProto",
    {1: Entry("ir_version", "int"), 2: Entry("producer", "text"), 3: Entry("producer_version", "text")}
    | {6: Entry("note", "text"), 7: Entry("graph", _GRAPH), 8: Entry("opsets", _OPSET, many=True)},
    {4: "domain", 5: "model_version", 14: "metadata_props", 20: "training_info", 25: "functions"}
    | {26: "configuration"},
)

# --- what may be in it -------------------------------------------------------------------------------

INPUTS = ("numbers", "codes", "hidden")
OUTPUTS = ("contributions", "kl", "evidence", "expected_numbers", "expected_codes", "latents")

# What `training.export` writes for any configuration of a fit (found in 60 exports on 2026-11-25; a test holds that
# fresh ones pass), and beside it Or, Ceil, Sqrt, Softplus, LogSoftmax, Identity and Squeeze, which other versions of
# the exporter write for the same code. None of them makes an output longer than its inputs but by the shapes of these,
# except those of `_LENGTHS`.
_OPERATORS = """
    Abs Add And ArgMax Cast Ceil Clip Concat ConstantOfShape Cos Div Equal Exp Expand Floor Gather GatherND Gemm Greater
    GreaterOrEqual Identity IsNaN Less LessOrEqual Log LogSoftmax MatMul Max Min Mul Neg Not Or Pow Reciprocal
    ReduceLogSumExp ReduceMean ReduceSum Reshape Shape Sigmoid Sign Sin Slice Softplus Split Sqrt Squeeze Sub Tanh TopK
    Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_OPERATORS.split())
# Inputs that say how long the output is, by position: constants.
_LENGTHS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Reshape", "Split", "TopK", "Squeeze", "Unsqueeze"), (1,)),
    **dict.fromkeys(("ReduceLogSumExp", "ReduceMean", "ReduceSum"), (1,)),
    "Slice": (1, 2, 3, 4),
}
# The same where the number of records may be part of it: constants and outputs of Shape, also put together.
_SHAPES: Mapping[str, int] = {"ConstantOfShape": 0, "Expand": 1}

_OPSETS = range(17, 22)  # 20 is what exports have; on these the operators mean the same
_IR_VERSIONS = range(8, 12)  # of the same years
_SIZES = {1: 4, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}  # bytes of float, int8, int32, int64, bool, float16, double
_INT64 = 7
_ATTRIBUTE_TYPES = {1: "f", 2: "i", 4: "t", 7: "ints"}
_MOST_NODES = 10_000  # an export has some 250; one of a thousand timestamps 17 for each of them
_MOST_DIMENSIONS = 8  # an export has 4
_LONGEST = 1 << 24  # elements that a constant shape may ask for: 128 MB at most


def admit(data: bytes) -> None:
    """Returns if the graph is one that may be loaded.

    Args:
        data: the bytes of `score.onnx`.

    Raises:
        BundleError: it is not ONNX, or something of it is not allowed; the text names what.
    """
    model = read(memoryview(data), _MODEL)
    _admit_versions(model)
    graph = model["graph"]
    if graph is None:
        raise BundleError("there is no graph in it")
    nodes = graph["nodes"]
    if len(nodes) > _MOST_NODES:
        raise BundleError(f"expected at most {_MOST_NODES} operations, got {len(nodes)}")
    constants = {constant["name"]: constant for constant in graph["constants"]}
    for constant in graph["constants"]:
        _admit_tensor(constant)
    _admit_interface([value["name"] for value in graph["inputs"]], [value["name"] for value in graph["outputs"]])
    _admit_order(graph)
    shapes: set[str] = set()
    for node in nodes:
        _admit_node(node)
        _admit_lengths(node, constants, shapes)


def _admit_versions(model: Found) -> None:
    if model["ir_version"] not in _IR_VERSIONS:
        raise BundleError(f"expected version {_named(_IR_VERSIONS)} of the format, got {model['ir_version']}")
    found = [(opset["domain"] or "", opset["version"]) for opset in model["opsets"]]
    if len(found) != 1 or found[0][0] or found[0][1] not in _OPSETS:
        listed = ", ".join(f"'{domain}' {version}" for domain, version in found[:8]) or "none"
        raise BundleError(f"expected one set of operators, '' {_named(_OPSETS)}, got {listed}")


def _named(versions: range) -> str:
    return f"{versions[0]} to {versions[-1]}"


def _admit_interface(inputs: list[str], outputs: list[str]) -> None:
    if not set(inputs) <= set(INPUTS):
        raise BundleError(f"expected inputs {', '.join(INPUTS)}, got {_listed(inputs)}")
    if sorted(outputs) != sorted(OUTPUTS):
        raise BundleError(f"expected outputs {', '.join(OUTPUTS)}, got {_listed(outputs)}")


def _listed(names: list[str]) -> str:
    return ", ".join(str(name)[:40] for name in names[:12]) or "none"


def _admit_order(graph: Found) -> None:
    """Every value is made once, before it is used: so there is no cycle either."""
    known: set[str] = set()
    for value in [*graph["inputs"], *graph["constants"]]:
        _make(value["name"], known)
    for node in graph["nodes"]:
        for name in node["inputs"]:
            if name and name not in known:
                raise BundleError(f"'{name}' is used before it is made")
        for name in node["outputs"]:
            _make(name, known)
    for value in graph["outputs"]:
        if value["name"] not in known:
            raise BundleError(f"output '{value['name']}' is never made")


def _make(name: str | None, known: set[str]) -> None:
    if not name:
        raise BundleError("a value has no name")
    if name in known:
        raise BundleError(f"'{name}' is made twice")
    known.add(name)


def _admit_tensor(tensor: Found) -> None:
    """Data in the file, as much of it as the shape says."""
    name, dims, kind = tensor["name"] or "", tensor["dims"], tensor["type"]
    if kind not in _SIZES:
        raise BundleError(f"constant '{name}' is of type {kind}, which is not allowed")
    if len(dims) > _MOST_DIMENSIONS or any(length < 0 for length in dims):
        raise BundleError(f"constant '{name}' has the shape {dims[:12]}, which is none")
    n_bytes = prod(dims) * _SIZES[kind]
    if n_bytes != len(tensor["raw"] or b""):
        raise BundleError(f"constant '{name}': its shape {dims} needs {n_bytes} bytes, got {len(tensor['raw'] or b'')}")


def _admit_node(node: Found) -> None:
    operator = node["operator"]
    if node["domain"]:
        raise BundleError(f"operator '{operator}' of the domain '{node['domain']}' is not allowed")
    if operator not in OPERATORS:
        raise BundleError(f"operator '{operator}' is not allowed")
    for attribute in node["attributes"]:
        where = f"operator '{operator}', attribute '{attribute['name']}'"
        wanted = _ATTRIBUTE_TYPES.get(attribute["type"])
        given = [part for part in _ATTRIBUTE_TYPES.values() if attribute[part] not in (None, [])]
        if wanted is None or not set(given) <= {wanted}:
            raise BundleError(f"{where}: its type is not allowed")
        if attribute["t"] is not None:
            _admit_tensor(attribute["t"])


def _admit_lengths(node: Found, constants: Mapping[str, Found], shapes: set[str]) -> None:
    """How long outputs are comes from constants, and from the number of records where it can only grow with it.

    Args:
        node: whose turn it is.
        constants: by name.
        shapes: values that are lengths of other values; this node's outputs are added if they are.
    """
    operator, inputs = node["operator"], node["inputs"]
    if operator == "Shape" or (operator == "Concat" and all(name in constants or name in shapes for name in inputs)):
        shapes |= set(node["outputs"])
    for position in _LENGTHS.get(operator, ()):
        if position < len(inputs) and inputs[position] and inputs[position] not in constants:
            raise BundleError(f"operator '{operator}': '{inputs[position]}' sets a length and is no constant")
    if operator == "Slice":
        _admit_slice(inputs, constants)
    if operator in _SHAPES and len(inputs) > _SHAPES[operator]:
        shape = inputs[_SHAPES[operator]]
        if shape not in constants and shape not in shapes:
            raise BundleError(
                f"operator '{operator}': '{shape}' sets a shape and comes from neither constants nor shapes"
            )
        if shape in constants:
            _admit_shape(operator, constants[shape])


def _admit_slice(inputs: list[str], constants: Mapping[str, Found]) -> None:
    """From a place that is counted from the front, forwards: of more records never less."""
    for position, least in ((1, 0), (4, 1)):
        if (
            position < len(inputs)
            and inputs[position]
            and any(number < least for number in _integers(constants[inputs[position]]))
        ):
            raise BundleError(f"operator 'Slice': '{inputs[position]}' counts from the end or backwards")


def _admit_shape(operator: str, constant: Found) -> None:
    lengths = list(_integers(constant))
    if any(length < 0 for length in lengths) or prod(lengths) > _LONGEST:
        raise BundleError(f"operator '{operator}' makes a value of shape {lengths[:12]}, more than {_LONGEST} elements")


def _integers(constant: Found) -> Iterator[int]:
    if constant["type"] != _INT64:
        raise BundleError(f"constant '{constant['name']}' sets a length and is not int64")
    raw = constant["raw"] or b""
    return (int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8))
