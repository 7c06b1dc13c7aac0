"""A single wave, with the figures that describe it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...runtime.errors import UsageError

__all__ = ["WaveOutput"]


@dataclass(frozen=True, eq=False)
class WaveOutput:
    """What the first CNN emitted at one step, and how it came about.

    Attributes:
        position: Step of the stream, counted from 0.
        token: The token read at this step.
        features: The wave, ``[F]``.
        confidence: Largest probability in the first CNN's prediction.
        attention_entropy: Entropy of the step's attention weights in nats, averaged over the
            heads; 0 without attention.
        attention_peak: Steps back to the largest attention weight; 0 is the step itself.
        key: Memory key of the state after the step, ``[n]``; empty without a memory.
    """

    position: int
    token: int
    features: Tensor
    confidence: float
    attention_entropy: float = 0.0
    attention_peak: int = 0
    key: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values; float32 survives the round trip exactly."""
        return {
            "position": self.position,
            "token": self.token,
            "features": self.features.tolist(),
            "confidence": self.confidence,
            "attention_entropy": self.attention_entropy,
            "attention_peak": self.attention_peak,
            "key": self.key.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Any) -> WaveOutput:
        """Build a wave from what :meth:`to_dict` returned.

        Raises:
            UsageError: The values do not describe a wave.
        """
        try:
            return cls(
                position=int(values["position"]),
                token=int(values["token"]),
                features=torch.tensor(values["features"], dtype=torch.float32),
                confidence=float(values["confidence"]),
                attention_entropy=float(values["attention_entropy"]),
                attention_peak=int(values["attention_peak"]),
                key=torch.tensor(values["key"], dtype=torch.float32),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise UsageError(f"a stored wave cannot be read ({error}); save it again") from error
