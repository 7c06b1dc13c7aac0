"""When training has converged: validation stops improving, even at lower rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["PROGRESS", "Plateau", "closing"]

PROGRESS = ("scale", "best", "best_step", "mark", "waited")
"""The attributes of a :class:`Plateau` that change; the others are its rule."""


@dataclass
class Plateau:
    """Lowers the learning rate where validation stops improving, and ends where that is in vain.

    Attributes:
        patience: Validations without an improvement after which the rate falls.
        margin: Nats per token that count as an improvement.
        factor: What the rate falls to each time, as a share.
        lowest: Share of the first rate below which training ends.
        scale: The rate as a share of the first one.
        best: The best validation loss.
        best_step: Its step.
        mark: The loss that the next improvement is measured from.
        waited: Validations since then.
    """

    patience: int = 4
    margin: float = 5e-4
    factor: float = 0.3
    lowest: float = 0.02
    scale: float = 1.0
    best: float = math.inf
    best_step: int = 0
    mark: float = math.inf
    waited: int = 0

    @property
    def converged(self) -> bool:
        """Whether training has ended."""
        return self.scale < self.lowest

    def see(self, step: int, loss: float, holds: bool = False) -> tuple[bool, bool]:
        """Note a validation.

        Args:
            step: Its step.
            loss: Its loss.
            holds: Whether something else lowers the rate now, so that waiting proves nothing.

        Returns:
            Whether it is the best so far, and whether the rate falls after it.
        """
        better = loss < self.best
        if better:
            self.best, self.best_step = loss, step
        if loss < self.mark - self.margin:
            self.mark, self.waited = loss, 0
            return better, False
        self.waited += not holds
        if holds or self.waited < self.patience:
            return better, False
        self.scale, self.waited = self.scale * self.factor, 0
        return better, True


def closing(share: float, begins: float = 0.6, last: float = 0.02) -> float:
    """The rate's factor when a share of a time limit is used: a cosine down to ``last``.

    A run that its limit will cut short ends at a low rate all the same: at a high one, its loss
    would say little of what it has learnt.
    """
    if share <= begins:
        return 1.0
    done = min(1.0, (share - begins) / (1 - begins))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done))
