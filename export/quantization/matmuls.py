"""The matrix products of a graph whose weights may be stored in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

__all__ = [
    "MatMul",
    "find_matmuls",
    "insert_after",
    "insert_before",
    "replace_weight",
    "split_gemms",
    "walk",
]

_SMALLEST = 1_024
"""Smallest weight, in values, that is worth the nodes of its conversion."""

_RECURRENCE = "reservoir/"
_MEMORY = "memory/"
_HEADS = ("memory.head", "readout_cnn/head/", "wave_cnn/head/", "head.", "head/")

Scope = dict[str, tuple[onnx.GraphProto, onnx.TensorProto]]
"""The constants visible in a graph, each with the graph that owns it."""


@dataclass(frozen=True)
class MatMul:
    """A matrix product with a constant matrix.

    Attributes:
        node: The ``MatMul`` or ``Gemm`` node.
        weight: The matrix, float32.
        graph: The graph that contains the node: the main graph, or the body of a loop.
        owner: The graph that contains the weight.
    """

    node: onnx.NodeProto
    weight: onnx.TensorProto
    graph: onnx.GraphProto
    owner: onnx.GraphProto

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """The weight's values, ``[inputs, outputs]`` after :func:`split_gemms`."""
        return numpy_helper.to_array(self.weight).astype(np.float32)

    @property
    def head(self) -> bool:
        """Whether the product computes the logits."""
        return self.weight.name.startswith(_HEADS)


def find_matmuls(model: onnx.ModelProto, recurrence: bool = False) -> list[MatMul]:
    """Find the products that may be lowered, in the order of the graph.

    Skip small products, the memory's (distances near 1 have no digits to spare) and, unless asked
    for, the reservoir's recurrence, whose errors return at every step.

    Args:
        model: A graph of the bundle, in float32.
        recurrence: Include the recurrence.
    """
    candidates: list[MatMul] = []
    readers: dict[int, int] = {}
    for graph, scope in walk(model.graph):
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name not in scope:
                    continue
                owner, weight = scope[name]
                readers[id(weight)] = readers.get(id(weight), 0) + 1
                if place == 1 and _may_be_lowered(node, weight, recurrence):
                    candidates.append(MatMul(node, weight, graph, owner))
    # A weight with another reader would have to be kept beside its lowered form.
    return [matmul for matmul in candidates if readers[id(matmul.weight)] == 1]


def walk(
    graph: onnx.GraphProto, scope: Scope | None = None
) -> Iterator[tuple[onnx.GraphProto, Scope]]:
    """Visit a graph and all its subgraphs, each with the constants visible in it."""
    scope = {**(scope or {}), **{tensor.name: (graph, tensor) for tensor in graph.initializer}}
    yield graph, scope
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from walk(attribute.g, scope)


def split_gemms(matmuls: list[MatMul]) -> None:
    """Split each ``Gemm`` into ``MatMul`` and ``Add``, in place: quantisers know only those."""
    for matmul in matmuls:
        node = matmul.node
        if node.op_type != "Gemm":
            continue
        result = node.output[0]
        addend = node.input[2] if len(node.input) > 2 else ""
        if any(a.name == "transB" and a.i for a in node.attribute):
            _transpose_weight(matmul)
        node.op_type = "MatMul"
        del node.attribute[:]
        node.input[:] = node.input[:2]
        if addend:
            node.output[0] = f"{result}/product"
            inputs, name = [node.output[0], addend], f"{node.name}/Add"
            insert_after(matmul, helper.make_node("Add", inputs, [result], name=name))


def insert_before(matmul: MatMul, *nodes: onnx.NodeProto) -> None:
    """Insert nodes before the product's node."""
    place = _place(matmul)
    for offset, node in enumerate(nodes):
        matmul.graph.node.insert(place + offset, node)


def insert_after(matmul: MatMul, node: onnx.NodeProto) -> None:
    """Insert a node after the product's node."""
    matmul.graph.node.insert(_place(matmul) + 1, node)


def replace_weight(matmul: MatMul, *tensors: onnx.TensorProto) -> None:
    """Replace the product's weight by one tensor or several."""
    matmul.weight.CopyFrom(tensors[0])
    matmul.owner.initializer.extend(tensors[1:])


def _transpose_weight(matmul: MatMul) -> None:
    transposed = np.ascontiguousarray(matmul.array.T)
    matmul.weight.CopyFrom(numpy_helper.from_array(transposed, matmul.weight.name))
    # Drop the recorded shape, which no longer matches.
    for place, entry in reversed(list(enumerate(matmul.owner.value_info))):
        if entry.name == matmul.weight.name:
            del matmul.owner.value_info[place]


def _place(matmul: MatMul) -> int:
    nodes = enumerate(matmul.graph.node)
    return next(place for place, entry in nodes if entry.name == matmul.node.name)


def _may_be_lowered(node: onnx.NodeProto, weight: onnx.TensorProto, recurrence: bool) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or weight.data_type != onnx.TensorProto.FLOAT:
        return False
    if len(weight.dims) != 2 or weight.dims[0] * weight.dims[1] < _SMALLEST:
        return False
    plain = {"alpha": (1.0,), "beta": (1.0,), "transA": (0,), "transB": (0, 1)}
    if any(helper.get_attribute_value(a) not in plain[a.name] for a in node.attribute):
        return False
    if node.name.startswith(_RECURRENCE):
        return recurrence
    return not node.name.startswith(_MEMORY) or weight.name.startswith(_HEADS)
