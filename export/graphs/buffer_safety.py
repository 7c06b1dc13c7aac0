"""Proof that a graph may write its present state over its past state."""

from __future__ import annotations

import onnx

__all__ = ["unsafe_state"]

_ALIASES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Operators whose output an engine may leave in the buffer of their input."""


def unsafe_state(graph: onnx.GraphProto) -> list[str]:
    """State tensors whose past may still be read after their present is written.

    A reader of ``past.x`` is safe when it is the node that writes ``present.x``, or one
    of the nodes that this node waits for.

    Args:
        graph: The graph.

    Returns:
        Names of the tensors that are not safe, each with the reader.
    """
    writer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    waits: list[set[int]] = []  # what each node waits for, itself included
    for index, node in enumerate(graph.node):
        before = {index}
        for name in _read_names(node):
            if name in writer:
                before |= waits[writer[name]]
        waits.append(before)
    unsafe = []
    for output in graph.output:
        name = output.name.removeprefix("present.")
        if name == output.name or output.name not in writer:
            continue
        done_before = waits[writer[output.name]]
        same = {f"past.{name}"}  # what may stand in the very buffer of the past
        for index, node in enumerate(graph.node):
            if node.op_type == "Shape":
                continue  # reads no values
            if not same & _read_names(node):
                continue
            if node.op_type in _ALIASES and node.input[0] in same:
                same |= set(node.output)  # whoever reads that reads the past
                if node.op_type != "Identity":  # which may be what copies it out
                    continue
            if index not in done_before:
                unsafe.append(f"{name} (read by {node.name or node.op_type})")
    return unsafe


def _read_names(node: onnx.NodeProto) -> set[str]:
    """Everything that a node reads, from inside its body graphs as well."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _read_names(inner)
    return names
