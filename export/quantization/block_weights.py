"""Weights in blocks of 4 or 8 bits, by onnxruntime's quantiser."""

from __future__ import annotations

import copy

import onnx

from .matmuls import find_matmuls, split_gemms, walk
from .quiet import quiet_quantizer

__all__ = ["to_block_weights"]


def to_block_weights(
    model: onnx.ModelProto,
    bits: int,
    block: int,
    recurrence: bool = False,
    accuracy: int | None = None,
) -> onnx.ModelProto:
    """Store each product's weight in blocks of ``bits`` bits, with a scale per block.

    The product becomes onnxruntime's own ``MatMulNBits``. Everything is rounded within one row, so
    rows never mix. With ``accuracy`` 4 the inputs are rounded too, by different kernels for one
    row and for many, so the result depends on the chunk length (measured: ``docs/decisions.md``).

    Args:
        model: A graph in float32; not modified.
        bits: 4 or 8.
        block: Number of inputs that share a scale.
        recurrence: Lower the reservoir's recurrence too.
        accuracy: The operator's ``accuracy_level``; 4 lets the engine multiply in int8.
    """
    lowered = copy.deepcopy(model)
    matmuls = find_matmuls(lowered, recurrence)
    if not matmuls:
        return lowered
    split_gemms(matmuls)
    chosen = {matmul.node.name for matmul in matmuls}
    others = [
        node.name
        for graph, _ in walk(lowered.graph)
        for node in graph.node
        if node.op_type == "MatMul" and node.name not in chosen
    ]
    with quiet_quantizer():
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
