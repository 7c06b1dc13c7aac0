"""What in a bundle's graphs is not as the checkpoint gives it."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from ...runtime.bundle import Bundle
from ...train.model.dual_cnn import DualCNN
from ..graphs.build import decode_graph, prefill_graph

__all__ = ["culprits", "graph_differences"]

_MOST = 5


def culprits(model: DualCNN, bundle: Bundle) -> list[str]:
    """Export the model again, and name what differs in the bundle's graphs.

    Args:
        model: The trained model.
        bundle: A bundle in float32.

    Returns:
        A phrase for each difference, a few at most; empty where there is none.
    """
    entries = bundle.manifest["graphs"]
    found = []
    for kind, build in (("decode", decode_graph), ("prefill", prefill_graph)):
        graph = onnx.load(str(bundle.graph(kind)))
        opset = next(entry.version for entry in graph.opset_import if not entry.domain)
        if kind == "prefill" and entries[kind].get("logits") == "last":
            wanted = prefill_graph(model, opset, last_logits=True)
        else:
            wanted = build(model, opset)
        found += [f"{kind}: {what}" for what in graph_differences(wanted.graph, graph.graph)]
    return found[:_MOST]


def graph_differences(wanted: onnx.GraphProto, found: onnx.GraphProto) -> list[str]:
    """Tensors, outputs and nodes in which two graphs differ."""
    differences = []
    theirs = {tensor.name: tensor for tensor in found.initializer}
    for tensor in wanted.initializer:
        other = theirs.get(tensor.name)
        if other is None:
            differences.append(f"the tensor {tensor.name} is missing")
            continue
        a, b = numpy_helper.to_array(tensor), numpy_helper.to_array(other)
        if a.shape != b.shape or not (a == b).all():
            count = int((a != b).sum()) if a.shape == b.shape else max(a.size, b.size)
            differences.append(f"the tensor {tensor.name} has {count} other values")
    for kind in ("input", "output"):
        names = [entry.name for entry in getattr(wanted, kind)]
        others = [entry.name for entry in getattr(found, kind)]
        if names != others:
            apart = sorted(set(names) ^ set(others)) or ["in another order"]
            differences.append(f"its {kind}s differ: {', '.join(apart)}")
    nodes = {node.name: node for node in found.node}
    for node in wanted.node:
        other_node = nodes.get(node.name)
        if other_node is None:
            differences.append(f"the node {node.name} is missing")
        elif other_node.SerializeToString(deterministic=True) != node.SerializeToString(
            deterministic=True
        ):
            differences.append(f"the node {node.name} was changed")
    return differences
