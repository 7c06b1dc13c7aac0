"""Lower bounds on the time of a step: its arithmetic and its memory traffic alone."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import onnx
from onnx import numpy_helper, shape_inference

from rillet.export.graphs.build import fix_batch

from .machine_limits import float_products, read_rate

__all__ = ["StepWork", "arithmetic_limit", "count_work"]


@dataclass(frozen=True)
class StepWork:
    """The work of one step of one stream.

    Attributes:
        bytes: Bytes of weights and state read.
        operations: Multiplications and additions of matrix products, plus one operation for each
            element that other nodes compute.
    """

    bytes: int
    operations: int


def count_work(graph: onnx.ModelProto) -> StepWork:
    """Count the work of a decoding graph in one step of one stream."""
    single = copy.deepcopy(graph)
    fix_batch(single, 1)
    inferred = shape_inference.infer_shapes(single).graph
    shapes = {
        entry.name: [size.dim_value for size in entry.type.tensor_type.shape.dim]
        for entry in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    # A lookup reads only one row of its table.
    tables = {node.input[0] for node in inferred.node if node.op_type == "Gather"}
    read = sum(
        numpy_helper.to_array(tensor).nbytes
        for tensor in inferred.initializer
        if tensor.name not in tables
    )
    read += sum(4 * math.prod(shapes[e.name]) for e in inferred.input if e.name.startswith("past."))
    operations = 0
    for node in inferred.node:
        outputs = math.prod(shapes.get(node.output[0], []))
        if node.op_type in ("MatMul", "Gemm"):
            left = shapes[node.input[0]]
            operations += 2 * outputs * left[-1]
        else:
            operations += outputs
    return StepWork(read, operations)


def arithmetic_limit(work: StepWork) -> dict[str, float]:
    """Microseconds that the work takes at this machine's speed, on one thread.

    Returns:
        ``memory``: the time to read its bytes, at the rate of repeated reads of as many bytes;
        ``arithmetic``: the time of its operations, at the rate of multiplications with additions
        in registers; ``GB/s`` and ``GFLOP/s``: the two rates.
    """
    bandwidth, peak = read_rate(work.bytes), 2 * float_products()
    return {
        "memory": work.bytes / bandwidth * 1e6,
        "arithmetic": work.operations / peak * 1e6,
        "GB/s": bandwidth / 1e9,
        "GFLOP/s": peak / 1e9,
    }
