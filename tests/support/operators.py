"""The rules for graphs that TensorRT 10.3 and later, and ONNX Runtime 1.23, can read.

The operators are those that our graphs may need, among those that the ONNX parser of TensorRT 9.2
and later lists as supported. The other rules are its restrictions, and what other engines refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

_NAMES = """
Abs Add And ArgMax Cast Clip Concat Constant ConstantOfShape Conv Cos CumSum DequantizeLinear
Div Einsum Equal Erf Exp Expand Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual
Identity LayerNormalization Less LessOrEqual Log LogSoftmax MatMul Max Min Mod Mul Neg Not
OneHot Or Pad Pow QuantizeLinear Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
ReduceSum Relu Reshape Round Scan ScatterElements ScatterND Shape Sigmoid Sign Sin Slice Softmax
Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
LISTED = frozenset(_NAMES.split())

# The inputs that must be constants, by operator.
CONSTANT_INPUTS = {"CumSum": [1], "Slice": [3], "Squeeze": [1], "Unsqueeze": [1], "Pad": [1]}


def complaints(model: onnx.ModelProto) -> list[str]:
    """The parts of a graph that TensorRT 10.3 or ONNX Runtime 1.23 cannot read."""
    problems = []
    if model.ir_version > 10:
        problems.append(f"IR version {model.ir_version}")
    if [(entry.domain, entry.version) for entry in model.opset_import] != [("", 18)]:
        problems.append(f"opsets {[(entry.domain, entry.version) for entry in model.opset_import]}")
    for node, constants in _nodes(model.graph, frozenset()):
        if node.domain or node.op_type not in LISTED:
            problems.append(f"{node.name}: {node.domain}:{node.op_type}")
        for index in CONSTANT_INPUTS.get(node.op_type, []):
            if index < len(node.input) and node.input[index] not in {"", *constants}:
                problems.append(f"{node.name}: input {index} of {node.op_type} is computed")
        attributes = {entry.name: entry for entry in node.attribute}
        if "reduction" in attributes and attributes["reduction"].s != b"none":
            problems.append(f"{node.name}: a scatter that reduces")
        if node.op_type == "Einsum" and b"..." in attributes["equation"].s:
            problems.append(f"{node.name}: an ellipsis in Einsum")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.UINT8:
            problems.append(f"{tensor.name}: uint8")
    return problems


def _nodes(
    graph: onnx.GraphProto, outside: frozenset[str]
) -> Iterator[tuple[onnx.NodeProto, frozenset[str]]]:
    """Every node, including those of subgraphs, with the names of the constants in scope."""
    constants = outside | {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        yield node, constants
        for entry in node.attribute:
            if entry.HasField("g"):
                yield from _nodes(entry.g, constants)
