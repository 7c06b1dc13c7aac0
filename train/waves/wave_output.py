"""One emitted wave, as a researcher looks at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...runtime.errors import UsageError

__all__ = ["WaveOutput"]


@dataclass(frozen=True, eq=False)
class WaveOutput:
    """What the first CNN emitted at a step, and how it came about.

    Attributes:
        position: Step of the stream, from 0.
        token: The token that was read.
        features: The wave, ``[F]``.
        confidence: The largest probability in the first CNN's prediction.
        attention_entropy: Entropy in nats of the attention that the step paid to its window,
            mean over the heads; 0 where there is no attention.
        attention_peak: Steps back to where attention was largest; 0 is the step itself.
        key: The memory key of the state after the step, ``[n]``; empty where there is no memory.
    """

    position: int
    token: int
    features: Tensor
    confidence: float
    attention_entropy: float = 0.0
    attention_peak: int = 0
    key: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; float32 survives the round trip exactly."""
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
        """Read what :meth:`to_dict` wrote.

        Raises:
            UsageError: The values are not those of a wave.
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
            raise UsageError(f"a stored wave cannot be read ({error}); write it anew") from error
