"""What the exporter writes in several nodes and one node computes as well.

Dispatching a node costs a small model more than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from .unread import drop_unread

__all__ = ["shorten_patterns"]


def shorten_patterns(
    graph: onnx.GraphProto, outside: Mapping[str, onnx.TensorProto] | None = None
) -> None:
    """Shorten whole-number division and lookups in tables, in a graph and its subgraphs.

    PyTorch's ``//`` rounds down. ONNX's ``Div`` of whole numbers rounds towards zero, so the
    exporter subtracts 1 where the signs differ and something remains: six nodes more. All that our
    graphs divide this way are hashes and packed slots, which are never negative, and there the two
    agree.

    PyTorch's ``table[index]`` becomes ``GatherND`` of an unsqueezed index, which is ``Gather``.

    A lookup in a table of each row's own is ``GatherElements`` of a squeezed index, and
    ``GatherND`` of the index as it was. ONNX's reference evaluator has the former for small tables
    only.

    Args:
        graph: A graph as the exporter wrote it; modified in place.
        outside: Constants of the graphs around it, by name.
    """
    constants = {**(outside or {}), **{tensor.name: tensor for tensor in graph.initializer}}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                shorten_patterns(attribute.g, constants)
    writer = {name: node for node in graph.node for name in node.output}
    tables = _matrices(graph)
    quotients = {}
    for node in graph.node:
        quotient = _corrected(node, writer, constants)
        if quotient is not None:
            quotients[node.output[0]] = quotient
        index = _row(node, writer, constants)
        if index is not None:
            node.op_type, node.input[1] = "Gather", index
            del node.attribute[:]
        own = _own_row(node, writer, constants, tables)
        if own is not None:
            node.op_type, node.input[1] = "GatherND", own
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("batch_dims", 1))
    for node in graph.node:
        node.input[:] = [quotients.get(name, name) for name in node.input]
    drop_unread(graph)


def _row(
    node: onnx.NodeProto,
    writer: dict[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> str | None:
    """The index of the row that a node looks up, or ``None`` if it does anything else."""
    if node.op_type != "GatherND" or any(entry.i for entry in node.attribute):
        return None
    index = writer.get(node.input[1])
    if index is None or index.op_type != "Unsqueeze" or index.input[1] not in constants:
        return None
    if numpy_helper.to_array(constants[index.input[1]]).tolist() != [-1]:
        return None
    return str(index.input[0])


def _matrices(graph: onnx.GraphProto) -> set[str]:
    """The values with two axes."""
    values = (*graph.input, *graph.output, *graph.value_info)
    return {value.name for value in values if len(value.type.tensor_type.shape.dim) == 2}


def _own_row(
    node: onnx.NodeProto,
    writer: dict[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    matrices: set[str],
) -> str | None:
    """The index ``[B, n, 1]`` of what a node looks up in a table ``[B, M]``, or ``None``."""
    if node.op_type != "GatherElements" or node.input[0] not in matrices:
        return None
    index = writer.get(node.input[1])
    if index is None or index.op_type != "Squeeze" or index.input[1] not in constants:
        return None
    if numpy_helper.to_array(constants[index.input[1]]).tolist() not in ([2], [-1]):
        return None
    return str(index.input[0]) if [entry.i for entry in node.attribute] == [1] else None


def _corrected(
    node: onnx.NodeProto,
    writer: dict[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> str | None:
    """The quotient that a node corrects, or ``None`` if it does anything else.

    That is ``Sub(Div(a, b), Cast(And(Equal(Less(a, 0), b > 0), Cast(Mod(a, b)))))``, where ``b``
    is a constant above zero.
    """
    if node.op_type != "Sub":
        return None
    division, correction = (writer.get(name) for name in node.input)
    if division is None or division.op_type != "Div":
        return None
    both = _argument(correction, "Cast", writer)
    if both is None or both.op_type != "And":
        return None
    signs, rest = (writer.get(name) for name in both.input)
    remainder, negative = _argument(rest, "Cast", writer), _argument(signs, "Equal", writer)
    if remainder is None or remainder.op_type != "Mod" or remainder.input != division.input:
        return None
    if negative is None or negative.op_type != "Less" or negative.input[0] != division.input[0]:
        return None
    positive = constants.get(signs.input[1]) if signs is not None else None
    if positive is None or not numpy_helper.to_array(positive).all():
        return None
    return str(division.output[0])


def _argument(
    node: onnx.NodeProto | None, kind: str, writer: dict[str, onnx.NodeProto]
) -> onnx.NodeProto | None:
    """The node that writes the first input of a node of this kind."""
    if node is None or node.op_type != kind:
        return None
    return writer.get(node.input[0])
