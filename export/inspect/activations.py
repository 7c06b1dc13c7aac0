"""What goes on inside a bundle while it reads a text: waves, attention, reservoir."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.bundle import Bundle
from ...runtime.engines.ort.providers import create_session
from ...runtime.errors import BundleError, UsageError
from ...runtime.tokenizer import Tokenizer

__all__ = ["Inside", "look_inside"]

_WEIGHTS = "attention/Softmax"
"""The attention's weights ``[B, heads, A]`` in ``decode.onnx``; the last is the current step."""

_MOST = 4_096
"""Most tokens that are looked at: a picture shows no more."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inside:
    """What each step computed.

    Attributes:
        pieces: The text of each token, T in all.
        nats: What each token was worth, predicted from those before it, ``[T]``; the first has
            nothing before it and is NaN.
        waves: The first CNN's waves, ``[T, F]``; ``None`` where the model has no buffer of them.
        reservoir: The reservoir's states, ``[T, N]``; ``None`` where there is none.
        attention: How much each head looked how many steps back, ``[T, heads, A]``, 0 steps first;
            ``None`` where the model has no attention.
    """

    pieces: list[str]
    nats: Array
    waves: Array | None
    reservoir: Array | None
    attention: Array | None


def look_inside(path: str | Path, text: str | None = None) -> Inside:
    """Read a text with a bundle, and keep what happens inside.

    The decoding graph itself is run, on the processor; the attention's weights are made one more
    output of it, in memory.

    Args:
        path: The bundle.
        text: The text, at most 4,096 tokens of it; by default the golden record's prompt.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        UsageError: The text has fewer than two tokens.
    """
    bundle = Bundle.open(path)
    tokenizer = Tokenizer.load(bundle.file("tokenizer.json"))
    tokens = _prompt(bundle) if text is None else tokenizer.encode(text)
    tokens = tokens[:_MOST]
    if len(tokens) < 2:
        raise UsageError(f"the text has {len(tokens)} tokens; there is something to see from 2 on")
    graph = onnx.load(bundle.graph("decode"), load_external_data=False)
    watched = any(_WEIGHTS in node.output for node in graph.graph.node)
    if watched:
        graph.graph.output.append(onnx.ValueInfoProto(name=_WEIGHTS))
    session = create_session(graph.SerializeToString(), "cpu", 1)
    wanted = [entry.name for entry in session.get_inputs()]
    names = [entry.name for entry in session.get_outputs()]
    state = {row.name: np.zeros([1, *row.shape], row.dtype) for row in bundle.state}
    rows: dict[str, list[Array]] = {"wave_buffer": [], "reservoir": [], _WEIGHTS: []}
    nats, expected = [math.nan], np.zeros(0, np.float32)
    for place, token in enumerate(tokens):
        if place:
            nats.append(-float(expected[token]))
        given = {"input_ids": np.array([[token]]), "learn": np.ones(1, np.float32)}
        given |= {f"past.{name}": value for name, value in state.items()}
        values = session.run(None, {name: given[name] for name in wanted})
        outputs = dict(zip(names, values, strict=True))
        state = {name: outputs[f"present.{name}"] for name in state}
        expected = outputs["logits"][0, -1]
        if "wave_buffer" in state:
            rows["wave_buffer"].append(state["wave_buffer"][0, -1])  # the newest
        if "reservoir" in state:
            rows["reservoir"].append(state["reservoir"][0])
        if watched:
            rows[_WEIGHTS].append(outputs[_WEIGHTS][0, :, ::-1])
    waves, reservoir, attention = (_stacked(found) for found in rows.values())
    pieces = _pieces(tokenizer, tokens)
    return Inside(pieces, np.asarray(nats, np.float32), waves, reservoir, attention)


def _prompt(bundle: Bundle) -> list[int]:
    golden = bundle.manifest.get("golden")
    try:
        assert isinstance(golden, dict)
        found = [int(token) for token in golden["prompt"]]
        assert all(0 <= token < bundle.vocab_size for token in found)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle.path} has no golden record that can be read; give a text, or export it again"
        ) from error
    return found


def _pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    """The text that each token completed; a part of a character waits for the rest."""
    decoder = tokenizer.decoder()
    return [decoder.push(token) for token in tokens]


def _stacked(rows: list[Array]) -> Array | None:
    return np.stack(rows).astype(np.float32) if rows else None
