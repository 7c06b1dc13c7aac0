"""Half precision by casts in the graph: the ONNX file itself holds the precision."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .matmuls import (
    MatMul,
    find_matmuls,
    insert_after,
    insert_before,
    replace_weight,
    split_gemms,
)

__all__ = ["fp16_matmuls", "fp16_weights"]

_LARGEST = float(np.finfo(np.float16).max)


def fp16_matmuls(
    model: onnx.ModelProto, recurrence: bool = False, only: frozenset[str] | None = None
) -> onnx.ModelProto:
    """Multiply in float16, for engines whose half precision is faster.

    Store each product's weight in float16, cast its input to float16 and its result back. State,
    logits, norms, the memory and the recurrence stay float32. So does the head's arithmetic, and
    only its weight is stored in float16: a logit of 10 would be rounded to 0.008, more than the
    gate allows.

    Args:
        model: A graph in float32; not modified.
        recurrence: Lower the reservoir's recurrence too.
        only: Names of the nodes to lower; all eligible ones by default.
    """
    lowered, matmuls = _prepared(model, recurrence, only)
    for matmul in matmuls:
        if matmul.head:
            _store(matmul)
        else:
            _multiply(matmul)
    return lowered


def fp16_weights(
    model: onnx.ModelProto, recurrence: bool = False, only: frozenset[str] | None = None
) -> onnx.ModelProto:
    """Store in float16 and multiply in float32: half the size at the speed of float32.

    An engine folds the cast of a constant when it loads the graph.

    Args:
        model: A graph in float32; not modified.
        recurrence: Lower the reservoir's recurrence too.
        only: Names of the nodes to lower; all eligible ones by default.
    """
    lowered, matmuls = _prepared(model, recurrence, only)
    for matmul in matmuls:
        _store(matmul)
    return lowered


def _prepared(
    model: onnx.ModelProto, recurrence: bool, only: frozenset[str] | None
) -> tuple[onnx.ModelProto, list[MatMul]]:
    """Copy the model, and find the products to lower in the copy."""
    lowered = copy.deepcopy(model)
    matmuls = find_matmuls(lowered, recurrence)
    matmuls = [m for m in matmuls if only is None or m.node.name in only]
    # Leave weights that overflow float16.
    return lowered, [m for m in matmuls if float(np.abs(m.array).max()) <= _LARGEST]


def _half(matmul: MatMul) -> onnx.TensorProto:
    return numpy_helper.from_array(matmul.array.astype(np.float16), f"{matmul.weight.name}/half")


def _store(matmul: MatMul) -> None:
    node, half = matmul.node, _half(matmul)
    replace_weight(matmul, half)
    weight = f"{node.name}/weight"
    node.input[1] = weight
    cast = helper.make_node("Cast", [half.name], [weight], name=weight, to=TensorProto.FLOAT)
    insert_before(matmul, cast)


def _multiply(matmul: MatMul) -> None:
    split_gemms([matmul])
    node, weight = matmul.node, _half(matmul)
    replace_weight(matmul, weight)
    narrow, wide = f"{node.name}/half", f"{node.name}/wide"
    source, result = node.input[0], node.output[0]
    before = helper.make_node("Cast", [source], [narrow], name=narrow, to=TensorProto.FLOAT16)
    after = helper.make_node("Cast", [wide], [result], name=wide, to=TensorProto.FLOAT)
    node.input[:] = [narrow, weight.name]
    node.output[0] = wide
    insert_before(matmul, before)
    insert_after(matmul, after)
