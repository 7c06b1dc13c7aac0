"""Static symmetric int8 as quantise-dequantise pairs: the form that TensorRT reads."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .matmuls import MatMul, find_matmuls, insert_before, replace_weight, split_gemms

__all__ = ["matmul_inputs", "to_static_int8"]

_STEPS = 127.0


def matmul_inputs(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors whose ranges :func:`to_static_int8` needs, without duplicates."""
    return list(dict.fromkeys(m.node.input[0] for m in find_matmuls(model)))


def to_static_int8(model: onnx.ModelProto, ranges: Mapping[str, float]) -> onnx.ModelProto:
    """Quantise each product's input and weight, and dequantise both before the product.

    The scheme is symmetric: int8, never uint8, and every zero point is 0. Each output of a weight
    has a scale, and each input tensor has one fixed scale, so rows never mix. Sums stay float32.

    Args:
        model: A graph in float32; not modified.
        ranges: Largest |value| of each tensor of :func:`matmul_inputs`, from calibration.
    """
    lowered = copy.deepcopy(model)
    matmuls = find_matmuls(lowered)
    split_gemms(matmuls)
    lowered.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "int8_zero"))
    done: dict[tuple[int, str], str] = {}
    for matmul in matmuls:
        _quantize_weight(matmul)
        _quantize_input(lowered, matmul, ranges, done)
    return lowered


def _quantize_weight(matmul: MatMul) -> None:
    node, name, array = matmul.node, matmul.weight.name, matmul.array
    largest = np.abs(array).max(axis=0)
    # A column of zeros may have any scale except 0.
    scales = np.where(largest > 0, largest / _STEPS, 1.0).astype(np.float32)
    numbers = np.clip(np.rint(array / scales), -_STEPS, _STEPS).astype(np.int8)
    replace_weight(
        matmul,
        numpy_helper.from_array(numbers, f"{name}/int8"),
        numpy_helper.from_array(scales, f"{name}/scale"),
        numpy_helper.from_array(np.zeros(len(scales), np.int8), f"{name}/zero"),
    )
    inputs, weight = [f"{name}/int8", f"{name}/scale", f"{name}/zero"], f"{node.name}/weight"
    dequantize = helper.make_node("DequantizeLinear", inputs, [weight], name=weight, axis=1)
    insert_before(matmul, dequantize)
    node.input[1] = weight


def _quantize_input(
    model: onnx.ModelProto,
    matmul: MatMul,
    ranges: Mapping[str, float],
    done: dict[tuple[int, str], str],
) -> None:
    """Quantise an input once per graph; ``done`` maps (graph, input) to the dequantised name."""
    node, source = matmul.node, matmul.node.input[0]
    key = (id(matmul.graph), source)
    if key not in done:
        scale = max(ranges[source], 1e-6) / _STEPS
        numbers, values = f"{node.name}/quantized", f"{node.name}/input"
        model.graph.initializer.append(
            numpy_helper.from_array(np.asarray(scale, np.float32), f"{node.name}/scale")
        )
        constants = [f"{node.name}/scale", "int8_zero"]
        insert_before(
            matmul,
            helper.make_node("QuantizeLinear", [source, *constants], [numbers], name=numbers),
            helper.make_node("DequantizeLinear", [numbers, *constants], [values], name=values),
        )
        done[key] = values
    node.input[0] = done[key]
