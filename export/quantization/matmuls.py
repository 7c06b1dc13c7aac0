"""The products of a graph whose weights may be held in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

__all__ = ["Product", "find_products", "insert_before", "put_weight", "split_gemms", "walk"]

_LEAST = 1_024
"""A smaller weight is not worth the nodes that it would cost."""

_RECURRENCE = "reservoir/"
_MEMORY = "memory/"
_HEADS = ("memory.head", "readout_cnn/head/", "wave_cnn/head/", "head.", "head/")


@dataclass(frozen=True)
class Product:
    """One product with a constant matrix.

    Attributes:
        node: ``MatMul`` or ``Gemm``.
        weight: The matrix, float32.
        graph: The graph that the node stands in: the whole one, or the body of a loop.
        owner: The graph that holds the weight.
    """

    node: onnx.NodeProto
    weight: onnx.TensorProto
    graph: onnx.GraphProto
    owner: onnx.GraphProto

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """The weight's values, ``[inputs, outputs]`` once :func:`split_gemms` was here."""
        return numpy_helper.to_array(self.weight).astype(np.float32)

    @property
    def head(self) -> bool:
        """Whether it gives the logits."""
        return self.weight.name.startswith(_HEADS)


def find_products(model: onnx.ModelProto, recurrence: bool = False) -> list[Product]:
    """The products that may be lowered, in the order of the graph.

    Left alone are the memory's (distances between keys: near 1 they have no digits to spare),
    small ones, and the reservoir's recurrence, whose errors come back at each step.

    Args:
        model: A graph of the bundle, in float32.
        recurrence: Lower the recurrence too.
    """
    found: list[Product] = []
    readers: dict[int, int] = {}
    for graph, scope in walk(model.graph):
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name not in scope:
                    continue
                owner, weight = scope[name]
                readers[id(weight)] = readers.get(id(weight), 0) + 1
                if place == 1 and _may_be_lowered(node, weight, recurrence):
                    found.append(Product(node, weight, graph, owner))
    # A weight that something else reads as well would have to be kept beside its lowered form.
    return [product for product in found if readers[id(product.weight)] == 1]


def walk(
    graph: onnx.GraphProto,
    scope: dict[str, tuple[onnx.GraphProto, onnx.TensorProto]] | None = None,
) -> Iterator[tuple[onnx.GraphProto, dict[str, tuple[onnx.GraphProto, onnx.TensorProto]]]]:
    """A graph and all graphs inside it, each with the constants that it sees and their owners."""
    scope = {**(scope or {}), **{tensor.name: (graph, tensor) for tensor in graph.initializer}}
    yield graph, scope
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from walk(attribute.g, scope)


def split_gemms(products: list[Product]) -> None:
    """Make a ``MatMul`` and an ``Add`` of each ``Gemm``, in place: quantisers know only those."""
    for product in products:
        node = product.node
        if node.op_type != "Gemm":
            continue
        result = node.output[0]
        addend = node.input[2] if len(node.input) > 2 else ""
        if any(a.name == "transB" and a.i for a in node.attribute):
            turned = np.ascontiguousarray(product.array.T)
            product.weight.CopyFrom(numpy_helper.from_array(turned, product.weight.name))
            # The shape that the graph notes beside it is no longer its own.
            for place, entry in reversed(list(enumerate(product.owner.value_info))):
                if entry.name == product.weight.name:
                    del product.owner.value_info[place]
        node.op_type = "MatMul"
        del node.attribute[:]
        node.input[:] = node.input[:2]
        if addend:
            node.output[0] = f"{result}/product"
            add = helper.make_node(
                "Add", [node.output[0], addend], [result], name=f"{node.name}/Add"
            )
            product.graph.node.insert(_place(product.graph, node) + 1, add)


def insert_before(product: Product, *nodes: onnx.NodeProto) -> None:
    """Put nodes before the product's."""
    place = _place(product.graph, product.node)
    for offset, node in enumerate(nodes):
        product.graph.node.insert(place + offset, node)


def put_weight(product: Product, *tensors: onnx.TensorProto) -> None:
    """Put tensors in the place of the product's weight."""
    product.weight.CopyFrom(tensors[0])
    product.owner.initializer.extend(tensors[1:])


def _place(graph: onnx.GraphProto, node: onnx.NodeProto) -> int:
    return next(place for place, entry in enumerate(graph.node) if entry.name == node.name)


def _may_be_lowered(node: onnx.NodeProto, weight: onnx.TensorProto, recurrence: bool) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or weight.data_type != onnx.TensorProto.FLOAT:
        return False
    if len(weight.dims) != 2 or weight.dims[0] * weight.dims[1] < _LEAST:
        return False
    plain = {"alpha": (1.0,), "beta": (1.0,), "transA": (0,), "transB": (0, 1)}
    if any(helper.get_attribute_value(a) not in plain[a.name] for a in node.attribute):
        return False
    if node.name.startswith(_RECURRENCE):
        return recurrence
    return not node.name.startswith(_MEMORY) or weight.name.startswith(_HEADS)
