"""Static proof that a graph may write its present state over its past state."""

from __future__ import annotations

import onnx

__all__ = ["unsafe_state"]

_ALIASES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Operators whose output may alias their input's buffer."""


def unsafe_state(graph: onnx.GraphProto) -> list[str]:
    """List the state tensors whose past may be read after their present is written.

    A reader of ``past.x`` is safe if it is the node that writes ``present.x``, or if that node
    depends on it.

    Args:
        graph: The graph to check.

    Returns:
        The unsafe tensors, each with the node that reads it too late.
    """
    writer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    dependencies: list[set[int]] = []  # of each node, itself included
    for index, node in enumerate(graph.node):
        needed = {index}
        for name in _read_names(node):
            if name in writer:
                needed |= dependencies[writer[name]]
        dependencies.append(needed)
    unsafe = []
    for output in graph.output:
        name = output.name.removeprefix("present.")
        if name == output.name or output.name not in writer:
            continue
        done_before = dependencies[writer[output.name]]
        aliases = {f"past.{name}"}  # tensors that may occupy the buffer of the past
        for index, node in enumerate(graph.node):
            if node.op_type == "Shape":
                continue  # reads no values
            if not aliases & _read_names(node):
                continue
            if node.op_type in _ALIASES and node.input[0] in aliases:
                aliases |= set(node.output)
                if node.op_type != "Identity":  # an Identity may be the copy that reads the past
                    continue
            if index not in done_before:
                unsafe.append(f"{name} (read by {node.name or node.op_type})")
    return unsafe


def _read_names(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those read by its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _read_names(inner)
    return names
