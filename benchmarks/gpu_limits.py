"""What no engine can be faster than on a device: launching, and moving a step's bytes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from rillet.runtime import Bundle


def limits(bundle: Bundle, device: str, batches: list[int]) -> dict[str, Any]:
    """What no engine can be faster than, in microseconds by batch size."""
    speed = bandwidth(device)
    weights = bundle.graph("decode").stat().st_size
    sizes = {
        row.name: int(np.prod(row.shape)) * np.dtype(row.dtype).itemsize for row in bundle.state
    }
    # All of the state is read; of the memory one slot is written, of the rest everything.
    written = sum(size for name, size in sizes.items() if not name.startswith("memory_"))
    moved = {batch: weights + batch * (sum(sizes.values()) + written) for batch in batches}
    return {
        "bandwidth_gb_per_s": speed / 1e9,
        "launch_us": launch() * 1e6 if device == "cuda" else None,
        "bytes": moved,
        "memory_us": {batch: size / speed * 1e6 for batch, size in moved.items()},
    }


def bandwidth(device: str) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    source = torch.ones(64 << 20, dtype=torch.float32, device=device)  # beyond any cache
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * source.numel() * source.element_size() / best


def launch() -> float:
    """Seconds that a captured graph of one small kernel takes, with waiting for it."""
    value = torch.zeros(1, device="cuda")
    value.add_(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value.add_(1)

    times = []
    for _ in range(500):
        began = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
