"""Waves, attention weights and reservoir states of a bundle while it reads a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.bundle import Bundle
from ...runtime.engines.ort.providers import create_session
from ...runtime.errors import UsageError
from ...runtime.golden import GoldenRecord
from ...runtime.tokenizer import Tokenizer

__all__ = ["Inside", "look_inside"]

_WEIGHTS = "attention/Softmax"
"""Tensor of the attention weights in ``decode.onnx``, ``[B, heads, A]``; the current step last."""

_MOST = 4_096
"""Most tokens to read: a picture shows no more."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inside:
    """The activations of each step.

    Attributes:
        pieces: The text of each of the T tokens.
        nats: Negative log-probability of each token given those before it, ``[T]``; NaN for the
            first token.
        waves: The first CNN's waves, ``[T, F]``; ``None`` without a wave buffer.
        reservoir: The reservoir's states, ``[T, N]``; ``None`` without a reservoir.
        attention: Attention weights by distance, ``[T, heads, A]``, distance 0 first; ``None``
            without attention.
    """

    pieces: list[str]
    nats: Array
    waves: Array | None
    reservoir: Array | None
    attention: Array | None


def look_inside(path: str | Path, text: str | None = None) -> Inside:
    """Read a text with a bundle and record its activations.

    Run the decoding graph on the CPU, with the attention weights added in memory as an output.

    Args:
        path: The bundle's folder.
        text: The text, of which at most 4,096 tokens are read; by default the golden record's
            prompt.

    Raises:
        BundleError: The bundle is missing or damaged.
        UsageError: The text has fewer than two tokens.
    """
    bundle = Bundle.open(path)
    tokenizer = Tokenizer.load(bundle.file("tokenizer.json"))
    tokens = GoldenRecord.of(bundle).prompt.tolist() if text is None else tokenizer.encode(text)
    tokens = tokens[:_MOST]
    if len(tokens) < 2:
        raise UsageError(f"the text has {len(tokens)} tokens; give a text of at least 2 tokens")
    graph = onnx.load(bundle.graph("decode"), load_external_data=False)
    watched = any(_WEIGHTS in node.output for node in graph.graph.node)
    if watched:
        graph.graph.output.append(onnx.ValueInfoProto(name=_WEIGHTS))
    session = create_session(graph.SerializeToString(), "cpu", 1)
    inputs = [entry.name for entry in session.get_inputs()]
    names = [entry.name for entry in session.get_outputs()]
    state = bundle.start_state() or {row.name: row.zeros(1) for row in bundle.state}
    rows: dict[str, list[Array]] = {"wave_buffer": [], "reservoir": [], _WEIGHTS: []}
    nats, prediction = [math.nan], np.zeros(0, np.float32)
    for place, token in enumerate(tokens):
        if place:
            nats.append(-float(prediction[token]))
        feeds = {"input_ids": np.array([[token]]), "learn": np.ones(1, np.float32)}
        feeds |= {f"past.{name}": value for name, value in state.items()}
        values = session.run(None, {name: feeds[name] for name in inputs})
        outputs = dict(zip(names, values, strict=True))
        state = {name: outputs[f"present.{name}"] for name in state}
        prediction = outputs["logits"][0, -1]
        if "wave_buffer" in state:
            rows["wave_buffer"].append(state["wave_buffer"][0, -1])  # the newest wave
        if "reservoir" in state:
            rows["reservoir"].append(state["reservoir"][0])
        if watched:
            rows[_WEIGHTS].append(outputs[_WEIGHTS][0, :, ::-1])
    waves, reservoir, attention = (_stacked(steps) for steps in rows.values())
    pieces = _pieces(tokenizer, tokens)
    return Inside(pieces, np.asarray(nats, np.float32), waves, reservoir, attention)


def _pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    """The text that each token completes; part of a character waits for the rest."""
    decoder = tokenizer.decoder()
    return [decoder.push(token) for token in tokens]


def _stacked(rows: list[Array]) -> Array | None:
    return np.stack(rows).astype(np.float32) if rows else None
