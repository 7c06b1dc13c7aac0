"""Time per token on the exporting machine, for the model card."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...runtime.bundle import Bundle
from ...runtime.engines.base import Engine
from ..parity.engines import open_engines

__all__ = ["measure_times"]

_BURSTS = 12
_STEPS = 100
_PROMPT = 256


def measure_times(bundle: Bundle) -> dict[str, Any]:
    """Time a step and a prompt on one thread, on each engine that runs the bundle on a processor.

    The fastest of several short bursts counts.

    Args:
        bundle: The bundle.

    Returns:
        A description of the ``machine``, and for each of the ``engines``, by name, ``step`` and
        ``prefill`` in microseconds per token.
    """
    fastest_first = reversed(open_engines(bundle))
    return {
        "machine": f"{platform.machine()}, {platform.system()}",
        "engines": {engine.version: _time(engine) for engine in fastest_first},
    }


def _time(engine: Engine) -> dict[str, float]:
    random = np.random.default_rng(0)
    tokens = random.integers(0, engine.vocab_size, (1, _PROMPT))
    state = engine.zero_state()

    def steps() -> None:
        for token in tokens[0, :_STEPS]:
            engine.step(np.asarray([token]), state)

    def prompt() -> None:
        engine.prefill(tokens, state)

    return {
        "step": _fastest(steps) / _STEPS * 1e6,
        "prefill": _fastest(prompt) / _PROMPT * 1e6,
    }


def _fastest(work: Callable[[], None]) -> float:
    """Seconds of the fastest burst, in the thread's own time: other programs do not count."""
    fastest = float("inf")
    for _ in range(_BURSTS):
        start = time.thread_time()
        work()
        fastest = min(fastest, time.thread_time() - start)
    return fastest
