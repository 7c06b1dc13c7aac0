"""What an entry of the memory is found by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ReservoirKey", "SuffixKey", "unit"]


class ReservoirKey(nn.Module):
    """The reservoir's state, reduced to n numbers and normalised.

    A reservoir maps similar recent histories to nearby states, with no training.

    Args:
        size: Reservoir units N.
        width: Numbers in a key n.
    """

    projection: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.zeros(size, width))

    def fit(self, states: Tensor) -> ReservoirKey:
        """Fit the reduction to the states that a corpus drives the reservoir through.

        Principal components, half whitened: a component counts with the square root
        of its spread, so that the few large ones do not drown what tells places
        apart, nor the many small ones the rest (measured: ``docs/decisions.md``).

        Args:
            states: Reservoir states of the corpus, ``[samples, N]``.

        Returns:
            The key itself.
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

    def forward(self, reservoir: Tensor) -> Tensor:
        """Reduce a reservoir state to a key of unit length.

        Args:
            reservoir: ``[..., N]``.

        Returns:
            ``[..., n]``; the zero state has the zero key.
        """
        return unit(reservoir @ self.projection)


class SuffixKey(nn.Module):
    """The last tokens themselves: what a memory without a reservoir is keyed by.

    Each token has a random code of signs; the codes of the last L tokens stand side by
    side, later ones larger, so that two places are alike as far as their last tokens are
    the same. There to be compared with (``docs/ablation.md``), and for models that have
    no reservoir.

    Args:
        vocab_size: Number of tokens V.
        width: Numbers in a token's code w.
        length: Tokens in a key L.
        seed: Seed of the codes.
    """

    codes: Tensor
    weights: Tensor

    def __init__(self, vocab_size: int, width: int, length: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (vocab_size, width), generator=generator) * 2 - 1
        self.register_buffer("codes", signs * width**-0.5)
        ages = torch.arange(length - 1, -1, -1)
        self.register_buffer("weights", 0.8**ages)
        self.length = length

    def drive(self, tokens: Tensor) -> Tensor:
        """Codes of tokens, ``[B, T]`` to ``[B, T, w]``."""
        return F.embedding(tokens, self.codes)

    def forward(self, seen: Tensor) -> Tensor:
        """Keys of every step.

        Args:
            seen: Codes of the tokens, preceded by those of the L before, ``[B, L + T, w]``;
                zeros before the start of a stream.

        Returns:
            Keys before the first new token and after each, ``[B, T + 1, L w]``.
        """
        batch, length, width = seen.shape
        steps = length - self.length + 1
        ages = torch.arange(self.length, device=seen.device)
        places = torch.arange(steps, device=seen.device).unsqueeze(1) + ages  # [T + 1, L]
        # Not unfold: a gather gives the order that a key has, with no transposition in a graph.
        windows = seen.index_select(1, places.flatten()).view(batch, steps, self.length, width)
        return unit((windows * self.weights.unsqueeze(1)).flatten(2))


def unit(key: Tensor) -> Tensor:
    """Scale to unit length along the last axis; zero stays zero."""
    # A maximum and not a sum: the exporter's optimiser takes a tiny summand for zero.
    return key * torch.rsqrt(key.pow(2).sum(-1, keepdim=True).clamp_min(1e-12))
