"""A faster memory lookup for ONNX Runtime only: one scatter with addition."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...runtime.errors import ParityError
from .unread import drop_unread

__all__ = ["read_by_scatter"]

_GROUP = "memory/followed/"
"""Prefix of the nodes that sum weights by token; see :class:`.decode_memory.WeightsByToken`."""


def read_by_scatter(decode: onnx.ModelProto) -> onnx.ModelProto:
    """Sum the memory's weights by token with one scatter instead of one-hot products.

    The sums are the same, and each entry costs one addition instead of V. TensorRT's parser
    rejects a scatter that adds, so ``decode.onnx`` keeps the portable form by default.

    Args:
        decode: The step graph, in any precision that leaves the memory in float32.

    Returns:
        A rewritten copy; an unchanged copy if there is no memory or it is already read this way.

    Raises:
        ParityError: The nodes that read the memory have an unknown form.
    """
    model = copy.deepcopy(decode)
    graph = model.graph
    group = [node for node in graph.node if node.name.startswith(_GROUP)]
    if not group or any(node.op_type == "ScatterElements" for node in group):
        return model
    weights, tokens, sums = _ends(graph, group)
    start, base, total = _start(graph, sums)
    flat = _flat(graph, weights)
    scatter = helper.make_node(
        "ScatterElements", [base, tokens, flat.output[0]], [total], axis=1, reduction="add"
    )
    nodes = [*start, flat, scatter]
    for node in nodes:
        node.name = _GROUP + node.op_type
    inside = {name for node in group for name in node.output} | {total}
    last = max(place for place, node in enumerate(graph.node) if node.output[0] in inside)
    kept = [node for node in graph.node[:last] if node.output[0] not in inside]
    rest = list(graph.node[last + 1 :])
    del graph.node[:]
    graph.node.extend([*kept, *nodes, *rest])
    drop_unread(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _start(graph: onnx.GraphProto, sums: str) -> tuple[list[onnx.NodeProto], str, str]:
    """What the weights are added to ``[B, V]``, the nodes that make it, and the result's name."""
    readers = [node for node in graph.node if sums in node.input]
    if [node.op_type for node in readers] == ["Add"]:
        (base,) = (name for name in readers[0].input if name != sums)
        return [], base, readers[0].output[0]
    # Zeros of the batch's size: `learn [B]` times zeros.
    vocab_size = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    zeros = _constant(graph, "zeros", np.zeros((1, vocab_size), np.float32))
    learn, none = _GROUP + "learn", _GROUP + "none"
    rows = helper.make_node("Unsqueeze", ["learn", _constant(graph, "rows", [1])], [learn])
    return [rows, helper.make_node("Mul", [learn, zeros], [none])], none, sums


def _flat(graph: onnx.GraphProto, weights: str) -> onnx.NodeProto:
    """The node that drops the second axis of the weights ``[B, 1, M]``."""
    flat = _GROUP + "weights"
    for node in graph.node:
        if node.op_type == "Reshape" and node.output[0] == weights:
            # It only adds that axis, and nothing else reads the result.
            graph.node.remove(node)
            return helper.make_node(
                "Reshape", [node.input[0], _constant(graph, "shape", [0, -1])], [flat]
            )
    return helper.make_node("Squeeze", [weights, _constant(graph, "axis", [1])], [flat])


def _constant(graph: onnx.GraphProto, name: str, value: npt.ArrayLike) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), _GROUP + name))
    return _GROUP + name


def _ends(graph: onnx.GraphProto, group: list[onnx.NodeProto]) -> tuple[str, str, str]:
    """Names of the group's inputs, weights ``[B, 1, M]`` and tokens ``[B, M]``, and its output."""
    constants = {tensor.name for tensor in graph.initializer}
    inside = {name for node in group for name in node.output}
    read = {name for node in group for name in node.input} - inside - constants
    used = {
        name for node in graph.node if node not in group for name in node.input if name in inside
    }
    tokens = {
        name
        for node in group
        if node.op_type == "Gather"
        for name in node.input[1:]
        if name in read and name.startswith(("present.memory_tokens", "memory/"))
    }
    weights = read - tokens
    if len(tokens) != 1 or len(weights) != 1 or len(used) != 1:
        raise ParityError(
            f"the nodes that read the memory have inputs {sorted(read)} and outputs "
            f"{sorted(used)}, a form that cannot be rewritten; install the versions of "
            "constraints.txt"
        )
    return weights.pop(), tokens.pop(), used.pop()
