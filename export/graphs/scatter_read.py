"""The memory read by a scatter with addition: for ONNX Runtime alone, and faster there."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...runtime.errors import ParityError

__all__ = ["scatter_read"]

_GROUP = "memory/followed/"
"""What the names of the nodes begin with that sum weights by the token that followed."""


def scatter_read(decode: onnx.ModelProto) -> onnx.ModelProto:
    """Sum the memory's weights by token with one scatter, not with products of one-hot rows.

    The sum is the same, and each entry costs one addition instead of V. TensorRT's parser
    refuses such a scatter, so that the portable form is the one that ``decode.onnx`` has unless
    it is asked for otherwise.

    Args:
        decode: The decoding graph, in any precision that leaves the memory in float32.

    Returns:
        A copy in the other form; a plain copy where there is no memory, or where it is read so
        already.

    Raises:
        ParityError: The read of the memory does not have the form that is known.
    """
    model = copy.deepcopy(decode)
    graph = model.graph
    group = [node for node in graph.node if node.name.startswith(_GROUP)]
    if not group or any(node.op_type == "ScatterElements" for node in group):
        return model
    weights, tokens, found = _ends(graph, group)
    vocab_size = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    constants = {
        "rows": np.asarray([1]),
        "zeros": np.zeros((1, vocab_size), np.float32),
    }
    names = {name: _GROUP + name for name in (*constants, "learn", "none", "weights")}
    nodes = [
        # Zeros of the batch's size: what the graph is told of learning, times zeros.
        helper.make_node("Unsqueeze", ["learn", names["rows"]], [names["learn"]]),
        helper.make_node("Mul", [names["learn"], names["zeros"]], [names["none"]]),
        helper.make_node("Squeeze", [weights, names["rows"]], [names["weights"]]),
        helper.make_node(
            "ScatterElements", [names["none"], tokens, names["weights"]], [found],
            axis=1, reduction="add",
        ),
    ]  # fmt: skip
    for node in nodes:
        node.name = _GROUP + node.op_type
    at = next(place for place, node in enumerate(graph.node) if node.name == group[-1].name)
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


def _ends(graph: onnx.GraphProto, group: list[onnx.NodeProto]) -> tuple[str, str, str]:
    """What the group reads, weights ``[B, 1, M]`` and tokens ``[B, M]``, and what it gives."""
    constants = {tensor.name for tensor in graph.initializer}
    inside = {name for node in group for name in node.output}
    read = {name for node in group for name in node.input} - inside - constants
    used = {
        name for node in graph.node if node not in group for name in node.input if name in inside
    }
    tokens = "present.memory_tokens"
    weights = read - {tokens}
    if tokens not in read or len(weights) != 1 or len(used) != 1:
        raise ParityError(
            f"the read of the memory has inputs {sorted(read)} and outputs {sorted(used)}, which "
            "is no form that can be rewritten"
        )
    return weights.pop(), tokens, used.pop()


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop the constants that nothing reads any more, and what is known of values that are gone."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    made = {name for node in graph.node for name in node.output}
    known = [entry for entry in graph.value_info if entry.name in made]
    del graph.value_info[:]
    graph.value_info.extend(known)
