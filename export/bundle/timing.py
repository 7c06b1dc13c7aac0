"""Time per token on the exporting machine, for the model card."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...runtime.bundle import Bundle
from ...runtime.engines.ort.host_engine import OnnxEngine

__all__ = ["measure_times"]

_BURSTS = 12
_STEPS = 100
_PROMPT = 256


def measure_times(bundle: Bundle) -> dict[str, Any]:
    """Time a step and a prompt on one thread; the fastest of several short bursts counts.

    Args:
        bundle: The bundle.

    Returns:
        ``step`` and ``prefill`` in microseconds per token, and a description of the ``machine``.
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
        "step": _fastest(steps) / _STEPS * 1e6,
        "prefill": _fastest(prompt) / _PROMPT * 1e6,
    }


def _fastest(work: Callable[[], None]) -> float:
    """Seconds of the fastest burst."""
    fastest = float("inf")
    for _ in range(_BURSTS):
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
