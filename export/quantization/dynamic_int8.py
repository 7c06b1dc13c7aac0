"""Products in int8 with scales computed per call, by onnxruntime's dynamic quantiser."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import onnx

from .matmuls import find_matmuls, split_gemms
from .quiet import quiet_quantizer

__all__ = ["to_dynamic_int8"]


def to_dynamic_int8(model: onnx.ModelProto, recurrence: bool = False) -> onnx.ModelProto:
    """Multiply in int8, with input scales that each call computes.

    A call has one scale for all its inputs, so the rows of a batch and the tokens of a chunk
    affect each other's rounding. The stream's invariants hold only up to that rounding.

    Args:
        model: A graph in float32; not modified.
        recurrence: Lower the reservoir's recurrence too.
    """
    lowered = copy.deepcopy(model)
    matmuls = find_matmuls(lowered, recurrence)
    if not matmuls:
        return lowered
    split_gemms(matmuls)
    with quiet_quantizer():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # The quantiser only writes files; nothing of the path ends up in the graph.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "lowered.onnx"
            quantize_dynamic(
                lowered,
                file,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                # Use 7 bits. Processors without VNNI add pairs of 8-bit products in 16 bits and
                # saturate, so the loss would depend on the machine.
                reduce_range=True,
                nodes_to_quantize=[matmul.node.name for matmul in matmuls],
                extra_options={"EnableSubgraph": recurrence, "MatMulConstBOnly": True},
            )
            return onnx.load(file)
