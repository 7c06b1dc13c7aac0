"""A faster memory lookup for ONNX Runtime only: one scatter with addition."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...runtime.errors import ParityError

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
    vocab_size = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    constants = {"rows": np.asarray([1])}
    names = {name: _GROUP + name for name in ("rows", "zeros", "learn", "none", "weights")}
    nodes = []
    total = _total(graph, sums)
    if total is None:
        constants["zeros"] = np.zeros((1, vocab_size), np.float32)
        base, result, last = names["none"], sums, group[-1]
        # Zeros of the batch's size: `learn [B]` times zeros.
        nodes = [
            helper.make_node("Unsqueeze", ["learn", names["rows"]], [names["learn"]]),
            helper.make_node("Mul", [names["learn"], names["zeros"]], [names["none"]]),
        ]
    else:
        base = next(name for name in total.input if name != sums)
        result, last = total.output[0], total
        group.append(total)
    nodes += [
        helper.make_node("Squeeze", [weights, names["rows"]], [names["weights"]]),
        helper.make_node(
            "ScatterElements",
            [base, tokens, names["weights"]],
            [result],
            axis=1,
            reduction="add",
        ),
    ]
    for node in nodes:
        node.name = _GROUP + node.op_type
    at = next(place for place, node in enumerate(graph.node) if node.name == last.name)
    kept = [node for node in graph.node[:at] if node not in group]
    rest = list(graph.node[at + 1 :])
    del graph.node[:]
    graph.node.extend([*kept, *nodes, *rest])
    _drop_unused(graph)
    graph.initializer.extend(
        numpy_helper.from_array(value, names[name]) for name, value in constants.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _total(graph: onnx.GraphProto, sums: str) -> onnx.NodeProto | None:
    """The sum ``[B, V]`` that the memory's part is only a summand of, which can be scattered to."""
    readers = [node for node in graph.node if sums in node.input]
    return readers[0] if [node.op_type for node in readers] == ["Add"] else None


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


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop constants that nothing reads, and shape entries of values that no longer exist."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    written = {name for node in graph.node for name in node.output}
    known = [entry for entry in graph.value_info if entry.name in written]
    del graph.value_info[:]
    graph.value_info.extend(known)
