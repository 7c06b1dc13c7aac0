"""The parity gate: an engine must compute what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...runtime.engines.base import Engine
from ...runtime.engines.ort.generate_graph import GraphGenerator
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...runtime.text_sample import TextSample
from ...runtime.tokenizer import Tokenizer
from ...train.model.dual_cnn import DualCNN
from .comparison import Comparison, compared_graphs
from .generate_parity import GENERATED, compare_generate
from .graph_parity import compare_graph
from .report import TOLERANCE
from .texts import NOISE, TAUGHT, real_text

__all__ = ["STEPS", "gate_work", "run_gate"]

STEPS = 10_000
"""Tokens of real text that each graph reads by default."""

_NOISE_ROWS = 3
_LONG = 100_000
"""Tokens of the long stream."""


def run_gate(
    model: DualCNN,
    tokenizer: Tokenizer,
    engine: Engine,
    precision: str = "fp32",
    steps: int = STEPS,
    progress: Callable[[int], object] | None = None,
    long: bool = False,
    sample: TextSample | None = None,
) -> list[Comparison]:
    """Compare every graph of an engine's bundle with the PyTorch model.

    The step graph and the prefill graph read real text and random tokens, and the real text again
    with what the bundle taught, if it taught anything. The generating graph, if the engine has
    one, generates its own text.

    Args:
        model: The PyTorch model.
        tokenizer: Its tokenizer.
        engine: The engine under test.
        precision: Precision of the graphs; sets the tolerance.
        steps: Tokens of real text for each graph.
        progress: Called with the number of tokens read.
        long: Also stream 100,000 tokens through the step graph.
        sample: A sample of the run's text, to read as real text.

    Returns:
        The figures, whether they pass or not.
    """
    tie = TOLERANCE.get(precision, TOLERANCE["fp16"])
    noise_shape = (_NOISE_ROWS, _noise_length(steps))
    noise = np.random.default_rng(1).integers(0, tokenizer.vocab_size, noise_shape)
    real = real_text(sample, tokenizer, model, _LONG // 2 if long else steps)
    texts = ((real.name, real.repeated(steps)), (NOISE, noise))
    rows = [
        compare_graph(model, engine, graph, tokens, text, tie, progress=progress)
        for graph in compared_graphs(engine.provider)
        for text, tokens in texts
    ]
    start = engine.bundle.start_state()
    if start is not None:
        rows += [
            compare_graph(
                model, engine, graph, real.repeated(steps), TAUGHT, tie, 0, progress, start
            )
            for graph in compared_graphs(engine.provider)
        ]
    # On these two texts, ties of int8 and int4 are as narrow as float32's.
    tie = TOLERANCE.get(precision, TOLERANCE["fp32"])
    if isinstance(engine, OnnxEngine) and GraphGenerator.exists(engine.bundle):
        rows.append(compare_generate(model, real, engine, steps, tie, progress, start))
    if long:
        tokens = np.tile(real.repeated(_LONG // 2), 2)
        rows.append(
            compare_graph(model, engine, "decode", tokens, "long text", tie, progress=progress)
        )
    return rows


def gate_work(
    provider: str, steps: int, generate: bool, long: bool = False, taught: bool = False
) -> int:
    """Tokens that :func:`run_gate` reads, for a progress bar."""
    work = len(compared_graphs(provider)) * (
        (1 + taught) * steps + _NOISE_ROWS * _noise_length(steps)
    )
    return work + (GENERATED if generate else 0) + (_LONG if long else 0)


def _noise_length(steps: int) -> int:
    return max(1, steps // 10)
