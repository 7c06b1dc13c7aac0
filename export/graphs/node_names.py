"""Names for nodes and tensors that follow the module tree, so that a graph viewer is readable."""

from __future__ import annotations

import ast

import onnx

__all__ = ["name_after_modules"]

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(graph: onnx.GraphProto) -> None:
    """Name each node after its module, and each tensor after its node.

    The first ``MatMul`` of the module ``wave_cnn.blocks.0`` becomes ``wave_cnn/blocks/0/MatMul``,
    the second ``wave_cnn/blocks/0/MatMul_1``. Inputs and outputs of the graph and trained tensors
    keep their names. A node that the exporter folded or split off on its own belongs to the module
    that reads its output, or else to the module that writes its input.

    Args:
        graph: A graph as the exporter wrote it, metadata included; modified in place.
    """
    kept = {entry.name for entry in (*graph.input, *graph.output)}
    _rename(graph, "", kept, {}, {})


def _rename(
    graph: onnx.GraphProto,
    prefix: str,
    kept: set[str],
    outer: dict[str, str],
    counts: dict[str, int],
) -> None:
    scopes = _scopes(graph)
    names = dict(outer)
    for entry in graph.input:
        if entry.name not in kept:
            names[entry.name] = _count(f"{prefix}{_plain(entry.name)}", counts)
    users: dict[str, set[str]] = {}
    for node, scope in zip(graph.node, scopes, strict=True):
        for name in node.input:
            users.setdefault(name, set()).add(scope)
    for tensor in graph.initializer:
        own = "." in tensor.name
        using = users.get(tensor.name, set())
        scope = next(iter(using)) if len(using) == 1 else ""
        new = tensor.name.replace(".inner.", ".") if own else f"{prefix}{_join(scope, 'constant')}"
        names[tensor.name] = _count(new, counts)
    for node, scope in zip(graph.node, scopes, strict=True):
        node.name = _count(f"{prefix}{_join(scope, node.op_type)}", counts)
        for place, name in enumerate(node.output):
            if name and name not in kept:
                names[name] = node.name if place == 0 else f"{node.name}:{place}"
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, f"{node.name}/", set(), names, counts)
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.name = names.get(entry.name, entry.name)


def _scopes(graph: onnx.GraphProto) -> list[str]:
    """The module that each node belongs to, as a path with ``/``."""
    scopes: list[str | None] = [_scope(node) for node in graph.node]
    writer = {name: place for place, node in enumerate(graph.node) for name in node.output}
    readers: dict[int, list[int]] = {}
    for place, node in enumerate(graph.node):
        for name in node.input:
            if name in writer:
                readers.setdefault(writer[name], []).append(place)
    # A node without a module takes its reader's module, or else its writer's.
    for place in reversed(range(len(scopes))):
        if scopes[place] is None:
            candidates = (scopes[reader] for reader in readers.get(place, []))
            scopes[place] = next((scope for scope in candidates if scope), None)
    for place, node in enumerate(graph.node):
        if scopes[place] is None:
            candidates = (scopes[writer[name]] for name in node.input if name in writer)
            scopes[place] = next((scope for scope in candidates if scope), "")
    return [scope or "" for scope in scopes]


def _scope(node: onnx.NodeProto) -> str | None:
    """The module path that the exporter recorded, or ``None``."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            parts = ast.literal_eval(entry.value)
            if len(parts) < 2 or parts[0] != "":
                return None
            path = [part for part in parts[-2].split(".") if part != "inner"]
            return "/".join(path)
    return None


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _join(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


def _count(name: str, counts: dict[str, int]) -> str:
    """Number a name that was used before."""
    number = counts.get(name, 0)
    counts[name] = number + 1
    return f"{name}_{number}" if number else name
