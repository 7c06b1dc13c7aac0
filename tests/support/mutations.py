"""Ways to corrupt files: at random, and deliberately with knowledge of the format."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "EVIL",
    "corrupt_bytes",
    "corrupt_json",
    "corrupt_tensor",
    "corrupt_text",
    "corrupt_tree",
]

EVIL: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**40, 2**63, -(2**63), 10**400),
    *(0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "../../etc/passwd", "/etc/passwd", "C:\\x", "\0", "\ud800", "é" * 3000),
    *([], [[]], [0] * 1000, {}, {"": {}}, {"a": [None]}),
]
"""Replacements for values."""


def corrupt_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, and overwrite, truncate, insert or clear parts."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 300]))
        else:
            end = rng.randrange(at, len(data) + 1)
            data[at:end] = bytes(end - at)
    return bytes(data)


def corrupt_json(value: Any, rng: random.Random) -> Any:
    """Replace, drop, add, nest or scale parts anywhere in a JSON value."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys: Any = inner if isinstance(inner, dict) else range(len(inner))
        for key in list(keys):
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    walk(value)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        inner, key = rng.choice(places)
        if isinstance(inner, dict) and key not in inner:
            continue
        if isinstance(inner, list) and key >= len(inner):
            continue
        kind = rng.randrange(8)
        if kind == 0:
            del inner[key]
        elif kind == 1 and isinstance(inner, dict):
            inner["more"] = rng.choice(EVIL)
        elif kind == 2 and isinstance(inner, list):
            inner.append(inner[key])
        elif kind == 3:
            deep: Any = []
            for _ in range(rng.choice([3, 5000])):
                deep = [deep]
            inner[key] = deep
        elif kind == 4 and isinstance(inner[key], int | float):
            inner[key] = inner[key] * rng.choice([-1, 2, 1000, 10**9]) + rng.choice([0, 1])
        else:
            inner[key] = rng.choice(EVIL)
    return value


def corrupt_text(source: str, rng: random.Random) -> bytes:
    """Corrupt a JSON file: as bytes, as a value, or by making it deep or huge."""
    kind = rng.randrange(8)
    if kind < 2:
        return corrupt_bytes(source.encode(), rng)
    if kind == 2:
        opening = rng.choice(["[", '{"a":', '{"model":{"vocab":'])
        return (opening * rng.choice([50, 5_000, 200_000])).encode()
    if kind == 3:
        value = json.loads(source)
        value["padding"] = rng.choice(["x", "é", "[" * 100]) * rng.choice([1000, 50_000])
        return json.dumps(value).encode()
    try:
        return json.dumps(corrupt_json(json.loads(source), rng)).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):
        return b"[" * 100_000


def corrupt_tensor(value: npt.NDArray[Any], rng: random.Random) -> npt.NDArray[Any]:
    """Change a tensor's type or shape, empty it, or plant an extreme number."""
    kind = rng.randrange(6)
    if kind == 0:
        with np.errstate(all="ignore"):
            kinds = ["float64", "int8", "bool", "int64", "float16"]
            return value.astype(np.dtype(rng.choice(kinds)))
    if kind == 1:
        return value.reshape(-1)
    if kind == 2:
        return np.atleast_1d(value)[..., :0]
    if kind == 3:
        return np.concatenate([value.reshape(-1)] * rng.choice([2, 30]))
    changed: npt.NDArray[Any] = value.copy()
    with np.errstate(all="ignore"):
        evil = np.asarray(rng.choice([np.nan, np.inf, 1e38, -1.0, 2.0**62])).astype(value.dtype)
    if changed.size:
        changed.flat[rng.randrange(changed.size)] = evil
    return changed


def corrupt_tree(folder: Path, text: str, secret: Path, rng: random.Random) -> None:
    """Fill a folder with text files, some of them invalid.

    Args:
        folder: An empty folder.
        text: A valid text.
        secret: A file outside the folder.
        rng: The source of randomness.
    """
    names = [
        *("a.txt", "..txt", "-rf.txt", "new\nline.txt", "é水.md", "x" * 200 + ".txt"),
        *(".hidden.txt", "sub/deep/b.txt", "$(touch x).txt", "a\\b.txt", "c"),
    ]
    contents: list[Callable[[], bytes]] = [
        text.encode,
        lambda: corrupt_bytes(text.encode(), rng),
        lambda: rng.randbytes(rng.choice([0, 1, 5000])),
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + text.encode(),
        lambda: b"\0" * 5000,
        lambda: b"one line " * 300_000,
        lambda: ("\ud800" * 3000).encode("utf-8", "surrogatepass"),
        lambda: "".join(map(chr, range(0x100, 0x3000))).encode(),
        lambda: b"\r" * 3000 + text.encode(),
    ]
    for _ in range(rng.choice([1, 1, 2, 5])):
        path = folder / rng.choice(names)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_dir():
            continue
        kind = rng.randrange(12)
        if kind == 0 and not path.exists():
            path.symlink_to(rng.choice([secret, secret.parent, Path("/dev/zero"), path, folder]))
        elif kind == 1 and not path.exists():
            path.mkdir()
        else:
            path.write_bytes(rng.choice(contents)())
