"""What the exporter notes about where a node comes from, which a device has no use for."""

from __future__ import annotations

import onnx

__all__ = ["strip_traces"]


def strip_traces(graph: onnx.ModelProto) -> None:
    """Remove stack traces and source paths, in place: they are large, and differ between machines.

    Args:
        graph: A graph as the exporter wrote it.
    """
    del graph.metadata_props[:]
    graph.producer_version = ""
    stack = [graph.graph, *graph.functions]
    while stack:
        part = stack.pop()
        del part.metadata_props[:]
        part.doc_string = ""
        for value in part.value_info:
            del value.metadata_props[:]
        if isinstance(part, onnx.GraphProto):
            for value in (*part.input, *part.output, *part.initializer):
                del value.metadata_props[:]
                value.doc_string = ""
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
            stack.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))
