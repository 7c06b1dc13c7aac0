"""Ranges of a graph's inner tensors on a text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from ..runtime.contract import StateTensor

__all__ = ["largest_values"]

_CHUNK = 64


def largest_values(
    model: onnx.ModelProto,
    names: Sequence[str],
    tokens: npt.NDArray[np.int64],
    state: Sequence[StateTensor],
) -> dict[str, float]:
    """Largest |value| of some tensors while a graph in float32 reads a stream.

    Args:
        model: A step graph or a prefill graph; it is not changed.
        names: Inner tensors, or inputs of the graph.
        tokens: The stream, ``[1, T]``.
        state: The state table.

    Returns:
        The ranges by name.
    """
    import onnxruntime as ort

    watched = copy.deepcopy(model)
    outputs = {entry.name for entry in watched.graph.output}
    inputs = {entry.name for entry in watched.graph.input}
    for name in names:
        if name not in outputs and name not in inputs:
            watched.graph.output.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session: Any = ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    shape = next(e for e in watched.graph.input if e.name == "input_ids").type.tensor_type.shape
    length = _CHUNK if shape.dim[1].dim_param else 1
    fetched = [name for name in names if name not in inputs]
    feeds: dict[str, Any] = {row.past: row.zeros(1) for row in state}
    largest = dict.fromkeys(names, 0.0)
    for start in range(0, tokens.shape[1], length):
        feeds["input_ids"] = tokens[:, start : start + length]
        feeds["learn"] = np.ones(1, np.float32)
        found = session.run([*(row.present for row in state), *fetched], feeds)
        seen = {**feeds, **dict(zip(fetched, found[len(state) :], strict=True))}
        for name in names:
            largest[name] = max(largest[name], float(np.abs(seen[name]).max()))
        feeds |= {row.past: value for row, value in zip(state, found, strict=False)}
    return largest
