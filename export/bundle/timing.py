"""What a token costs on the machine that exports: for the model card."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...runtime.bundle import Bundle
from ...runtime.engines.ort.host_engine import OnnxEngine

__all__ = ["measure"]

_BURSTS = 12
_STEPS = 100
_PROMPT = 256


def measure(bundle: Bundle) -> dict[str, Any]:
    """Time a step and a prompt, one thread: the least of some short bursts.

    Args:
        bundle: The bundle.

    Returns:
        Microseconds a token of ``step`` and ``prefill``, and the ``machine`` in words.
    """
    engine = OnnxEngine(bundle, "cpu", 1)
    random = np.random.default_rng(0)
    tokens = random.integers(0, bundle.vocab_size, (1, _PROMPT))
    state = engine.zero_state()

    def steps() -> None:
        for token in tokens[0, :_STEPS]:
            engine.step(np.asarray([token]), state)

    def prompt() -> None:
        engine.prefill(tokens, state)

    return {
        "machine": f"{platform.machine()}, {platform.system()}, {engine.version}",
        "step": _least(steps) / _STEPS * 1e6,
        "prefill": _least(prompt) / _PROMPT * 1e6,
    }


def _least(work: Callable[[], None]) -> float:
    least = float("inf")
    for _ in range(_BURSTS):
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least
