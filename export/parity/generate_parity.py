"""Parity of the generating graph: its tokens are PyTorch's, drawn by the runtime's rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.engines.ort.generate_graph import GraphGenerator
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...runtime.tokenizer import Tokenizer
from ...train.model.dual_cnn import DualCNN
from .comparison import Comparison, Difference
from .gate import compare_state, gate_tokens

__all__ = ["GENERATED", "compare_generate"]

_PROMPT = 1_500
"""Tokens to read first at most: more than the memory of any preset holds."""

_TOKENS = 32
"""Tokens a call."""

_CALLS = 8
"""Calls with each kind of sampling."""

_SAMPLING: tuple[tuple[float, int, float], ...] = ((0.0, 0, 1.0), (1.0, 0, 1.0), (0.8, 10, 0.9))
"""Temperature, top-k and top-p: greedy, plain, and with both cuts."""

GENERATED = len(_SAMPLING) * _CALLS * _TOKENS
"""Tokens that are written in all."""

_TIE = 1e-3
"""A number this close to where two tokens meet may fall to either."""


@torch.no_grad()
def compare_generate(
    model: DualCNN,
    tokenizer: Tokenizer,
    engine: OnnxEngine,
    steps: int,
    tolerance: float,
    progress: Callable[[int], object] | None = None,
) -> Comparison:
    """Let the graph write, let PyTorch read the same, and compare.

    Each token must be the one that the sampling rule draws from PyTorch's own logits with the
    same number, and logits and state after each call must agree.

    Args:
        model: The PyTorch model.
        tokenizer: Its tokenizer.
        engine: The engine.
        steps: Tokens of real text to read first, if that many.
        tolerance: Likeliest tokens closer than this are a tie.
        progress: Called with the number of tokens written.

    Returns:
        The figures.
    """
    generator = GraphGenerator(engine)
    prompt = gate_tokens(tokenizer, min(steps, _PROMPT))
    result = Comparison("generate", "its own text", provider=engine.provider)
    logits = result.outputs["logits"] = Difference()
    output, state = model(torch.from_numpy(prompt), model.zero_state())
    engine_state = engine.zero_state()
    last = engine.prefill(prompt, engine_state)[:, -1].copy()
    expected = output[:, -1:].numpy()
    random = np.random.default_rng(3)
    learn = torch.zeros(1)
    for temperature, top_k, top_p in _SAMPLING:
        for _ in range(_CALLS):
            numbers = random.random((1, _TOKENS))
            tokens, last = generator.generate(
                engine_state, last, numbers, temperature=temperature, top_k=top_k, top_p=top_p
            )
            output, state = model(torch.from_numpy(tokens), state, learn)
            seen = np.concatenate([expected, output[:, :-1].numpy()], axis=1)[0]
            expected = output[:, -1:].numpy()
            for place, token in enumerate(tokens[0]):
                shares = _shares(seen[place], temperature, top_k, top_p)
                slack = tolerance if temperature == 0 else _TIE
                if not _may_draw(shares, seen[place], int(token), numbers[0, place], slack):
                    result.greedy_differences += 1
                    if result.first_greedy_difference is None:
                        result.first_greedy_difference = result.tokens + place
            result.tokens += tokens.size
            at = np.asarray([result.tokens - 1])
            by_step = logits.add(expected, last[:, None], at, tolerance)
            part = int(at[0]) * len(result.parts) // GENERATED
            result.parts[part] = max(result.parts[part], float(by_step[0]))
            compare_state(result, state, engine_state.read(), int(at[0]), tolerance)
            if progress is not None:
                progress(tokens.size)
    return result


def _shares(
    logits: npt.NDArray[Any], temperature: float, top_k: int, top_p: float
) -> npt.NDArray[np.float64] | None:
    """The distribution to draw from, written out again: an error of the runtime's would show."""
    if temperature == 0:
        return None
    scaled = logits.astype(np.float64) / temperature
    shares: npt.NDArray[np.float64] = np.exp(scaled - scaled.max())
    if 0 < top_k < len(shares):
        shares[shares < np.sort(shares)[-top_k]] = 0.0
    shares /= shares.sum()
    if top_p < 1:
        order = np.argsort(-shares, kind="stable")
        earlier = np.cumsum(shares[order]) - shares[order]
        shares[order[earlier >= top_p]] = 0.0
        shares /= shares.sum()
    return shares


def _may_draw(
    shares: npt.NDArray[np.float64] | None,
    logits: npt.NDArray[Any],
    token: int,
    number: float,
    slack: float,
) -> bool:
    """Whether this token is what the rule draws, or the number lies at its border."""
    if shares is None:
        return bool(logits.max() - logits[token] <= slack)
    end = float(shares[: token + 1].sum())
    return end - float(shares[token]) - slack <= number <= end + slack
