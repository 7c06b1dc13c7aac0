"""Parts of the decode step alone, each in several forms, as graphs of a few nodes.

    python benchmarks/parts.py [--json FILE] [--bursts 60]

``forms.py`` measures forms within the whole step, where other work dominates; this script measures
them alone, and also forms that do not fit the step: inexact reads, and other sizes. Sizes are those
of the preset ``nano``. One thread, bound inputs and outputs; parts take turns in short bursts, and
each figure is the fastest burst in CPU time of the thread, minus a call that computes nothing. Each
row also shows the largest difference from the same computation in float64.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lib.arrays import Array
from lib.bursts import least_times
from lib.graph_parts import GraphPart, node
from lib.results import write_results

CAPACITY, KEYS, WIDTH, FILTERS, WINDOW = 1024, 32, 64, 2, 32
BETA = 60.0
"""The sharpness of the memory's kernel in a fresh model."""
EMPTY = "a call that computes nothing"


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
    write_results(arguments.json, figures)


def measure(bursts: int) -> dict[str, dict[str, float]]:
    """Time all parts in turn; returns ``microseconds`` per call and ``difference``, by part."""
    random = np.random.default_rng(0)
    x = _normal(random, 1, WIDTH)
    parts = {EMPTY: GraphPart([node("Identity", "x")], {}, {"x": x}, x)}
    parts |= filters(random) | writes(random) | distances(random)
    for size in (65, 1024):
        parts |= reads(random, size)
    for size in (128, 512):
        parts |= recurrences(random, size)
    return {
        "microseconds": least_times(parts, bursts),
        "difference": {name: part.difference for name, part in parts.items()},
    }


def filters(random: np.random.Generator) -> dict[str, GraphPart]:
    """Apply the second CNN's filters to its window ``[B, W, F]``."""
    window, taps = _normal(random, 1, WINDOW, WIDTH), _normal(random, WINDOW, FILTERS * WIDTH)
    expected = (np.concatenate([window] * FILTERS, 2).astype(np.float64) * taps).sum(1)
    copies = node("Concat", " ".join(["w"] * FILTERS), "c", axis=2)
    weighted = [copies, node("Mul", "c t", "p")]
    # A grouped convolution keeps the outputs of a feature together.
    order = np.arange(FILTERS * WIDTH).reshape(FILTERS, WIDTH).T.reshape(-1)
    kernel = {"k": np.ascontiguousarray(taps[:, order].T[:, None])}
    turned, conv = window.swapaxes(1, 2).copy(), node("Conv", "r k", group=WIDTH)
    apart = expected[:, order, None]
    total, ones = node("ReduceSum", "p ax", keepdims=0), np.ones((1, WINDOW), np.float32)
    return {
        "filters: ReduceSum": GraphPart(
            [*weighted, total], {"t": taps, "ax": _sizes(1)}, {"w": window}, expected
        ),
        "filters: product with ones": GraphPart(
            [*weighted, node("MatMul", "o p")],
            {"t": taps, "o": ones},
            {"w": window},
            expected[:, None],
        ),
        "filters: Conv": GraphPart(
            [node("Transpose", "w", "r", perm=[0, 2, 1]), conv], kernel, {"w": window}, apart
        ),
        "filters: Conv, window stored transposed": GraphPart([conv], kernel, {"r": turned}, apart),
    }


def writes(random: np.random.Generator) -> dict[str, GraphPart]:
    """Write a key to the memory."""
    keys, row = _normal(random, 1, CAPACITY, KEYS), _normal(random, 1, 1, KEYS)
    inputs = {"k": keys, "r": row, "slot": _sizes(5).reshape(1, 1, 1)}
    columns = {"cols": np.zeros((1, 1, KEYS), np.int64)}
    scatter = [node("Add", "slot cols", "ix"), node("ScatterElements", "k ix r", axis=1)]
    expected = keys.astype(np.float64)
    expected[:, 5] = row[:, 0]
    shift = [node("Slice", "k one end one", "s"), node("Concat", "s r", axis=1)]
    return {
        "write: scatter, one shared buffer": GraphPart(scatter, columns, inputs, expected, "k"),
        "write: scatter into a second buffer": GraphPart(scatter, columns, inputs, expected),
        "write: shift": GraphPart(
            shift,
            {"one": _sizes(1), "end": _sizes(CAPACITY)},
            {"k": keys, "r": row},
            np.concatenate([keys[:, 1:], row], 1).astype(np.float64),
        ),
    }


def distances(random: np.random.Generator) -> dict[str, GraphPart]:
    """Compute ``exp(-beta |q - k|^2 / 2)`` of a query with all keys, one of which is near."""
    keys = _normal(random, 1, CAPACITY, KEYS)
    query = keys[:, 7:8] + 0.02 * _normal(random, 1, 1, KEYS)
    keys, query = (v / np.linalg.norm(v, axis=2, keepdims=True) for v in (keys, query))
    apart = keys.astype(np.float64) - query
    expected = np.exp((apart * apart).sum(2)[:, None] * (-BETA / 2))
    fall = {"f": np.full((1, KEYS), -BETA / 2, np.float32)}
    subtract, square = node("Sub", "k q", "d"), node("Mul", "d d", "e")
    total = [node("Transpose", "e", "t", perm=[0, 2, 1]), node("MatMul", "f t", "x")]
    exp, both = node("Exp", "x"), {"k": keys, "q": query}
    side_by_side = [
        node("Reshape", "k wide", "kw"),
        node("Tile", "q times", "qw"),
        node("Sub", "kw qw", "d"),
        node("Mul", "d d", "ew"),
        node("Reshape", "ew narrow", "e"),
    ]
    sizes = {
        "wide": _sizes(1, CAPACITY // 16, 16 * KEYS),
        "narrow": _sizes(1, CAPACITY, KEYS),
        "times": _sizes(1, 1, 16),
    }
    transposed = {name: value.swapaxes(1, 2).copy() for name, value in both.items()}
    product = [
        node("Transpose", "k", "t", perm=[0, 2, 1]),
        node("Mul", "q beta", "qb"),
        node("MatMul", "qb t", "p"),
        node("Sub", "p beta", "x"),
    ]
    return {
        "keys: differences of rows": GraphPart(
            [subtract, square, *total, exp], fall, both, expected
        ),
        "keys: differences, 16 side by side": GraphPart(
            [*side_by_side, *total, exp], fall | sizes, both, expected
        ),
        "keys: differences, stored transposed": GraphPart(
            [subtract, square, node("MatMul", "f e", "x"), exp], fall, transposed, expected
        ),
        "keys: product": GraphPart(
            [*product, exp], {"beta": np.full(1, BETA, np.float32)}, both, expected
        ),
    }


def reads(random: np.random.Generator, vocab: int) -> dict[str, GraphPart]:
    """Sum the weights of the memory's entries by token."""
    weights = random.random((1, 1, CAPACITY), np.float32)
    tokens = random.integers(0, vocab, (1, CAPACITY))
    expected = np.bincount(tokens[0], weights[0, 0], vocab)[None]
    inputs: dict[str, Array] = {"w": weights, "t": tokens}
    radix = int(np.ceil(np.sqrt(vocab)))
    highest, number = -(-vocab // radix), np.arange(vocab)
    digits = {
        "hi": _one_hot(highest)[number // radix],
        "lo": _one_hot(radix)[number % radix],
    }
    two_digits = [
        node("Gather", "hi t", "a"),
        node("Transpose", "w", "wt", perm=[0, 2, 1]),
        node("Mul", "a wt", "aw"),
        node("Transpose", "aw", "at", perm=[0, 2, 1]),
        node("Gather", "lo t", "b"),
        node("MatMul", "at b", "p"),
        node("Reshape", "p flat", "q"),
        node("Slice", "q zero end one"),
    ]
    sizes = {"flat": _sizes(1, -1), "zero": _sizes(0), "end": _sizes(vocab), "one": _sizes(1)}
    # Inexact: the rows overlap, since they have fewer dimensions than there are tokens.
    embedding = _normal(random, vocab, WIDTH)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    gathered = [node("Gather", "e t", "g"), node("MatMul", "w g", "s")]
    add = node("ScatterElements", "z t w", axis=1, reduction="add")
    label = f"read, V = {vocab:,}"
    return {
        f"{label}: one-hot": GraphPart(
            [node("Gather", "e t", "g"), node("MatMul", "w g")],
            {"e": _one_hot(vocab)},
            inputs,
            expected[:, None],
        ),
        f"{label}: two digits": GraphPart(two_digits, digits | sizes, inputs, expected),
        f"{label}: embeddings, not exact": GraphPart(
            [*gathered, node("MatMul", "s et")],
            {"e": embedding, "et": embedding.T.copy()},
            inputs,
            expected[:, None],
        ),
        f"{label}: scatter with addition": GraphPart(
            [add], {"z": np.zeros((1, vocab), np.float32)}, {"w": weights[0], "t": tokens}, expected
        ),
    }


def recurrences(random: np.random.Generator, size: int, blocks: int = 8) -> dict[str, GraphPart]:
    """Compute the reservoir's product and sine."""
    width, scale = size // blocks, np.float32(size**-0.5)
    state, drive = _normal(random, 1, size), _normal(random, 1, size)
    dense = _normal(random, size, size) * scale
    grouped = _normal(random, blocks, width, width) * scale
    inputs, sine = {"s": state, "u": drive}, node("Sin", "z")
    exact = state.astype(np.float64)
    parts = [
        node("Reshape", "s apart", "sb"),
        node("MatMul", "sb k", "p"),
        node("Reshape", "p joined", "pf"),
        node("Add", "pf u", "z"),
    ]
    sizes = {"apart": _sizes(blocks, 1, width), "joined": _sizes(1, size)}
    in_blocks = np.einsum("bi,bij->bj", exact.reshape(blocks, width), grouped).reshape(1, size)
    label = f"reservoir, N = {size}"
    return {
        f"{label}: dense": GraphPart(
            [node("Gemm", "s k u", "z"), sine],
            {"k": dense},
            inputs,
            np.sin(exact @ dense + drive),
        ),
        f"{label}: 8 blocks": GraphPart(
            [*parts, sine], {"k": grouped} | sizes, inputs, np.sin(in_blocks + drive)
        ),
        f"{label}: no product": GraphPart(
            [node("Add", "s u", "z"), sine], {}, inputs, np.sin(exact + drive)
        ),
    }


def _normal(random: np.random.Generator, *sizes: int) -> Array:
    return random.standard_normal(sizes, np.float32)


def _one_hot(count: int) -> Array:
    return np.eye(count, dtype=np.float32)


def _sizes(*sizes: int) -> Array:
    return np.array(sizes, np.int64)


if __name__ == "__main__":
    main()
