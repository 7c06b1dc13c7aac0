"""Ways to corrupt a file: at random, and as somebody would who knows its format."""

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

__all__ = [
    "corrupt_bundle",
    "corrupt_bytes",
    "corrupt_json",
    "corrupt_tensor",
    "corrupt_text",
    "corrupt_tree",
    "sign",
]

EVIL: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**40, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "../../etc/passwd", "/etc/passwd", "C:\\x", "\0", "\ud800",
    "é" * 3000, [], [[]], [0] * 1000, {}, {"": {}}, {"a": [None]},
]  # fmt: skip
"""Values that replace others."""


def corrupt_bytes(content: bytes, random: random.Random) -> bytes:
    """Flip bits, or cut, insert or overwrite a part."""
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


def corrupt_json(value: Any, random: random.Random) -> Any:
    """Replace, drop, duplicate or nest something anywhere in a JSON value."""
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


def corrupt_text(source: str, random: random.Random) -> bytes:
    """Corrupt a JSON file: its bytes, its values, its depth or its size."""
    kind = random.randrange(8)
    if kind < 2:
        return corrupt_bytes(source.encode(), random)
    if kind == 2:
        mark = random.choice(["[", '{"a":', '{"model":{"vocab":'])
        return (mark * random.choice([50, 5_000, 200_000])).encode()
    if kind == 3:
        value = json.loads(source)
        value["padding"] = random.choice(["x", "é", "[" * 100]) * random.choice([1000, 50_000])
        return json.dumps(value).encode()
    try:
        return json.dumps(corrupt_json(json.loads(source), random)).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):
        return b"[" * 100_000


def corrupt_tensor(value: np.ndarray, random: random.Random) -> np.ndarray:
    """Change the type, the shape or a value, such as to not a number."""
    kind = random.randrange(6)
    if kind == 0:
        with np.errstate(all="ignore"):
            return value.astype(random.choice(["float64", "int8", "bool", "int64", "float16"]))
    if kind == 1:
        return value.reshape(-1)
    if kind == 2:
        return np.atleast_1d(value)[..., :0]
    if kind == 3:
        return np.concatenate([value.reshape(-1)] * random.choice([2, 30]))
    changed = value.copy()
    with np.errstate(all="ignore"):
        evil = np.asarray(random.choice([np.nan, np.inf, 1e38, -1.0, 2.0**62])).astype(value.dtype)
    if changed.size:
        changed.flat[random.randrange(changed.size)] = evil
    return changed


def corrupt_tree(folder: Path, text: str, secret: Path, random: random.Random) -> None:
    """Fill a folder with texts and with files that are none.

    Args:
        folder: The folder, empty.
        text: A valid text.
        secret: A file outside the folder.
        random: Random numbers.
    """
    names = [
        "a.txt",
        "..txt",
        "-rf.txt",
        "new\nline.txt",
        "é水.md",
        "x" * 200 + ".txt",
        ".hidden.txt",
        "sub/deep/b.txt",
        "$(touch x).txt",
        "a\\b.txt",
        "c",
    ]
    contents: list[Callable[[], bytes]] = [
        text.encode,
        lambda: corrupt_bytes(text.encode(), random),
        lambda: random.randbytes(random.choice([0, 1, 5000])),
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + text.encode(),
        lambda: b"\0" * 5000,
        lambda: b"one line " * 300_000,
        lambda: ("\ud800" * 3000).encode("utf-8", "surrogatepass"),
        lambda: "".join(map(chr, range(0x100, 0x3000))).encode(),
        lambda: b"\r" * 3000 + text.encode(),
    ]
    for _ in range(random.choice([1, 1, 2, 5])):
        path = folder / random.choice(names)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_dir():
            continue
        kind = random.randrange(12)
        if kind == 0 and not path.exists():
            path.symlink_to(random.choice([secret, secret.parent, Path("/dev/zero"), path, folder]))
        elif kind == 1 and not path.exists():
            path.mkdir()
        else:
            path.write_bytes(random.choice(contents)())


def corrupt_graph(content: bytes, random: random.Random) -> bytes:
    """Change something in an ONNX graph that leaves it readable."""
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
    """Move weights to another file."""
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
    _weights,
    _sizes,
    _types,
    _outside,
    _nodes,
    _ends,
    _header,
]


def corrupt_bundle(folder: Path, random: random.Random) -> str:
    """Corrupt one file of a bundle, and mostly update its hashes.

    Returns:
        What was done, for a failure's message.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    name = random.choice(names)
    path = folder / name
    signed = random.random() < 0.9
    if random.random() < 0.12:
        return _elsewhere(folder, path, random)
    content = path.read_bytes()
    if name.endswith(".onnx") and random.random() < 0.7:
        how, corrupted = "graph", corrupt_graph(content, random)
    elif name.endswith(".json") and random.random() < 0.8:
        how = "json"
        value = corrupt_json(json.loads(content), random)
        try:
            corrupted = json.dumps(value).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            corrupted = b"[" * 100_000
    else:
        how, corrupted = "bytes", corrupt_bytes(content, random)
    path.write_bytes(corrupted)
    if signed:
        sign(folder)
    return f"{name}: {how}{', signed' if signed else ''}"


def _elsewhere(folder: Path, path: Path, random: random.Random) -> str:
    """Swap two files, or point to one outside of the bundle, which must not be read."""
    outside = folder.parents[1] / "outside"
    outside.mkdir(exist_ok=True)
    kind = random.randrange(3)
    if kind == 0 or path.name == BUNDLE_FILE:
        other = random.choice(sorted(folder.iterdir()))
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        sign(folder)
        return f"{path.name} and {other.name} exchanged"
    moved = outside / path.name
    moved.write_bytes(path.read_bytes())
    path.unlink()
    if kind == 1:
        path.symlink_to(random.choice([moved, Path("..", "..", "outside", path.name)]))
        return f"{path.name}: a link"
    name = random.choice(
        [str(moved), f"../../outside/{path.name}", f"..\\..\\outside\\{path.name}"]
    )
    file = folder / BUNDLE_FILE
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for entry in manifest["graphs"].values():
        if entry["file"] == path.name:
            entry["file"] = name
    manifest["files"] = {
        name if given == path.name else given: value for given, value in manifest["files"].items()
    }
    manifest["checksum"] = checksum(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return f"{path.name}: named {name}"


def sign(folder: Path) -> None:
    """Update hashes and checksum, as far as the manifest is still readable."""
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
