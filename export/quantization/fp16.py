"""Half precision by casting in the graph: precision lives in the ONNX file."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .matmuls import Product, find_products, insert_before, put_weight, split_gemms

__all__ = ["fp16_products", "fp16_weights"]

_LARGEST = float(np.finfo(np.float16).max)


def fp16_products(
    model: onnx.ModelProto, recurrence: bool = False, only: frozenset[str] | None = None
) -> onnx.ModelProto:
    """Multiply in float16: for engines whose half precision is faster.

    Each product's weight is stored in float16, its input is cast to it, and its result back to
    float32; state, logits, norms, the memory and the recurrence stay float32. So does the
    arithmetic of the head, whose weight alone is halved: a logit of 10 in float16 is rounded
    to 0.008, more than the gate allows.

    Args:
        model: A graph in float32; it is not changed.
        recurrence: Lower the reservoir's recurrence too.
        only: Names of the nodes to lower; all that may be when absent.
    """
    lowered, products = _prepared(model, recurrence, only)
    for product in products:
        if product.head:
            _store(product)
        else:
            _multiply(product)
    return lowered


def fp16_weights(
    model: onnx.ModelProto, recurrence: bool = False, only: frozenset[str] | None = None
) -> onnx.ModelProto:
    """Store in float16, multiply in float32: half the file, and the speed of float32.

    An engine folds the cast of a constant when it loads the graph.

    Args:
        model: A graph in float32; it is not changed.
        recurrence: Lower the reservoir's recurrence too.
        only: Names of the nodes to lower; all that may be when absent.
    """
    lowered, products = _prepared(model, recurrence, only)
    for product in products:
        _store(product)
    return lowered


def _prepared(
    model: onnx.ModelProto, recurrence: bool, only: frozenset[str] | None
) -> tuple[onnx.ModelProto, list[Product]]:
    lowered = copy.deepcopy(model)
    products = find_products(lowered, recurrence)
    products = [p for p in products if only is None or p.node.name in only]
    # What float16 cannot hold stays as it is.
    products = [p for p in products if float(np.abs(p.array).max()) <= _LARGEST]
    return lowered, products


def _half(product: Product) -> onnx.TensorProto:
    return numpy_helper.from_array(product.array.astype(np.float16), f"{product.weight.name}/half")


def _store(product: Product) -> None:
    node, half = product.node, _half(product)
    put_weight(product, half)
    cast = f"{node.name}/weight"
    node.input[1] = cast
    insert_before(
        product,
        helper.make_node("Cast", [half.name], [cast], name=cast, to=TensorProto.FLOAT),
    )


def _multiply(product: Product) -> None:
    split_gemms([product])
    node, weight = product.node, _half(product)
    put_weight(product, weight)
    narrow, wide, result = f"{node.name}/half", f"{node.name}/wide", node.output[0]
    before = helper.make_node(
        "Cast", [node.input[0]], [narrow], name=narrow, to=TensorProto.FLOAT16
    )
    after = helper.make_node("Cast", [wide], [result], name=wide, to=TensorProto.FLOAT)
    node.input[:] = [narrow, weight.name]
    node.output[0] = wide
    insert_before(product, before)
    place = next(at for at, entry in enumerate(product.graph.node) if entry.name == node.name)
    product.graph.node.insert(place + 1, after)
