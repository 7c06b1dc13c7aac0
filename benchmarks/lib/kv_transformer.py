"""One step of a transformer with a cache of keys and values, as an ONNX graph.

It has no biases, and its head is tied to the embedding. The default shape is that of nanoGPT's
character-level recipe: six blocks of width 384 with six heads, 10.65 million parameters. The cache
has a fixed size and each step overwrites its oldest slot in place, the cheapest update that ONNX
Runtime offers; a step attends to the whole cache, unmasked. Weights are random, since the time does
not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from .arrays import Array, FloatArray, TokenArray
from .stepping import Steps

__all__ = [
    "NANOGPT",
    "Shape",
    "Weights",
    "kv_step",
    "make_weights",
    "reference_step",
    "steps_with_full_cache",
]

Weights = dict[str, FloatArray]

_CHECKED = 1024
"""Longest context whose step is compared with numpy's."""


@dataclass(frozen=True)
class Shape:
    """The size of a transformer.

    Attributes:
        blocks: Number of blocks L.
        heads: Attention heads H of each block; the width is a multiple of their number.
        width: Width d.
        vocabulary: Number of tokens V.
        positions: Rows of the position embedding; positions wrap around after the last.
    """

    blocks: int = 6
    heads: int = 6
    width: int = 384
    vocabulary: int = 65
    positions: int = 256

    @property
    def size(self) -> int:
        """Width of a head."""
        return self.width // self.heads


NANOGPT = Shape()
"""The shape of nanoGPT's character-level recipe."""


def make_weights(shape: Shape = NANOGPT, seed: int = 0) -> Weights:
    """Random weights on the scale of GPT-2's initialisation."""
    random = np.random.default_rng(seed)

    def normal(*sizes: int) -> FloatArray:
        return (random.standard_normal(sizes) * 0.05).astype(np.float32)

    width = shape.width
    weights = {
        "embedding": normal(shape.vocabulary, width),
        "positions": normal(shape.positions, width),
    }
    for block in range(shape.blocks):
        weights |= {
            f"{block}.qkv": normal(width, 3 * width),
            f"{block}.out": normal(width, width),
            f"{block}.up": normal(width, 4 * width),
            f"{block}.down": normal(4 * width, width),
            f"{block}.norm1": np.ones(width, np.float32),
            f"{block}.norm2": np.ones(width, np.float32),
        }
    return weights | {"norm": np.ones(width, np.float32)}


def kv_step(context: int, weights: Weights, shape: Shape = NANOGPT) -> onnx.ModelProto:
    """Build the step's graph, with ``past.*`` inputs and ``present.*`` outputs like ours.

    Args:
        context: Entries of the cache, C.
        weights: The result of :func:`make_weights`.
        shape: The shape of the weights.
    """
    node = helper.make_node
    constants: dict[str, Array] = {
        **weights,
        "head": np.ascontiguousarray(weights["embedding"].T),
        "last_slot": np.asarray([context]),
        "last_position": np.asarray([shape.positions]),
        "one": np.asarray([1]),
        "columns": np.zeros((shape.heads, 1, shape.size), np.int64),
        "scale": np.asarray([shape.size**-0.5], np.float32),
        "heads": np.asarray([3 * shape.heads, 1, shape.size]),
        "row": np.asarray([1, shape.width]),
    }
    nodes = [
        node("Reshape", ["input_ids", "one"], ["token"]),
        node("Gather", ["embedding", "token"], ["embedded"]),
        node("Mod", ["past.position", "last_position"], ["row_of_position"]),
        node("Gather", ["positions", "row_of_position"], ["placed"]),
        node("Add", ["embedded", "placed"], ["x0"]),
        node("Mod", ["past.position", "last_slot"], ["slot"]),
        node("Add", ["slot", "columns"], ["slots"]),
        node("Add", ["past.position", "one"], ["present.position"]),
    ]
    for block in range(shape.blocks):
        nodes += _block(block)
    nodes += [
        node("LayerNormalization", [f"x{shape.blocks}", "norm"], ["normed"]),
        node("MatMul", ["normed", "head"], ["flat"]),
        node("Unsqueeze", ["flat", "first"], ["logits"]),
    ]
    constants["first"] = np.asarray([0])
    cache = [shape.heads, context, shape.size]
    state = {f"cache_{kind}{block}": cache for block in range(shape.blocks) for kind in "kv"}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "kv_step",
        [
            value("input_ids", TensorProto.INT64, [1, 1]),
            value("past.position", TensorProto.INT64, [1]),
            *(value(f"past.{name}", TensorProto.FLOAT, size) for name, size in state.items()),
        ],
        [
            value("logits", TensorProto.FLOAT, [1, 1, shape.vocabulary]),
            value("present.position", TensorProto.INT64, [1]),
            *(value(f"present.{name}", TensorProto.FLOAT, size) for name, size in state.items()),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _block(block: int) -> list[onnx.NodeProto]:
    def at(*names: str) -> list[str]:
        return [f"{block}.{name}" for name in names]

    def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, outputs, **attributes)

    x, after = f"x{block}", f"x{block + 1}"
    keys, values = f"present.cache_k{block}", f"present.cache_v{block}"
    return [
        node("LayerNormalization", [x, *at("norm1")], at("n1")),
        node("MatMul", at("n1", "qkv"), at("joint")),
        node("Reshape", [*at("joint"), "heads"], at("split")),
        node("Split", at("split"), at("q", "k", "v"), axis=0, num_outputs=3),
        node("ScatterElements", [f"past.cache_k{block}", "slots", *at("k")], [keys], axis=1),
        node("ScatterElements", [f"past.cache_v{block}", "slots", *at("v")], [values], axis=1),
        node("Mul", [*at("q"), "scale"], at("scaled")),
        node("Transpose", [keys], at("kt"), perm=[0, 2, 1]),
        node("MatMul", at("scaled", "kt"), at("scores")),
        node("Softmax", at("scores"), at("share"), axis=-1),
        node("MatMul", [*at("share"), values], at("read")),
        node("Reshape", [*at("read"), "row"], at("flat")),
        node("MatMul", at("flat", "out"), at("attended")),
        node("Add", [x, *at("attended")], at("x")),
        node("LayerNormalization", at("x", "norm2"), at("n2")),
        node("MatMul", at("n2", "up"), at("wide")),
        node("Gelu", at("wide"), at("active")),
        node("MatMul", at("active", "down"), at("narrow")),
        node("Add", at("x", "narrow"), [after]),
    ]


def reference_step(
    token: int,
    position: int,
    caches: dict[str, FloatArray],
    weights: Weights,
    shape: Shape = NANOGPT,
) -> npt.NDArray[np.float64]:
    """The same step in numpy and float64, to check the graph; updates the caches in place."""

    def norm(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        centred = x - x.mean()
        normed: npt.NDArray[np.float64] = centred / np.sqrt((centred**2).mean() + 1e-5)
        return normed

    def gelu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        activated: npt.NDArray[np.float64] = x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
        return activated

    x = (
        weights["embedding"][token].astype(np.float64)
        + weights["positions"][position % shape.positions]
    )
    for block in range(shape.blocks):
        q, k, v = (norm(x) @ weights[f"{block}.qkv"]).reshape(3, shape.heads, shape.size)
        keys, values = caches[f"cache_k{block}"], caches[f"cache_v{block}"]
        slot = position % keys.shape[1]
        keys[:, slot], values[:, slot] = k, v
        scores = np.einsum("hd,hcd->hc", q, keys.astype(np.float64)) * shape.size**-0.5
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        attended = np.einsum("hc,hcd->hd", share, values.astype(np.float64)).ravel()
        x = x + attended @ weights[f"{block}.out"]
        x = x + gelu(norm(x) @ weights[f"{block}.up"]) @ weights[f"{block}.down"]
    logits: npt.NDArray[np.float64] = norm(x) @ weights["embedding"].T
    return logits


def steps_with_full_cache(
    context: int, weights: Weights, tokens: TokenArray, shape: Shape = NANOGPT
) -> Steps:
    """A burst of steps over a cache that is full.

    Args:
        context: Entries of the cache, C.
        weights: The result of :func:`make_weights`.
        tokens: The tokens to read from; a burst has one to four.
        shape: The shape of the weights.

    Raises:
        SystemExit: The graph differs from :func:`reference_step`; checked up to 1,024 entries.
    """
    steps = Steps(kv_step(context, weights, shape), tokens[: 4 if context < 10_000 else 1])
    random = np.random.default_rng(0)
    caches = {}
    for name, value in steps.sides[0].items():
        if name.startswith("cache_"):
            value[...] = random.standard_normal(value.shape, np.float32)
            caches[name] = value.copy()
    if context <= _CHECKED:
        actual = steps.run_all(tokens[:1])[0]
        expected = reference_step(int(tokens[0]), 0, caches, weights, shape)
        difference = np.abs(actual - expected).max()
        if not difference < 1e-3:
            raise SystemExit(f"the transformer differs from its reference by {difference:.1e}")
    return steps
