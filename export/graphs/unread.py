"""What nothing in a graph reads any more."""

from __future__ import annotations

import onnx

__all__ = ["drop_unread"]


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop nodes and constants that nothing reads, and the entries of values that are gone."""
    read = {entry.name for entry in graph.output}
    kept = []
    for node in reversed(graph.node):
        inner = {name for entry in node.attribute for part in entry.g.node for name in part.input}
        if any(name in read for name in node.output):
            kept.append(node)
            read |= {*node.input, *inner}
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    written = {name for node in graph.node for name in node.output}
    known = [entry for entry in graph.value_info if entry.name in written]
    del graph.value_info[:]
    graph.value_info.extend(known)
