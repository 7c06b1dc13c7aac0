"""Parity of the generating graph: it draws PyTorch's tokens by the runtime's rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.engines.base import Drawing, Values
from ...runtime.engines.ort.generate_graph import GraphGenerator
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...train.model.dual_cnn import DualCNN
from .comparison import Comparison
from .start import engine_state, torch_state
from .texts import RealText

__all__ = ["GENERATED", "compare_generate"]

_PROMPT = 1_500
"""Longest prompt in tokens: more than the memory of any preset holds."""

_TOKENS = 32
"""Tokens per call."""

_CALLS = 8
"""Calls with each kind of sampling."""

_SAMPLING: tuple[tuple[float, int, float], ...] = ((0.0, 0, 1.0), (1.0, 0, 1.0), (0.8, 10, 0.9))
"""Temperature, top-k and top-p: greedy, plain sampling, and both cuts."""

GENERATED = len(_SAMPLING) * _CALLS * _TOKENS
"""Number of tokens generated in total."""

_TIE = 1e-3
"""A uniform number this close to the border of two tokens may draw either."""


@torch.no_grad()
def compare_generate(
    model: DualCNN,
    text: RealText,
    engine: OnnxEngine,
    steps: int,
    tolerance: float,
    progress: Callable[[int], object] | None = None,
    start: Values | None = None,
) -> Comparison:
    """Let the graph generate, let PyTorch read the same tokens, and compare.

    Each token must be the one that the sampling rule draws from PyTorch's logits with the same
    uniform number. Logits and state after each call must agree.

    Args:
        model: The PyTorch model.
        text: The text to read first.
        engine: The engine under test.
        steps: Tokens of it to read, at most 1,500.
        tolerance: Tokens whose logits lie closer than this are a tie.
        progress: Called with the number of tokens generated.
        start: The state to begin with, for one row; zeros by default.

    Returns:
        The figures.
    """
    generator = GraphGenerator(engine)
    prompt = text.repeated(min(steps, _PROMPT))
    result = Comparison("generate", "its own text", provider=engine.provider)
    output, state = model(torch.from_numpy(prompt), torch_state(model.zero_state(), start))
    held = engine_state(engine, start)
    last = engine.prefill(prompt, held)[:, -1].copy()
    expected = output[:, -1:].numpy()
    random = np.random.default_rng(3)
    learn = torch.zeros(1)
    for temperature, top_k, top_p in _SAMPLING:
        for _ in range(_CALLS):
            numbers = random.random((1, _TOKENS))
            how = Drawing(temperature, top_k, top_p)
            tokens, last = generator.generate(held, last, numbers, how)
            output, state = model(torch.from_numpy(tokens), state, learn)
            drawn_from = np.concatenate([expected, output[:, :-1].numpy()], axis=1)[0]
            expected = output[:, -1:].numpy()
            for place, token in enumerate(tokens[0]):
                logits, number = drawn_from[place], numbers[0, place]
                shares = _shares(logits, temperature, top_k, top_p)
                slack = tolerance if temperature == 0 else _TIE
                if not _may_draw(shares, logits, int(token), number, slack):
                    result.add_greedy_differences(1, result.tokens + place)
            result.tokens += tokens.size
            step = result.tokens - 1
            result.add_logits(expected, last[:, None], np.asarray([step]), GENERATED, tolerance)
            expected_state = {name: tensor.numpy() for name, tensor in state.items()}
            result.add_state(expected_state, held.read(), step, tolerance)
            if progress is not None:
                progress(tokens.size)
    return result


def _shares(
    logits: npt.NDArray[Any], temperature: float, top_k: int, top_p: float
) -> npt.NDArray[np.float64] | None:
    """The distribution to draw from, implemented a second time to catch errors of the runtime."""
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
    """Whether the rule draws this token, or the number lies at the token's border."""
    if shares is None:
        return bool(logits.max() - logits[token] <= slack)
    end = float(shares[: token + 1].sum())
    return end - float(shares[token]) - slack <= number <= end + slack
