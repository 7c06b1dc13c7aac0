"""What a graph may hold for TensorRT from 10.3 and ONNX Runtime from 1.23 to read it.

The operators are those that the ONNX parser of TensorRT 9.2 and later lists as supported, of which
graphs may ever have use; the rules are its restrictions, and what other engines refused.
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

# By operator, the inputs that must be constants.
CONSTANT_INPUTS = {"CumSum": [1], "Slice": [3], "Squeeze": [1], "Unsqueeze": [1], "Pad": [1]}


def complaints(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 10.3 or ONNX Runtime 1.23 cannot read in a graph."""
    found = []
    if model.ir_version > 10:
        found.append(f"IR version {model.ir_version}")
    if [(entry.domain, entry.version) for entry in model.opset_import] != [("", 18)]:
        found.append(f"opsets {[(entry.domain, entry.version) for entry in model.opset_import]}")
    for node, constants in _nodes(model.graph, frozenset()):
        if node.domain or node.op_type not in LISTED:
            found.append(f"{node.name}: {node.domain}:{node.op_type}")
        for place in CONSTANT_INPUTS.get(node.op_type, []):
            if place < len(node.input) and node.input[place] not in {"", *constants}:
                found.append(f"{node.name}: input {place} of {node.op_type} is computed")
        given = {entry.name: entry for entry in node.attribute}
        if "reduction" in given and given["reduction"].s != b"none":
            found.append(f"{node.name}: a scatter that reduces")
        if node.op_type == "Einsum" and b"..." in given["equation"].s:
            found.append(f"{node.name}: an ellipsis in Einsum")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.UINT8:
            found.append(f"{tensor.name}: uint8")
    return found


def _nodes(
    graph: onnx.GraphProto, outside: frozenset[str]
) -> Iterator[tuple[onnx.NodeProto, frozenset[str]]]:
    """Every node, also of inner graphs, with the names of the constants in its scope."""
    constants = outside | {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        yield node, constants
        for entry in node.attribute:
            if entry.HasField("g"):
                yield from _nodes(entry.g, constants)
