"""Static symmetric int8 as quantise-dequantise pairs: the form that TensorRT takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .matmuls import Product, find_products, insert_before, put_weight, split_gemms

__all__ = ["product_inputs", "static_int8"]

_STEPS = 127.0


def product_inputs(model: onnx.ModelProto, recurrence: bool = False) -> list[str]:
    """Names of the tensors whose ranges :func:`static_int8` needs, without repetition."""
    return list(dict.fromkeys(p.node.input[0] for p in find_products(model, recurrence)))


def static_int8(
    model: onnx.ModelProto, ranges: Mapping[str, float], recurrence: bool = False
) -> onnx.ModelProto:
    """Quantise each product's input and weight, and dequantise both before it.

    Symmetric, so that no zero point is other than 0; int8, never uint8; a scale for each output
    of a weight, and one for each input tensor, fixed: rows never mix. The sums stay float32.

    Args:
        model: A graph in float32; it is not changed.
        ranges: Largest |value| of each tensor of :func:`product_inputs`, from calibration.
        recurrence: Lower the reservoir's recurrence too.
    """
    lowered = copy.deepcopy(model)
    products = find_products(lowered, recurrence)
    split_gemms(products)
    lowered.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "int8_zero"))
    done: dict[tuple[int, str], str] = {}
    for product in products:
        _quantize_weight(product)
        _quantize_input(lowered, product, ranges, done)
    return lowered


def _quantize_weight(product: Product) -> None:
    node, name, array = product.node, product.weight.name, product.array
    largest = np.abs(array).max(axis=0)
    # A column of zeros has any scale, but 0.
    scales = np.where(largest > 0, largest / _STEPS, 1.0).astype(np.float32)
    numbers = np.clip(np.rint(array / scales), -_STEPS, _STEPS).astype(np.int8)
    put_weight(
        product,
        numpy_helper.from_array(numbers, f"{name}/int8"),
        numpy_helper.from_array(scales, f"{name}/scale"),
        numpy_helper.from_array(np.zeros(len(scales), np.int8), f"{name}/zero"),
    )
    weight = f"{node.name}/weight"
    insert_before(
        product,
        helper.make_node(
            "DequantizeLinear", [f"{name}/int8", f"{name}/scale", f"{name}/zero"],
            [weight], name=weight, axis=1,
        ),
    )  # fmt: skip
    node.input[1] = weight


def _quantize_input(
    model: onnx.ModelProto,
    product: Product,
    ranges: Mapping[str, float],
    done: dict[tuple[int, str], str],
) -> None:
    node, source = product.node, product.node.input[0]
    key = (id(product.graph), source)
    if key not in done:
        scale = max(ranges[source], 1e-6) / _STEPS
        numbers, values = f"{node.name}/quantized", f"{node.name}/input"
        model.graph.initializer.append(
            numpy_helper.from_array(np.asarray(scale, np.float32), f"{node.name}/scale")
        )
        constants = [f"{node.name}/scale", "int8_zero"]
        insert_before(
            product,
            helper.make_node("QuantizeLinear", [source, *constants], [numbers], name=numbers),
            helper.make_node("DequantizeLinear", [numbers, *constants], [values], name=values),
        )
        done[key] = values
    node.input[0] = done[key]
