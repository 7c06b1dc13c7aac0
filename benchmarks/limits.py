"""What a step would take, were there nothing but its arithmetic."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import torch
from onnx import numpy_helper, shape_inference

from rillet.export.graphs.build import fix_batch

__all__ = ["Work", "arithmetic_limit", "work_of"]


@dataclass(frozen=True)
class Work:
    """What one step of one stream must do.

    Attributes:
        bytes: Of weights and of state that are read.
        operations: Multiplications and additions of products, and one for each other number.
    """

    bytes: int
    operations: int


def work_of(graph: onnx.ModelProto) -> Work:
    """Count what a decoding graph does in a step of one stream."""
    single = copy.deepcopy(graph)
    fix_batch(single, 1)
    inferred = shape_inference.infer_shapes(single).graph
    shapes = {
        entry.name: [size.dim_value for size in entry.type.tensor_type.shape.dim]
        for entry in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    # Of a table only one row is read.
    tables = {node.input[0] for node in inferred.node if node.op_type == "Gather"}
    read = sum(
        numpy_helper.to_array(tensor).nbytes
        for tensor in inferred.initializer
        if tensor.name not in tables
    )
    read += sum(4 * _count(shapes[e.name]) for e in inferred.input if e.name.startswith("past."))
    operations = 0
    for node in inferred.node:
        made = _count(shapes.get(node.output[0], []))
        if node.op_type in ("MatMul", "Gemm"):
            left = shapes[node.input[0]]
            operations += 2 * made * left[-1]
        else:
            operations += made
    return Work(read, operations)


def arithmetic_limit(work: Work, repetitions: int = 30) -> dict[str, float]:
    """Microseconds that the work takes at the speeds measured here, on one thread.

    Returns:
        ``memory``: its bytes at the rate at which as many are read from cache, again and again;
        ``arithmetic``: its operations at the rate of a matrix product; and the rates.
    """
    values = torch.rand(max(1, work.bytes // 4))
    seconds = _least(lambda: torch.dot(values, values), repetitions)
    square = torch.rand(512, 512)
    product = _least(lambda: square @ square, repetitions)
    bandwidth, peak = work.bytes / seconds, 2 * 512**3 / product
    return {
        "memory": work.bytes / bandwidth * 1e6,
        "arithmetic": work.operations / peak * 1e6,
        "GB/s": bandwidth / 1e9,
        "GFLOP/s": peak / 1e9,
    }


def _least(call: Callable[[], object], repetitions: int) -> float:
    call()
    best = float("inf")
    for _ in range(repetitions):
        start = time.thread_time()
        for _ in range(10):
            call()
        best = min(best, (time.thread_time() - start) / 10)
    return best


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
