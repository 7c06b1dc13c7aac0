"""Weights in blocks of few bits, by onnxruntime's quantiser."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx

from .matmuls import find_products, split_gemms, walk

__all__ = ["block_weights"]


def block_weights(
    model: onnx.ModelProto,
    bits: int,
    block: int,
    recurrence: bool = False,
    accuracy: int | None = None,
) -> onnx.ModelProto:
    """Hold each product's weight in blocks of ``bits`` bits with a scale for each block.

    The product becomes onnxruntime's ``MatMulNBits``, which no other engine knows. What it
    rounds, it rounds within one row: rows never mix. With ``accuracy`` 4, inputs are rounded as
    well, by another kernel for one row than for many: chunks of other lengths differ (measured:
    ``docs/decisions.md``).

    Args:
        model: A graph in float32; it is not changed.
        bits: 4 or 8.
        block: Inputs that share a scale.
        recurrence: Lower the reservoir's recurrence too.
        accuracy: The operator's ``accuracy_level``: 4 lets the engine multiply in int8.
    """
    lowered = copy.deepcopy(model)
    products = find_products(lowered, recurrence)
    if not products:
        return lowered
    split_gemms(products)
    wanted = {product.node.name for product in products}
    others = [
        node.name for graph, _ in walk(lowered.graph) for node in graph.node
        if node.op_type == "MatMul" and node.name not in wanted
    ]  # fmt: skip
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            DefaultWeightOnlyQuantConfig,
            MatMulNBitsQuantizer,
        )

        config = DefaultWeightOnlyQuantConfig(
            block_size=block,
            is_symmetric=True,
            bits=bits,
            accuracy_level=accuracy,
            op_types_to_quantize=("MatMul",),
        )
        quantizer = MatMulNBitsQuantizer(lowered, nodes_to_exclude=others, algo_config=config)
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the program's logging as it was: the quantiser sets it up for itself on import."""
    root = logging.getLogger()
    handlers, level, off = list(root.handlers), root.level, logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(off)
