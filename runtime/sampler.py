"""Choosing the next token from logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import EngineError, UsageError

__all__ = ["Sampler", "SamplingParams"]


@dataclass(frozen=True)
class SamplingParams:
    """How to sample; the names and meanings are Hugging Face's.

    Attributes:
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of likeliest tokens whose probabilities reach
            this sum; 1 keeps all.
        seed: Seed of the random numbers; ``None`` draws a fresh one.

    Raises:
        UsageError: A value can never work.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _real("temperature", self.temperature)
        _real("top_p", self.top_p)
        if self.temperature < 0:
            raise UsageError(
                f"temperature is {self.temperature}; it must be 0 (greedy) or above, such as 0.8"
            )
        if type(self.top_k) is not int or self.top_k < 0:
            raise UsageError(
                f"top_k is {self.top_k!r}; it must be a whole number, 0 (keep all) or above"
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; it must lie above 0 and not above 1")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise UsageError(f"seed is {self.seed!r}; it must be a whole number, 0 or above")


class Sampler:
    """Draws tokens; one for each stream, since it holds the random numbers' state.

    Args:
        params: How to sample.
    """

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def probabilities(self, logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The distribution that a token is drawn from, ``[V]`` to ``[V]``."""
        params = self.params
        scaled = logits.astype(np.float64)
        # Subtract first: however small the temperature, the likeliest stays at 0.
        with np.errstate(over="ignore"):
            scaled = (scaled - scaled.max()) / params.temperature
        if 0 < params.top_k < scaled.size:
            threshold = np.partition(scaled, -params.top_k)[-params.top_k]
            scaled = np.where(scaled < threshold, -np.inf, scaled)
        weights = np.exp(scaled)
        probabilities = weights / weights.sum()
        if params.top_p < 1:
            order = np.argsort(-probabilities, kind="stable")
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= params.top_p]] = 0.0
            probabilities /= probabilities.sum()
        return np.asarray(probabilities)

    def draw(self, logits: npt.NDArray[Any]) -> int:
        """Choose a token from logits ``[V]``.

        Raises:
            EngineError: A logit is not a number.
        """
        if not np.isfinite(logits).all():
            raise EngineError(
                "the model returned logits that are not finite numbers; the stream's state is "
                "damaged, start a new session"
            )
        if self.params.temperature == 0:
            return int(np.argmax(logits))
        # The token whose share of the unit interval holds the uniform number: the same
        # rule inside a graph or out of it gives the same token.
        ends = np.cumsum(self.probabilities(logits))
        token = int(np.searchsorted(ends, self._random.random() * ends[-1], side="right"))
        return min(token, logits.size - 1)


def _real(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} is {value!r}; it must be a finite number")
