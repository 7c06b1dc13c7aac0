"""Graphs of a few nodes, for timing a part of the decode step alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rillet.runtime.engines.ort.providers import create_session

from .arrays import Array
from .stepping import bind

__all__ = ["GraphPart", "node"]

_CALLS = 100
"""Calls per burst."""


class GraphPart:
    """A burst that calls a graph of a few nodes with the same inputs.

    Args:
        nodes: Nodes whose output is ``y``.
        constants: Initializers by name.
        inputs: Inputs by name.
        expected: The exact output, in float64.
        shared: The name of the input whose buffer is also the output's.

    Attributes:
        difference: The largest difference from the expected output.
    """

    def __init__(
        self,
        nodes: list[onnx.NodeProto],
        constants: dict[str, Array],
        inputs: dict[str, Array],
        expected: Array,
        shared: str | None = None,
    ) -> None:
        graph = helper.make_graph(
            nodes,
            "part",
            [_value_info(name, value) for name, value in inputs.items()],
            [_value_info("y", expected.astype(np.float32))],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        self.session = create_session(model.SerializeToString(), "cpu", 1)
        self.inputs = {name: value.copy() for name, value in inputs.items()}
        self.output = self.inputs[shared] if shared else np.zeros(expected.shape, np.float32)
        self.binding = bind(self.session, self.inputs, {"y": self.output})
        self.session.run_with_iobinding(self.binding)
        self.difference = float(np.abs(self.output - expected).max())

    def __call__(self) -> int:
        """Make the calls of a burst; returns their number."""
        for _ in range(_CALLS):
            self.session.run_with_iobinding(self.binding)
        return _CALLS


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node with space-separated inputs and one output."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def _value_info(name: str, value: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)
