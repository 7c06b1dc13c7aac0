"""The precisions that a graph can be lowered to, and the methods for each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.errors import UsageError
from ...runtime.state_table import StateTensor
from .block_weights import to_block_weights
from .calibration import largest_values
from .dynamic_int8 import to_dynamic_int8
from .fp16 import fp16_matmuls, fp16_weights
from .fp16_choice import lower_within
from .matmuls import walk
from .static_int8 import matmul_inputs, to_static_int8

__all__ = ["METHODS", "PRECISIONS", "Precision", "check_native", "chosen_method", "convert"]


@dataclass(frozen=True)
class Precision:
    """A lower precision.

    Attributes:
        methods: Conversion methods; the first is the default.
        max_loss_rise: Default limit of the loss increase, in nats per token.
        portable: Methods whose graphs also run on engines other than ONNX Runtime.
    """

    methods: tuple[str, ...]
    max_loss_rise: float
    portable: tuple[str, ...] = ()


PRECISIONS = {
    "fp16": Precision(("weight-only", "multiply"), 0.001, ("weight-only", "multiply")),
    "int8": Precision(("weight-only", "dynamic", "static"), 0.01, ("static",)),
    "int4": Precision(("weight-only",), 0.05),
}
"""The limits of fp16 and int8 are part of the design; int4's marks a loss worth knowing about."""

METHODS = tuple(dict.fromkeys(m for precision in PRECISIONS.values() for m in precision.methods))

_NATIVE = ("int8", "weight-only")
"""The precision and method of the native engine's own."""

_BLOCK = 32
_INT8_ACCURACY = 4
"""``accuracy_level`` of 8-bit products; on a CPU, only the one that multiplies in int8 is fast."""


def chosen_method(precision: str, method: str | None, recurrence: bool) -> str:
    """The method to use: the requested one, or the precision's default.

    Raises:
        UsageError: The precision or the method does not exist, or they do not go together.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)} (a bundle is "
            "exported in fp32)"
        )
    methods = PRECISIONS[precision].methods
    method = methods[0] if method is None else method
    if method not in methods:
        raise UsageError(f"{precision} has no method {method!r}; choose {' or '.join(methods)}")
    if method == "static" and recurrence:
        raise UsageError(
            "static int8 cannot lower the recurrence, because ranges inside the Scan cannot be "
            "calibrated; leave out --recurrence, or choose the method weight-only"
        )
    return method


def check_native(has_graphs: bool, precision: str, method: str, recurrence: bool = False) -> None:
    """Check that a bundle can have a precision: without graphs, it can have the native engine's.

    Raises:
        UsageError: Only graphs can hold it.
    """
    if not has_graphs and (precision, method) != _NATIVE:
        raise UsageError(
            f"the bundle is for the native engine alone, and {precision} ({method}) needs graphs; "
            "choose int8 (weight-only), or leave out --native-only"
        )
    if not has_graphs and recurrence:
        raise UsageError(
            "the bundle is for the native engine alone, which keeps the recurrence in float32; "
            "leave out --recurrence"
        )


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
        model: The graph in float32; not modified.
        precision: One of :data:`PRECISIONS`.
        method: One of the precision's methods.
        recurrence: Lower the reservoir's recurrence too.
        calibration: Tokens ``[1, T]`` that give static int8 its ranges and fp16 its choice.
        state: The state table.
        tolerance: For fp16: largest |difference| of a logit or a state value.

    Returns:
        The lowered graph with the same inputs and outputs, without metadata properties.
    """
    if precision == "fp16":
        form = fp16_matmuls if method == "multiply" else fp16_weights
        lowered = lower_within(
            model,
            tolerance,
            lambda graph, only: form(graph, recurrence, only),
            recurrence,
            calibration,
            state,
        )
    elif precision == "int4":
        lowered = to_block_weights(model, 4, _BLOCK, recurrence)
    elif method == "weight-only":
        lowered = to_block_weights(model, 8, _BLOCK, recurrence, _INT8_ACCURACY)
    elif method == "dynamic":
        lowered = to_dynamic_int8(model, recurrence)
    else:
        ranges = largest_values(model, matmul_inputs(model), calibration, state)
        lowered = to_static_int8(model, ranges)
    return _tidied(lowered, model)


def _tidied(lowered: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the traces of a quantiser: its name, and the shapes that it inferred."""
    lowered.producer_name, lowered.producer_version = model.producer_name, model.producer_version
    lowered.ir_version, lowered.domain = model.ir_version, model.domain
    lowered.graph.name, lowered.doc_string = model.graph.name, model.doc_string
    del lowered.metadata_props[:]
    del lowered.graph.metadata_props[:]
    del lowered.graph.value_info[:]
    used = {node.domain for graph, _ in walk(lowered.graph) for node in graph.node}
    domains = [copy.deepcopy(d) for d in lowered.opset_import if d.domain in used | {""}]
    del lowered.opset_import[:]
    lowered.opset_import.extend(sorted(domains, key=lambda entry: entry.domain))
    onnx.checker.check_model(lowered, full_check=True)
    return lowered
