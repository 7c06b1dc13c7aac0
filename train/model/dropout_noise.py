"""Random numbers of training, which depend only on seed, step and stream.

Each stream of the batch draws from its own generator, reseeded at every step. A run that is
resumed, spread over several processes, or split into smaller batches therefore draws the same
numbers as an undisturbed run.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["Noise", "step_seed"]


def step_seed(seed: int, *place: int) -> int:
    """Derive a seed for one place in a run, such as a step and a stream."""
    text = ",".join(map(str, (seed, *place))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")


class Noise:
    """Dropout masks for the streams in training."""

    def __init__(self) -> None:
        self._generators: list[torch.Generator] = []

    def begin(self, seed: int, step: int, streams: range, device: torch.device) -> None:
        """Reseed for a step.

        Args:
            seed: Seed of the run.
            step: Number of the step.
            streams: The streams of the whole batch that are computed next.
            device: Device of the masks.
        """
        self._generators = [
            torch.Generator(device).manual_seed(step_seed(seed, step, stream)) for stream in streams
        ]

    def keep(self, x: Tensor, share: float, per_step: bool = True) -> Tensor:
        """Draw a mask that drops values and scales up the rest (inverted dropout).

        Args:
            x: Values of the streams, ``[B, T, H]``.
            share: Share to drop, above 0 and below 1; rounded to 1/256, but neither to 0 nor to 1.
            per_step: Draw for each step of a stream; otherwise, once for all steps.

        Returns:
            0 or ``1 / (1 - share)``, ``[B, T or 1, H]``, in the type of ``x``.
        """
        rows, length, width = x.shape
        shape = (length if per_step else 1, width)
        count = shape[0] * shape[1]
        words = -(-count // 8)
        bits = torch.empty(rows, words, dtype=torch.int64, device=x.device)
        # Eight draws per 64-bit word: five times faster than one uniform number per value.
        if len(self._generators) == rows:
            for row, generator in zip(bits, self._generators, strict=True):
                row.random_(-(2**63), None, generator=generator)
        else:
            bits.random_(-(2**63), None)
        threshold = min(max(1, round(share * 256)), 255)
        kept = bits.view(torch.uint8)[:, :count].view(rows, *shape) >= threshold
        return kept.to(x.dtype) * (256 / (256 - threshold))
