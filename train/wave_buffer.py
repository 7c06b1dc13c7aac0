"""The rolling wave buffer: the last waves, and the circular memory of the stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import DualCNNConfig
from .windows import newest

__all__ = ["RollingWaveBuffer"]


class RollingWaveBuffer(nn.Module):
    """Circular storage of fixed size, keyed by the reservoir's state.

    It holds nothing itself: its contents are state tensors that come in and go
    out, so whoever holds them owns the stream. ``wave_buffer`` is the last W
    waves. ``memory_keys`` and ``memory_tokens`` hold, for each of the last M
    steps, the key of the state before a token and that token; the entry of step
    ``position`` is in slot ``position mod M``. A zero key is an empty entry.

    Args:
        config: The model's configuration.
    """

    projection: Tensor

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        self.window = config.wave_window
        self.capacity = config.memory
        self.register_buffer("projection", torch.zeros(config.reservoir_size, config.key_width))

    def fit(self, states: Tensor) -> RollingWaveBuffer:
        """Fit the reduction of reservoir states to keys.

        Principal components, half whitened: a component counts with the square root
        of its spread, so that the few large ones do not drown what tells places
        apart, nor the many small ones the rest (measured: ``docs/decisions.md``).

        Args:
            states: Reservoir states of the corpus, ``[samples, N]``.

        Returns:
            The buffer itself.
        """
        second_moment = (states.T.double() @ states.double()) / len(states)
        values, vectors = torch.linalg.eigh(second_moment)
        width = self.projection.shape[1]
        values, vectors = values.flip(0)[:width], vectors.flip(1)[:, :width]
        # A vector's sign is the solver's whim: make the largest entry positive.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        scale = values.clamp_min(1e-9 * float(values[0]) + 1e-30).pow(-0.25)
        self.projection.copy_((vectors * signs * scale).float())
        return self

    def key(self, reservoir: Tensor) -> Tensor:
        """Reduce a reservoir state to a key of unit length.

        Args:
            reservoir: ``[..., N]``.

        Returns:
            ``[..., n]``; the zero state has the zero key.
        """
        key = reservoir @ self.projection
        # A maximum and not a sum: the exporter's optimiser takes a tiny summand for zero.
        return key * torch.rsqrt(key.pow(2).sum(-1, keepdim=True).clamp_min(1e-12))

    def append(self, past: Tensor, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Append waves.

        Args:
            past: The last W waves, ``[B, W, F]``.
            waves: New waves, ``[B, T, F]``.

        Returns:
            What each new step's window needs, ``[B, W - 1 + T, F]``, and the new
            buffer ``[B, W, F]``.
        """
        seen = torch.cat([past[:, 1:], waves], dim=1)
        return seen, newest(seen, self.window)

    def order(self, position: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Where the entries of the past stand, and the position after a chunk.

        Args:
            position: Steps read so far, ``[B]``.
            length: Steps in the chunk.

        Returns:
            Slots of the M entries, oldest first, ``[B, M]``, and the new position ``[B]``.
        """
        steps = torch.cat([torch.arange(self.capacity), torch.full((1,), length)])
        steps = position.unsqueeze(1) + steps  # [B, M + 1]
        return steps[:, :-1] % self.capacity, steps[:, -1]

    def in_order(self, past: Tensor, order: Tensor, new: Tensor) -> Tensor:
        """The M entries of the past, oldest first, followed by the new ones.

        Args:
            past: Circular storage, ``[B, M, ...]``.
            order: Slots from :meth:`order`, ``[B, M]``.
            new: New entries, ``[B, T, ...]``.

        Returns:
            ``[B, M + T, ...]``.
        """
        return torch.cat([_gather(past, order), new], dim=1)

    def store(self, ordered: Tensor, position: Tensor) -> Tensor:
        """Circular storage after the new entries.

        Args:
            ordered: What :meth:`in_order` returned, ``[B, M + T, ...]``.
            position: Steps read once the new entries are in, ``[B]``.

        Returns:
            ``[B, M, ...]``, each entry in slot ``step mod M``.
        """
        slots = torch.arange(self.capacity).unsqueeze(0)
        length = ordered.shape[1] - self.capacity
        return _gather(ordered, length + (slots - position.unsqueeze(1)) % self.capacity)

    def visible(self, length: int) -> Tensor:
        """Which entries each new step can find: the last M, its own included.

        Returns:
            ``[T, M + T]`` of 0 and 1, over the order of :meth:`in_order`.
        """
        step = torch.arange(length).unsqueeze(1)
        entry = torch.arange(self.capacity + length).unsqueeze(0)
        return ((entry > step) & (entry <= step + self.capacity)).float()


def _gather(x: Tensor, order: Tensor) -> Tensor:
    """``x [B, S, ...]`` at ``order [B, M]`` along axis 1."""
    if x.dim() == 2:
        return x.gather(1, order)
    return x.gather(1, order.unsqueeze(2).expand(-1, -1, x.shape[2]))
