"""Ways to spoil a file: what chance does to it, and what somebody does who knows its format."""

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

__all__ = ["spoil_bundle", "spoil_bytes", "spoil_json"]

EVIL: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**40, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "../../etc/passwd", "/etc/passwd", "C:\\x", "\0", "\ud800",
    "é" * 3000, [], [[]], [0] * 1000, {}, {"": {}}, {"a": [None]},
]  # fmt: skip
"""What a value may be exchanged for."""


def spoil_bytes(content: bytes, random: random.Random) -> bytes:
    """Turn bits over, cut, double or overwrite a part."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 8, 64])):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = random.choice([0, 0xFF, 0x7F, 0x80, random.randrange(256)])
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = random.randbytes(random.choice([1, 4, 300]))
        else:
            end = random.randrange(at, len(data) + 1)
            data[at:end] = bytes(end - at)
    return bytes(data)


def spoil_json(value: Any, random: random.Random) -> Any:
    """Exchange, drop, double or deepen something, anywhere in a JSON value."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys: Any = inner if isinstance(inner, dict) else range(len(inner))
        for key in list(keys):
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    walk(value)
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        inner, key = random.choice(places)
        if isinstance(inner, dict) and key not in inner:
            continue
        if isinstance(inner, list) and key >= len(inner):
            continue
        kind = random.randrange(8)
        if kind == 0:
            del inner[key]
        elif kind == 1 and isinstance(inner, dict):
            inner["more"] = random.choice(EVIL)
        elif kind == 2 and isinstance(inner, list):
            inner.append(inner[key])
        elif kind == 3:
            deep: Any = []
            for _ in range(random.choice([3, 5000])):
                deep = [deep]
            inner[key] = deep
        elif kind == 4 and isinstance(inner[key], int | float):
            inner[key] = inner[key] * random.choice([-1, 2, 1000, 10**9]) + random.choice([0, 1])
        else:
            inner[key] = random.choice(EVIL)
    return value


def spoil_graph(content: bytes, random: random.Random) -> bytes:
    """Change something in an ONNX graph so that it can still be read."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    kind = random.choice(_GRAPH_KINDS)
    kind(model, graph, random)
    return model.SerializeToString()


def _weights(model: Any, graph: Any, random: random.Random) -> None:
    tensor = random.choice(graph.initializer)
    value = numpy_helper.to_array(tensor).copy()
    if value.dtype.kind == "f" and value.size:
        value.flat[random.randrange(value.size)] = random.choice([np.nan, np.inf, 1e38, -1e38])
    elif value.size:
        value = value + random.choice([-(10**9), -1, 1, 10**9, 2**40])
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _sizes(model: Any, graph: Any, random: random.Random) -> None:
    tensor = random.choice(graph.initializer)
    tensor.dims[:] = [random.choice([0, -1, 1, 2**31, 2**62]) for _ in tensor.dims] or [5]


def _types(model: Any, graph: Any, random: random.Random) -> None:
    if random.random() < 0.5:
        random.choice(graph.initializer).data_type = random.randrange(30)
    else:
        entry = random.choice([*graph.input, *graph.output])
        entry.type.tensor_type.elem_type = random.randrange(30)


def _outside(model: Any, graph: Any, random: random.Random) -> None:
    """Weights that lie in another file."""
    tensor = random.choice(graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    where = random.choice(["/etc/passwd", "../../../../etc/passwd", "bundle.json", "", "/dev/zero"])
    for key, value in (("location", where), ("offset", "0"), ("length", "1000000")):
        tensor.external_data.add(key=key, value=value)


def _nodes(model: Any, graph: Any, random: random.Random) -> None:
    node = random.choice(graph.node)
    kind = random.randrange(6)
    if kind == 0:
        node.op_type = random.choice(["If", "Loop", "Custom", "Identity", "Exp", "NonZero", ""])
    elif kind == 1:
        node.domain = random.choice(["com.microsoft", "evil", "ai.onnx.ml"])
    elif kind == 2 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice(
            ["", "missing", node.output[0], random.choice(graph.node).output[0]]
        )
    elif kind == 3:
        graph.node.remove(node)
    elif kind == 4 and node.attribute:
        node.attribute[random.randrange(len(node.attribute))].i = random.choice([-99, 0, 7, 2**62])
    else:
        graph.node.add().CopyFrom(node)


def _ends(model: Any, graph: Any, random: random.Random) -> None:
    entry = random.choice([*graph.input, *graph.output])
    kind = random.randrange(3)
    if kind == 0:
        entry.name = random.choice(["", "past.more", "logits", "input_ids", "é"])
    elif kind == 1:
        for size in entry.type.tensor_type.shape.dim:
            size.dim_value = random.choice([0, 1, 3, -1, 2**40])
    else:
        (graph.input if random.random() < 0.5 else graph.output).remove(entry) if (
            entry in graph.input and entry in graph.output
        ) else entry.type.Clear()


def _header(model: Any, graph: Any, random: random.Random) -> None:
    kind = random.randrange(3)
    if kind == 0:
        model.ir_version = random.choice([0, 1, 99, 2**40])
    elif kind == 1:
        model.opset_import[0].version = random.choice([0, 1, 9, 99, -1])
    else:
        for entry in model.metadata_props:
            if entry.key == "rillet.state":
                entry.value = random.choice(["", "[]", "[" * 5000, '[{"name": 3}]'])


_GRAPH_KINDS: list[Callable[[Any, Any, random.Random], None]] = [
    _weights, _sizes, _types, _outside, _nodes, _ends, _header,
]  # fmt: skip


def spoil_bundle(folder: Path, random: random.Random) -> str:
    """Spoil one file of a bundle, and mostly put the hashes right again.

    Returns:
        What was done, for a failure's message.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    name = random.choice(names)
    path = folder / name
    signed = random.random() < 0.9
    content = path.read_bytes()
    if name.endswith(".onnx") and random.random() < 0.7:
        how, spoilt = "graph", spoil_graph(content, random)
    elif name.endswith(".json") and random.random() < 0.8:
        how = "json"
        value = spoil_json(json.loads(content), random)
        try:
            spoilt = json.dumps(value).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            spoilt = b"[" * 100_000
    else:
        how, spoilt = "bytes", spoil_bytes(content, random)
    path.write_bytes(spoilt)
    if signed:
        sign(folder)
    return f"{name}: {how}{', signed' if signed else ''}"


def sign(folder: Path) -> None:
    """Put hashes and checksum right, as far as the manifest can still be read."""
    file = folder / BUNDLE_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8", errors="surrogatepass"))
        for entry in manifest["graphs"].values():
            entry["sha256"] = sha256_file(folder / entry["file"])
        manifest["files"] = {name: sha256_file(folder / name) for name in manifest["files"]}
    except Exception:  # whatever it is now, it stays unsigned
        return
    manifest["checksum"] = checksum(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8", errors="surrogatepass")
