"""Circular storage as pure functions of tensors, shared by training and the graphs.

The entry of step ``p`` is in slot ``p mod M``. The functions hold no state: storage is a state
tensor that is passed in and returned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .causal import newest

__all__ = ["in_order", "order", "roll", "store", "visible"]


def roll(past: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Append to a window that is in time order, newest last.

    Args:
        past: The last W entries, ``[B, W, ...]``.
        new: New entries, ``[B, T, ...]``.

    Returns:
        The entries that the windows of the new steps cover, ``[B, W - 1 + T, ...]``, and the
        new window, ``[B, W, ...]``.
    """
    seen = torch.cat([past[:, 1:], new], dim=1)
    return seen, newest(seen, past.shape[1])


def order(position: Tensor, length: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Find the slots of the past entries, and the position after a chunk.

    Args:
        position: Steps read so far, ``[B]``.
        length: Steps in the chunk.
        capacity: Slots M.

    Returns:
        Slots of the M entries, oldest first, ``[B, M]``, and the new position, ``[B]``.
    """
    steps = torch.arange(capacity, device=position.device)
    steps = torch.cat([steps, torch.full((1,), length, device=position.device)])
    steps = position.unsqueeze(1) + steps  # [B, M + 1]
    return steps[:, :-1] % capacity, steps[:, -1]


def in_order(past: Tensor, slots: Tensor, new: Tensor) -> Tensor:
    """List the M past entries, oldest first, followed by the new ones.

    Args:
        past: Circular storage, ``[B, M, ...]``.
        slots: Slots from :func:`order`, ``[B, M]``.
        new: New entries, ``[B, T, ...]``.

    Returns:
        ``[B, M + T, ...]``.
    """
    return torch.cat([_gather(past, slots), new], dim=1)


def store(ordered: Tensor, position: Tensor, capacity: int) -> Tensor:
    """Build the circular storage after the new entries.

    Args:
        ordered: Result of :func:`in_order`, ``[B, M + T, ...]``.
        position: Steps read after the chunk, ``[B]``.
        capacity: Slots M.

    Returns:
        ``[B, M, ...]``, each entry in slot ``step mod M``.
    """
    slots = torch.arange(capacity, device=position.device).unsqueeze(0)
    length = ordered.shape[1] - capacity
    return _gather(ordered, length + (slots - position.unsqueeze(1)) % capacity)


def visible(length: int, capacity: int, device: torch.device | None = None) -> Tensor:
    """Mark the entries that each new step can see: the last M, its own included.

    Returns:
        0 or 1 for each step and each entry in the order of :func:`in_order`, ``[T, M + T]``.
    """
    step = torch.arange(length, device=device).unsqueeze(1)
    entry = torch.arange(capacity + length, device=device).unsqueeze(0)
    return ((entry > step) & (entry <= step + capacity)).float()


def _gather(x: Tensor, slots: Tensor) -> Tensor:
    """Gather ``x [B, S, ...]`` at ``slots [B, M]`` along axis 1."""
    if x.dim() == 2:
        return x.gather(1, slots)
    return x.gather(1, slots.unsqueeze(2).expand(-1, -1, x.shape[2]))
