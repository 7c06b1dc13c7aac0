"""How fast a bundle runs on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .engines.base import ProviderChoice
from .model import Model, load

__all__ = ["COLUMNS", "bench"]

COLUMNS = {
    "provider": "provider",
    "threads": "threads",
    "load_ms": "load, ms",
    "first_token_ms": "first token, ms",
    "prefill": "prefill, tokens/s",
    "prefill_spread": "±",
    "decode": "decode, tokens/s",
    "decode_spread": "±",
    "p50_us": "step p50, µs",
    "p99_us": "p99, µs",
    "text": "text, tokens/s",
    "batch": "batch, tokens/s",
    "state_kb": "state, KB",
    "peak_mb": "peak memory, MB",
}
"""What is measured, with its heading. `text` is sampled and decoded; `decode` is the bare step."""


def bench(
    path: Path,
    provider: ProviderChoice = "auto",
    threads: int = 1,
    *,
    prompt: int = 512,
    tokens: int = 256,
    streams: int = 16,
    repetitions: int = 5,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure loading, reading, writing and batches.

    Each figure is the mean over repetitions, after one that is not counted.

    Args:
        path: The bundle.
        provider: The execution provider.
        threads: Threads that one call may use.
        prompt: Tokens of the prompt.
        tokens: Tokens to decode.
        streams: Streams in the batch.
        repetitions: How often each is measured.
        progress: Called with 1 after each measurement, ``4 * (repetitions + 1)`` times.

    Returns:
        The figures, by the names in :data:`COLUMNS`.
    """
    began = time.perf_counter()
    model = load(path, provider, threads)
    loaded = time.perf_counter() - began
    with model.session() as session:
        began = time.perf_counter()
        session.feed_tokens([model.start_token] * 16)
        next(session.tokens(max_new_tokens=1))
        first = time.perf_counter() - began

    steps: list[float] = []

    def repeat(measure: Callable[[], float]) -> tuple[float, float]:
        rates = []
        for _ in range(repetitions + 1):
            steps.clear()
            rates.append(measure())
            progress(1)
        return float(np.mean(rates[1:])), float(np.std(rates[1:]))

    random = np.random.default_rng(0)
    ids = random.integers(0, model.vocab_size, prompt)
    prefill = repeat(lambda: _prefill(model, ids))
    all_steps: list[float] = []
    decode = repeat(lambda: _decode(model, tokens, all_steps))
    text = repeat(lambda: _text(model, tokens))
    batch = repeat(lambda: _batch(model, streams, max(tokens // 8, 4)))
    counted = np.asarray(all_steps[tokens:]) * 1e6  # without the first repetition
    info = model.info
    return {
        "bundle": str(path),
        "precision": info.precision,
        "engine": info.engine,
        "provider": info.provider,
        "threads": threads,
        "prompt": prompt,
        "tokens": tokens,
        "streams": streams,
        "repetitions": repetitions,
        "load_ms": loaded * 1e3,
        "first_token_ms": first * 1e3,
        "prefill": prefill[0],
        "prefill_spread": prefill[1],
        "decode": decode[0],
        "decode_spread": decode[1],
        "p50_us": float(np.percentile(counted, 50)),
        "p99_us": float(np.percentile(counted, 99)),
        "text": text[0],
        "batch": batch[0],
        "state_kb": info.state_bytes / 1e3,
        "peak_mb": _peak_memory() / 1e6,
    }


def _prefill(model: Model, ids: Any) -> float:
    with model.session() as session:
        began = time.perf_counter()
        session.feed_tokens(ids)
        return len(ids) / (time.perf_counter() - began)


def _decode(model: Model, tokens: int, taken: list[float]) -> float:
    state, token = model.engine.zero_state(), np.zeros(1, np.int64)
    began = before = time.perf_counter()
    for _ in range(tokens):
        model.engine.step(token, state)
        now = time.perf_counter()
        taken.append(now - before)
        before = now
    return tokens / (before - began)


def _text(model: Model, tokens: int) -> float:
    with model.session() as session:
        session.feed_tokens([model.start_token])
        began = time.perf_counter()
        for _ in session.stream(max_new_tokens=tokens, seed=0):
            pass
        return tokens / (time.perf_counter() - began)


def _batch(model: Model, streams: int, tokens: int) -> float:
    with model.batch() as batch:
        for index in range(streams):
            batch.join(model.session(), max_new_tokens=tokens, seed=index)
        began = time.perf_counter()
        while len(batch):
            batch.write()
        return streams * tokens / (time.perf_counter() - began)


def _peak_memory() -> int:
    """Most bytes that the process ever had resident; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
