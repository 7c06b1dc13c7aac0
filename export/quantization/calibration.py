"""Ranges of a graph's inner tensors on a text."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from ...runtime.state_table import StateTensor
from .graph_runner import stream_graph

__all__ = ["largest_values"]

_CHUNK = 64


def largest_values(
    model: onnx.ModelProto,
    names: Sequence[str],
    tokens: npt.NDArray[np.int64],
    state: Sequence[StateTensor],
) -> dict[str, float]:
    """Measure the largest |value| of some tensors while a graph reads a stream.

    Args:
        model: A step graph or a prefill graph in float32; not modified.
        names: Inner tensors, or inputs of the graph.
        tokens: The stream, ``[1, T]``.
        state: The state table.

    Returns:
        The largest |value| of each tensor by name.
    """
    watched = copy.deepcopy(model)
    outputs = {entry.name for entry in watched.graph.output}
    inputs = {entry.name for entry in watched.graph.input}
    for name in names:
        if name not in outputs and name not in inputs:
            watched.graph.output.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            )
    fetched = [name for name in names if name not in inputs]
    largest = dict.fromkeys(names, 0.0)
    for _, values in stream_graph(watched, tokens, state, _CHUNK, fetched):
        for name in names:
            largest[name] = max(largest[name], float(np.abs(values[name]).max()))
    return largest
