"""Differences between a bundle's graphs and a fresh export of its checkpoint."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from ...runtime.bundle import Bundle
from ...train.model.dual_cnn import DualCNN
from ..graphs.build import decode_graph, prefill_graph

__all__ = ["bundle_differences", "graph_differences"]

_MOST = 5


def bundle_differences(model: DualCNN, bundle: Bundle) -> list[str]:
    """Export the model again and list what differs in the bundle's graphs.

    Args:
        model: The trained model.
        bundle: A bundle in float32.

    Returns:
        A phrase for each difference, at most five.
    """
    differences = []
    builders = (("decode", decode_graph), ("prefill", prefill_graph))
    for kind, build in builders if bundle.has_graphs else ():
        actual = onnx.load(str(bundle.graph(kind)))
        opset = next(entry.version for entry in actual.opset_import if not entry.domain)
        if kind == "prefill" and bundle.last_logits:
            expected = prefill_graph(model, opset, last_logits=True)
        else:
            expected = build(model, opset)
        found = graph_differences(expected.graph, actual.graph)
        differences += [f"{kind}: {difference}" for difference in found]
    return differences[:_MOST]


def graph_differences(expected: onnx.GraphProto, actual: onnx.GraphProto) -> list[str]:
    """List the tensors, inputs, outputs and nodes in which two graphs differ."""
    differences = []
    tensors = {tensor.name: tensor for tensor in actual.initializer}
    for tensor in expected.initializer:
        other = tensors.get(tensor.name)
        if other is None:
            differences.append(f"the tensor {tensor.name} is missing")
            continue
        a, b = numpy_helper.to_array(tensor), numpy_helper.to_array(other)
        if a.shape != b.shape or not (a == b).all():
            count = int((a != b).sum()) if a.shape == b.shape else max(a.size, b.size)
            differences.append(f"the tensor {tensor.name} differs in {count} values")
    for kind, ours, theirs in (
        ("inputs", expected.input, actual.input),
        ("outputs", expected.output, actual.output),
    ):
        names, others = [entry.name for entry in ours], [entry.name for entry in theirs]
        if names != others:
            differing = sorted(set(names) ^ set(others)) or ["in another order"]
            differences.append(f"its {kind} differ: {', '.join(differing)}")
    nodes = {node.name: node for node in actual.node}
    for node in expected.node:
        other_node = nodes.get(node.name)
        if other_node is None:
            differences.append(f"the node {node.name} is missing")
        elif other_node.SerializeToString(deterministic=True) != node.SerializeToString(
            deterministic=True
        ):
            differences.append(f"the node {node.name} was changed")
    return differences
