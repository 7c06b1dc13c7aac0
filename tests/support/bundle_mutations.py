"""Ways to corrupt a bundle and its graphs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from rillet.runtime.bundle import BUNDLE_FILE, checksum
from rillet.runtime.files import sha256_file

from .mutations import corrupt_bytes, corrupt_json

__all__ = ["corrupt_bundle", "sign"]


def corrupt_graph(content: bytes, rng: random.Random) -> bytes:
    """Change part of an ONNX graph so that it can still be parsed."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    change = rng.choice(_GRAPH_CHANGES)
    change(model, graph, rng)
    corrupted: bytes = model.SerializeToString()
    return corrupted


def _change_weights(model: Any, graph: Any, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    value = numpy_helper.to_array(tensor).copy()
    if value.dtype.kind == "f" and value.size:
        value.flat[rng.randrange(value.size)] = rng.choice([np.nan, np.inf, 1e38, -1e38])
    elif value.size:
        value = value + rng.choice([-(10**9), -1, 1, 10**9, 2**40])
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _change_shape(model: Any, graph: Any, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    tensor.dims[:] = [rng.choice([0, -1, 1, 2**31, 2**62]) for _ in tensor.dims] or [5]


def _change_type(model: Any, graph: Any, rng: random.Random) -> None:
    if rng.random() < 0.5:
        rng.choice(graph.initializer).data_type = rng.randrange(30)
    else:
        entry = rng.choice([*graph.input, *graph.output])
        entry.type.tensor_type.elem_type = rng.randrange(30)


def _externalise(model: Any, graph: Any, rng: random.Random) -> None:
    """Move weights to an external file."""
    tensor = rng.choice(graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    where = rng.choice(["/etc/passwd", "../../../../etc/passwd", "bundle.json", "", "/dev/zero"])
    for key, value in (("location", where), ("offset", "0"), ("length", "1000000")):
        tensor.external_data.add(key=key, value=value)


def _change_node(model: Any, graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    kind = rng.randrange(6)
    if kind == 0:
        node.op_type = rng.choice(["If", "Loop", "Custom", "Identity", "Exp", "NonZero", ""])
    elif kind == 1:
        node.domain = rng.choice(["com.microsoft", "evil", "ai.onnx.ml"])
    elif kind == 2 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(
            ["", "missing", node.output[0], rng.choice(graph.node).output[0]]
        )
    elif kind == 3:
        graph.node.remove(node)
    elif kind == 4 and node.attribute:
        node.attribute[rng.randrange(len(node.attribute))].i = rng.choice([-99, 0, 7, 2**62])
    else:
        graph.node.add().CopyFrom(node)


def _change_interface(model: Any, graph: Any, rng: random.Random) -> None:
    entry = rng.choice([*graph.input, *graph.output])
    kind = rng.randrange(3)
    if kind == 0:
        entry.name = rng.choice(["", "past.more", "logits", "input_ids", "é"])
    elif kind == 1:
        for size in entry.type.tensor_type.shape.dim:
            size.dim_value = rng.choice([0, 1, 3, -1, 2**40])
    elif entry in graph.input and entry in graph.output:
        (graph.input if rng.random() < 0.5 else graph.output).remove(entry)
    else:
        entry.type.Clear()


def _change_header(model: Any, graph: Any, rng: random.Random) -> None:
    kind = rng.randrange(3)
    if kind == 0:
        model.ir_version = rng.choice([0, 1, 99, 2**40])
    elif kind == 1:
        model.opset_import[0].version = rng.choice([0, 1, 9, 99, -1])
    else:
        for entry in model.metadata_props:
            if entry.key == "rillet.state":
                entry.value = rng.choice(["", "[]", "[" * 5000, '[{"name": 3}]'])


_GRAPH_CHANGES: list[Callable[[Any, Any, random.Random], None]] = [
    _change_weights,
    _change_shape,
    _change_type,
    _externalise,
    _change_node,
    _change_interface,
    _change_header,
]


def corrupt_bundle(folder: Path, rng: random.Random) -> str:
    """Corrupt one file of a bundle, and usually fix the hashes.

    Returns:
        A description of the change.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    name = rng.choice(names)
    path = folder / name
    signed = rng.random() < 0.9
    if rng.random() < 0.12:
        return _move(folder, path, rng)
    content = path.read_bytes()
    if name.endswith(".onnx") and rng.random() < 0.7:
        how, corrupted = "graph", corrupt_graph(content, rng)
    elif name.endswith(".json") and rng.random() < 0.8:
        how = "json"
        value = corrupt_json(json.loads(content), rng)
        try:
            corrupted = json.dumps(value).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            corrupted = b"[" * 100_000
    else:
        how, corrupted = "bytes", corrupt_bytes(content, rng)
    path.write_bytes(corrupted)
    if signed:
        sign(folder)
    return f"{name}: {how}{', signed' if signed else ''}"


def _move(folder: Path, path: Path, rng: random.Random) -> str:
    """Swap two files, or move one outside the bundle, where it must not be read."""
    outside = folder.parents[1] / "outside"
    outside.mkdir(exist_ok=True)
    kind = rng.randrange(3)
    if kind == 0 or path.name == BUNDLE_FILE:
        other = rng.choice(sorted(folder.iterdir()))
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        sign(folder)
        return f"{path.name} and {other.name} swapped"
    moved = outside / path.name
    moved.write_bytes(path.read_bytes())
    path.unlink()
    if kind == 1:
        path.symlink_to(rng.choice([moved, Path("..", "..", "outside", path.name)]))
        return f"{path.name}: a link"
    name = rng.choice([str(moved), f"../../outside/{path.name}", f"..\\..\\outside\\{path.name}"])
    file = folder / BUNDLE_FILE
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for entry in manifest["graphs"].values():
        if entry["file"] == path.name:
            entry["file"] = name
    manifest["files"] = {
        name if file_name == path.name else file_name: digest
        for file_name, digest in manifest["files"].items()
    }
    manifest["checksum"] = checksum(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return f"{path.name}: named {name}"


def sign(folder: Path) -> None:
    """Fix hashes and checksum, if the manifest can still be read."""
    file = folder / BUNDLE_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8", errors="surrogatepass"))
        for entry in manifest["graphs"].values():
            entry["sha256"] = sha256_file(folder / entry["file"])
        manifest["files"] = {name: sha256_file(folder / name) for name in manifest["files"]}
    except Exception:  # the manifest is beyond repair and stays unsigned
        return
    manifest["checksum"] = checksum(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8", errors="surrogatepass")
