"""Weights and inputs of products in int8, by onnxruntime's dynamic quantiser."""

from __future__ import annotations

import copy
import logging
import tempfile
from pathlib import Path

import onnx

from .matmuls import find_products, split_gemms

__all__ = ["dynamic_int8"]


def dynamic_int8(model: onnx.ModelProto, recurrence: bool = False) -> onnx.ModelProto:
    """Multiply in int8, with scales that each call computes from its own inputs.

    The scale is that of the whole call: rows of a batch, and tokens of a chunk, change each
    other's rounding. The invariants of a stream then hold to that rounding only.

    Args:
        model: A graph in float32; it is not changed.
        recurrence: Lower the reservoir's recurrence too.
    """
    lowered = copy.deepcopy(model)
    products = find_products(lowered, recurrence)
    if not products:
        return lowered
    split_gemms(products)
    off = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a pre-processing that these graphs do not need
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # The quantiser writes a file; nothing of its place is kept.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "lowered.onnx"
            quantize_dynamic(
                lowered,
                file,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                # Processors without VNNI add products of 8 bits in pairs to 16 bits, and
                # saturate: the loss then depends on the machine. With 7 bits no pair is too large.
                reduce_range=True,
                nodes_to_quantize=[product.node.name for product in products],
                extra_options={"EnableSubgraph": recurrence, "MatMulConstBOnly": True},
            )
            return onnx.load(file)
    finally:
        logging.disable(off)
