"""Measure how fast a bundle runs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .engines.base import ProviderChoice
from .model import Model, load
from .process import peak_memory

__all__ = ["COLUMNS", "measure_bundle"]

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
"""The figures and their headings. `decode` is the bare step; `text` includes sampling."""


def measure_bundle(
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

    Rates are means over the repetitions, after one warm-up.

    Args:
        path: The bundle.
        provider: The execution provider.
        threads: Threads that one call may use.
        prompt: Tokens of the prompt.
        tokens: Tokens to decode.
        streams: Streams in the batch.
        repetitions: Repetitions of each measurement.
        progress: Called with 1 after each measurement, ``4 * (repetitions + 1)`` times.

    Returns:
        The figures, by the names in :data:`COLUMNS`.
    """
    began = time.perf_counter()
    model = load(path, provider, threads)
    load_seconds = time.perf_counter() - began
    with model.session() as session:
        began = time.perf_counter()
        session.feed_tokens([model.start_token] * 16)
        next(session.tokens(max_new_tokens=1))
        first_token_seconds = time.perf_counter() - began

    def repeat(measure: Callable[[], float]) -> tuple[float, float]:
        """Mean and spread of a rate, in tokens per second."""
        rates = []
        for _ in range(repetitions + 1):
            rates.append(measure())
            progress(1)
        return float(np.mean(rates[1:])), float(np.std(rates[1:]))

    random = np.random.default_rng(0)
    ids = random.integers(0, model.vocab_size, prompt).tolist()
    prefill = repeat(lambda: _prefill(model, ids))
    steps: list[float] = []
    decode = repeat(lambda: _decode(model, tokens, steps))
    text = repeat(lambda: _text(model, tokens))
    batch = repeat(lambda: _batch(model, streams, max(tokens // 8, 4)))
    step_us = np.asarray(steps[tokens:]) * 1e6  # without the warm-up
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
        "load_ms": load_seconds * 1e3,
        "first_token_ms": first_token_seconds * 1e3,
        "prefill": prefill[0],
        "prefill_spread": prefill[1],
        "decode": decode[0],
        "decode_spread": decode[1],
        "p50_us": float(np.percentile(step_us, 50)),
        "p99_us": float(np.percentile(step_us, 99)),
        "text": text[0],
        "batch": batch[0],
        "state_kb": info.state_bytes / 1e3,
        "peak_mb": peak_memory() / 1e6,
    }


def _prefill(model: Model, ids: list[int]) -> float:
    with model.session() as session:
        began = time.perf_counter()
        session.feed_tokens(ids)
        return len(ids) / (time.perf_counter() - began)


def _decode(model: Model, tokens: int, steps: list[float]) -> float:
    """Tokens per second of bare steps; the seconds of each are appended to ``steps``."""
    state, token = model.engine.zero_state(), np.zeros(1, np.int64)
    began = before = time.perf_counter()
    for _ in range(tokens):
        model.engine.step(token, state)
        now = time.perf_counter()
        steps.append(now - before)
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
