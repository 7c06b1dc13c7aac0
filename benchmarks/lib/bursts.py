"""Timing: many contenders take turns in short bursts, and the fastest burst of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rillet.runtime.engines.base import Engine

from .arrays import TokenArray

__all__ = ["Burst", "engine_burst", "least_times", "torch_burst"]

Burst = Callable[[], int]
"""Does some work; returns the number of tokens it was for."""


def least_times(bursts: Mapping[str, Burst], count: int) -> dict[str, float]:
    """Microseconds per token of each contender's fastest burst.

    Contenders take turns, so that a busy machine slows all of them alike. Each timed burst
    follows an untimed one, because the previous contender has filled the processor's cache with
    its own weights. The clock is the CPU time of this thread, which does all the work. Wall-clock
    time would include other programs: on a busy machine every burst of 10 ms meets one, so that
    prefill and the plain export appeared 2.5 times as slow while short bursts did not.

    Args:
        bursts: The contenders.
        count: Timed bursts of each.
    """
    least = dict.fromkeys(bursts, float("inf"))
    for _ in range(count):
        for name, burst in bursts.items():
            burst()
            start = time.thread_time()
            tokens = burst()
            least[name] = min(least[name], (time.thread_time() - start) / tokens * 1e6)
    return least


def engine_burst(engine: Engine, start: TokenArray, tokens: TokenArray) -> Burst:
    """A burst of steps as the runtime takes them, with the greedy choice.

    Args:
        engine: The engine.
        start: What the stream has read before.
        tokens: The tokens of a burst.
    """
    state = engine.zero_state()
    engine.prefill(start[None], state, last=True)

    def burst() -> int:
        for token in tokens:
            engine.step(token[None], state)[0].argmax()
        return len(tokens)

    return burst


def torch_burst(
    step: Callable[[Tensor, Any], tuple[Tensor, Any]], state: Any, ids: Tensor
) -> Burst:
    """A burst of PyTorch steps with the greedy choice.

    Args:
        step: Takes a token ``[1, 1]`` and the state; returns logits and the next state.
        state: The state to start from, carried from burst to burst.
        ids: The tokens of a burst, ``[count]``.
    """
    chunks = ids.view(-1, 1, 1)

    def burst() -> int:
        nonlocal state
        with torch.inference_mode():
            for token in chunks:
                logits, state = step(token, state)
                logits.argmax()
        return len(chunks)

    return burst
