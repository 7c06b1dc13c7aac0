"""Which precisions there are, and by which methods."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.errors import UsageError
from ...runtime.state_table import StateTensor
from .block_weights import block_weights
from .calibration import largest_values
from .dynamic_int8 import dynamic_int8
from .fp16 import fp16_products, fp16_weights
from .fp16_choice import as_many_as_hold
from .static_int8 import product_inputs, static_int8

__all__ = ["METHODS", "PRECISIONS", "Precision", "chosen_method", "convert"]


@dataclass(frozen=True)
class Precision:
    """One precision.

    Attributes:
        methods: Ways to get there; the first is the default.
        max_loss_rise: By how many nats per token the loss may rise, unless told otherwise.
        portable: The methods whose products other engines than ONNX Runtime have as well.
    """

    methods: tuple[str, ...]
    max_loss_rise: float
    portable: tuple[str, ...] = ()


PRECISIONS = {
    "fp16": Precision(("weight-only", "multiply"), 0.001, ("weight-only", "multiply")),
    "int8": Precision(("weight-only", "dynamic", "static"), 0.01, ("static",)),
    "int4": Precision(("weight-only",), 0.05),
}
"""The limits of int8 and fp16 are the design's; int4's is what a user should hear of."""

METHODS = tuple(dict.fromkeys(m for precision in PRECISIONS.values() for m in precision.methods))

_BLOCK = 32
_INT8_ACCURACY = 4
"""Of onnxruntime's 8-bit product, only the form that multiplies in int8 is fast on a CPU."""


def chosen_method(precision: str, method: str | None, recurrence: bool) -> str:
    """The method to use.

    Raises:
        UsageError: There is no such precision, or it cannot be had that way.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)} (a bundle is "
            "exported in fp32)"
        )
    methods = PRECISIONS[precision].methods
    method = methods[0] if method is None else method
    if method not in methods:
        raise UsageError(
            f"{precision} cannot be had by the method {method!r}; choose {' or '.join(methods)}"
        )
    if method == "static" and recurrence:
        raise UsageError(
            "static int8 cannot lower the recurrence, whose ranges inside the Scan cannot be "
            "calibrated; leave out --recurrence, or choose the method weight-only"
        )
    return method


def convert(
    model: onnx.ModelProto,
    precision: str,
    method: str,
    recurrence: bool,
    calibration: npt.NDArray[np.int64],
    state: Sequence[StateTensor],
    tolerance: float,
) -> onnx.ModelProto:
    """Lower a step graph or a prefill graph.

    Args:
        model: The graph in float32; it is not changed.
        precision: One of :data:`PRECISIONS`.
        method: One of its methods.
        recurrence: Lower the reservoir's recurrence too.
        calibration: Tokens ``[1, T]`` for the ranges of static quantisation, and to choose on.
        state: The state table.
        tolerance: Largest |difference| of a logit or a state value, for fp16.

    Returns:
        The lowered graph, without metadata properties; its inputs and outputs are the same.
    """
    if precision == "fp16":
        form = fp16_products if method == "multiply" else fp16_weights
        lowered = as_many_as_hold(
            model,
            lambda graph, only: form(graph, recurrence, only),
            tolerance,
            recurrence,
            calibration,
            state,
        )
    elif precision == "int4":
        lowered = block_weights(model, 4, _BLOCK, recurrence)
    elif method == "weight-only":
        lowered = block_weights(model, 8, _BLOCK, recurrence, _INT8_ACCURACY)
    elif method == "dynamic":
        lowered = dynamic_int8(model, recurrence)
    else:
        ranges = largest_values(model, product_inputs(model), calibration, state)
        lowered = static_int8(model, ranges)
    return _tidied(lowered, model)


def _tidied(lowered: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what a quantiser leaves of its own: its name, and shapes that it inferred."""
    lowered.producer_name, lowered.producer_version = model.producer_name, model.producer_version
    lowered.ir_version, lowered.domain = model.ir_version, model.domain
    lowered.graph.name, lowered.doc_string = model.graph.name, model.doc_string
    del lowered.metadata_props[:]
    del lowered.graph.metadata_props[:]
    del lowered.graph.value_info[:]
    used = {node.domain for node in _nodes(lowered.graph)}
    domains = [copy.deepcopy(d) for d in lowered.opset_import if d.domain in used | {""}]
    del lowered.opset_import[:]
    lowered.opset_import.extend(sorted(domains, key=lambda entry: entry.domain))
    onnx.checker.check_model(lowered, full_check=True)
    return lowered


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                nodes += _nodes(attribute.g)
    return nodes
