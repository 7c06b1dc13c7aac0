"""Lower bounds on the time of a step on a device: kernel launch and memory traffic."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from rillet.runtime import Bundle

__all__ = ["measure_limits"]


def measure_limits(bundle: Bundle, device: str, batches: list[int]) -> dict[str, Any]:
    """Measure the bounds of a decode step.

    Returns:
        ``bandwidth_gb_per_s``; ``launch_us``, ``None`` on a CPU; and, by batch size, the ``bytes``
        that a step moves and ``memory_us``, the time that this takes.
    """
    bandwidth = _bandwidth(device)
    weights = bundle.graph("decode").stat().st_size
    sizes = {
        row.name: int(np.prod(row.shape)) * np.dtype(row.dtype).itemsize for row in bundle.state
    }
    # A step reads all of the state and writes all of it except the memory, which gets one slot.
    written = sum(size for name, size in sizes.items() if not name.startswith("memory_"))
    moved = {batch: weights + batch * (sum(sizes.values()) + written) for batch in batches}
    return {
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "launch_us": _launch_seconds() * 1e6 if device == "cuda" else None,
        "bytes": moved,
        "memory_us": {batch: size / bandwidth * 1e6 for batch, size in moved.items()},
    }


def _bandwidth(device: str) -> float:
    """Bytes per second that a copy within the device's memory reads and writes."""
    source = torch.ones(64 << 20, dtype=torch.float32, device=device)  # larger than any cache
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() * source.element_size() / best


def _launch_seconds() -> float:
    """Seconds to launch a captured graph of one small kernel and wait for it."""
    value = torch.zeros(1, device="cuda")
    value.add_(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value.add_(1)

    times = []
    for _ in range(500):
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
