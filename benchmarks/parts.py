"""Parts of the decoding step alone, each in several forms, as graphs of a few nodes.

    python benchmarks/parts.py [--json FILE] [--bursts 60]

What :mod:`forms` measures in the whole step, where other work is the larger part, and forms
that do not fit it: reads that are not exact, other sizes. The sizes are those of the preset
``nano``. One thread, bound inputs and outputs, interleaved short bursts in one run, the least of
each, without what a call takes that computes nothing. Beside it stands the largest difference
from the same in float64.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

import machine
from rillet.runtime.engines.ort.providers import create_session
from stepping import Burst, bind, least_times

CALLS = 100
CAPACITY, KEYS, WIDTH, FILTERS, WINDOW = 1024, 32, 64, 2, 32
BETA = 60.0
"""How fast the memory's kernel falls: that of a fresh model."""
EMPTY = "a call that computes nothing"

Array = npt.NDArray[Any]


class Part:
    """A graph of a few nodes, called again and again with the same inputs.

    Args:
        nodes: Their output is ``y``.
        constants: Initialisers by name.
        inputs: Inputs by name.
        wanted: What it computes, in float64; only its size is compared with the output's.
        shared: The input whose buffer is the output's too.
    """

    def __init__(
        self,
        nodes: list[onnx.NodeProto],
        constants: dict[str, Array],
        inputs: dict[str, Array],
        wanted: Array,
        shared: str | None = None,
    ) -> None:
        graph = helper.make_graph(
            nodes,
            "part",
            [_entry(name, value) for name, value in inputs.items()],
            [_entry("y", wanted.astype(np.float32))],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        self.session = create_session(model.SerializeToString(), "cpu", 1)
        self.inputs = {name: value.copy() for name, value in inputs.items()}
        new = np.zeros(wanted.shape, np.float32)
        self.output = self.inputs[shared] if shared else new
        self.binding = bind(self.session, self.inputs, {"y": self.output})
        self.session.run_with_iobinding(self.binding)
        self.difference = float(np.abs(self.output - wanted).max())

    def __call__(self) -> int:
        """Call it; returns how often."""
        for _ in range(CALLS):
            self.session.run_with_iobinding(self.binding)
        return CALLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bursts", type=int, default=60)
    arguments = parser.parse_args()
    figures = measure(arguments.bursts)
    times, differences = figures["microseconds"], figures["difference"]
    empty = times[EMPTY]
    print(f"{EMPTY}: {empty:.2f} µs\n{'':40} {'µs more':>8} {'difference':>11}")
    for name, value in times.items():
        if name != EMPTY:
            print(f"{name:40} {value - empty:8.2f} {differences[name]:11.1e}")
    machine.write(arguments.json, figures)


def measure(bursts: int) -> dict[str, dict[str, float]]:
    """Time every part in turn; ``microseconds`` a call, and ``difference``."""
    random = np.random.default_rng(0)
    x = _normal(random, 1, WIDTH)
    parts = {EMPTY: Part([_node("Identity", "x")], {}, {"x": x}, x)}
    parts |= filters(random) | writes(random) | distances(random)
    for size in (65, 1024):
        parts |= reads(random, size)
    for size in (128, 512):
        parts |= recurrences(random, size)
    return {
        "microseconds": least_times(dict[str, Burst](parts), bursts),
        "difference": {name: part.difference for name, part in parts.items()},
    }


def filters(random: np.random.Generator) -> dict[str, Part]:
    """The second CNN's filters over its window ``[B, W, F]``."""
    window, taps = _normal(random, 1, WINDOW, WIDTH), _normal(random, WINDOW, FILTERS * WIDTH)
    wanted = (np.concatenate([window] * FILTERS, 2).astype(np.float64) * taps).sum(1)
    copies = _node("Concat", " ".join(["w"] * FILTERS), "c", axis=2)
    weighted = [copies, _node("Mul", "c t", "p")]
    # A grouped convolution keeps the outputs of a feature together.
    order = np.arange(FILTERS * WIDTH).reshape(FILTERS, WIDTH).T.reshape(-1)
    kernel = {"k": np.ascontiguousarray(taps[:, order].T[:, None])}
    turned, conv = window.swapaxes(1, 2).copy(), _node("Conv", "r k", group=WIDTH)
    apart = wanted[:, order, None]
    total, ones = _node("ReduceSum", "p ax", keepdims=0), np.ones((1, WINDOW), np.float32)
    return {
        "filters: ReduceSum": Part(
            [*weighted, total], {"t": taps, "ax": _sizes(1)}, {"w": window}, wanted
        ),
        "filters: product with ones": Part(
            [*weighted, _node("MatMul", "o p")], {"t": taps, "o": ones}, {"w": window},
            wanted[:, None],
        ),
        "filters: Conv": Part(
            [_node("Transpose", "w", "r", perm=[0, 2, 1]), conv], kernel, {"w": window}, apart
        ),
        "filters: Conv, window stored transposed": Part([conv], kernel, {"r": turned}, apart),
    }  # fmt: skip


def writes(random: np.random.Generator) -> dict[str, Part]:
    """A key written to the memory."""
    keys, row = _normal(random, 1, CAPACITY, KEYS), _normal(random, 1, 1, KEYS)
    inputs = {"k": keys, "r": row, "slot": _sizes(5).reshape(1, 1, 1)}
    columns = {"cols": np.zeros((1, 1, KEYS), np.int64)}
    scatter = [_node("Add", "slot cols", "ix"), _node("ScatterElements", "k ix r", axis=1)]
    wanted = keys.astype(np.float64)
    wanted[:, 5] = row[:, 0]
    shift = [_node("Slice", "k one end one", "s"), _node("Concat", "s r", axis=1)]
    return {
        "write: scatter, one shared buffer": Part(scatter, columns, inputs, wanted, "k"),
        "write: scatter into a second buffer": Part(scatter, columns, inputs, wanted),
        "write: shift": Part(
            shift,
            {"one": _sizes(1), "end": _sizes(CAPACITY)},
            {"k": keys, "r": row},
            np.concatenate([keys[:, 1:], row], 1).astype(np.float64),
        ),
    }


def distances(random: np.random.Generator) -> dict[str, Part]:
    """``exp(-beta |q - k|^2 / 2)`` of a key with all keys, of which one is near."""
    keys = _normal(random, 1, CAPACITY, KEYS)
    query = keys[:, 7:8] + 0.02 * _normal(random, 1, 1, KEYS)
    keys, query = (v / np.linalg.norm(v, axis=2, keepdims=True) for v in (keys, query))
    apart = keys.astype(np.float64) - query
    wanted = np.exp((apart * apart).sum(2)[:, None] * (-BETA / 2))
    fall = {"f": np.full((1, KEYS), -BETA / 2, np.float32)}
    subtract, square = _node("Sub", "k q", "d"), _node("Mul", "d d", "e")
    total = [_node("Transpose", "e", "t", perm=[0, 2, 1]), _node("MatMul", "f t", "x")]
    exp, both = _node("Exp", "x"), {"k": keys, "q": query}
    side_by_side = [
        _node("Reshape", "k wide", "kw"),
        _node("Tile", "q times", "qw"),
        _node("Sub", "kw qw", "d"),
        _node("Mul", "d d", "ew"),
        _node("Reshape", "ew narrow", "e"),
    ]
    sizes = {
        "wide": _sizes(1, CAPACITY // 16, 16 * KEYS),
        "narrow": _sizes(1, CAPACITY, KEYS),
        "times": _sizes(1, 1, 16),
    }
    transposed = {name: value.swapaxes(1, 2).copy() for name, value in both.items()}
    product = [
        _node("Transpose", "k", "t", perm=[0, 2, 1]),
        _node("Mul", "q beta", "qb"),
        _node("MatMul", "qb t", "p"),
        _node("Sub", "p beta", "x"),
    ]
    return {
        "keys: differences of rows": Part([subtract, square, *total, exp], fall, both, wanted),
        "keys: differences, 16 side by side": Part(
            [*side_by_side, *total, exp], fall | sizes, both, wanted
        ),
        "keys: differences, stored transposed": Part(
            [subtract, square, _node("MatMul", "f e", "x"), exp], fall, transposed, wanted
        ),
        "keys: product": Part(
            [*product, exp], {"beta": np.full(1, BETA, np.float32)}, both, wanted
        ),
    }


def reads(random: np.random.Generator, vocab: int) -> dict[str, Part]:
    """The weights of the memory's entries by the token of each."""
    weights = random.random((1, 1, CAPACITY), np.float32)
    tokens = random.integers(0, vocab, (1, CAPACITY))
    wanted = np.bincount(tokens[0], weights[0, 0], vocab)[None]
    inputs = {"w": weights, "t": tokens}
    radix = int(np.ceil(np.sqrt(vocab)))
    highest, number = -(-vocab // radix), np.arange(vocab)
    digits = {
        "hi": _rows_of_one(highest)[number // radix],
        "lo": _rows_of_one(radix)[number % radix],
    }
    two_digits = [
        _node("Gather", "hi t", "a"),
        _node("Transpose", "w", "wt", perm=[0, 2, 1]),
        _node("Mul", "a wt", "aw"),
        _node("Transpose", "aw", "at", perm=[0, 2, 1]),
        _node("Gather", "lo t", "b"),
        _node("MatMul", "at b", "p"),
        _node("Reshape", "p flat", "q"),
        _node("Slice", "q zero end one"),
    ]
    sizes = {"flat": _sizes(1, -1), "zero": _sizes(0), "end": _sizes(vocab), "one": _sizes(1)}
    # Not exact: rows of fewer dimensions than there are tokens overlap.
    embedding = _normal(random, vocab, WIDTH)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    gathered = [_node("Gather", "e t", "g"), _node("MatMul", "w g", "s")]
    add = _node("ScatterElements", "z t w", axis=1, reduction="add")
    label = f"read, V = {vocab:,}"
    return {
        f"{label}: one-hot": Part(
            [_node("Gather", "e t", "g"), _node("MatMul", "w g")],
            {"e": _rows_of_one(vocab)}, inputs, wanted[:, None],
        ),
        f"{label}: two digits": Part(two_digits, digits | sizes, inputs, wanted),
        f"{label}: embeddings, not exact": Part(
            [*gathered, _node("MatMul", "s et")],
            {"e": embedding, "et": embedding.T.copy()}, inputs, wanted[:, None],
        ),
        f"{label}: scatter with addition": Part(
            [add], {"z": np.zeros((1, vocab), np.float32)}, {"w": weights[0], "t": tokens}, wanted
        ),
    }  # fmt: skip


def recurrences(random: np.random.Generator, size: int, blocks: int = 8) -> dict[str, Part]:
    """The reservoir's product and sine."""
    width, scale = size // blocks, np.float32(size**-0.5)
    state, drive = _normal(random, 1, size), _normal(random, 1, size)
    dense = _normal(random, size, size) * scale
    grouped = _normal(random, blocks, width, width) * scale
    inputs, sine = {"s": state, "u": drive}, _node("Sin", "z")
    exact = state.astype(np.float64)
    parts = [
        _node("Reshape", "s apart", "sb"),
        _node("MatMul", "sb k", "p"),
        _node("Reshape", "p joined", "pf"),
        _node("Add", "pf u", "z"),
    ]
    sizes = {"apart": _sizes(blocks, 1, width), "joined": _sizes(1, size)}
    in_blocks = np.einsum("bi,bij->bj", exact.reshape(blocks, width), grouped).reshape(1, size)
    label = f"reservoir, N = {size}"
    return {
        f"{label}: dense": Part(
            [_node("Gemm", "s k u", "z"), sine], {"k": dense}, inputs,
            np.sin(exact @ dense + drive),
        ),
        f"{label}: 8 blocks": Part(
            [*parts, sine], {"k": grouped} | sizes, inputs, np.sin(in_blocks + drive)
        ),
        f"{label}: no product": Part(
            [_node("Add", "s u", "z"), sine], {}, inputs, np.sin(exact + drive)
        ),
    }  # fmt: skip


def _node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def _entry(name: str, value: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)


def _normal(random: np.random.Generator, *sizes: int) -> Array:
    return random.standard_normal(sizes, np.float32)


def _rows_of_one(count: int) -> Array:
    return np.eye(count, dtype=np.float32)


def _sizes(*sizes: int) -> Array:
    return np.array(sizes, np.int64)


if __name__ == "__main__":
    main()
