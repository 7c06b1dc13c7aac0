"""Keys that memory entries are found by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ReservoirKey", "SuffixKey", "unit"]


class ReservoirKey(nn.Module):
    """The reservoir's state, reduced to n numbers and normalised.

    A reservoir maps similar recent histories to nearby states without any training.

    Args:
        size: Reservoir units N.
        width: Numbers in a key n.
    """

    projection: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.zeros(size, width))

    def fit(self, states: Tensor) -> ReservoirKey:
        """Fit the reduction to the states that a corpus produces.

        The reduction is a half-whitened principal component analysis: each component is
        scaled to the square root of its spread, so that neither the few large components nor
        the many small ones dominate (measured: ``docs/decisions.md``).

        Args:
            states: Reservoir states of the corpus, ``[samples, N]``.

        Returns:
            The key itself.
        """
        second_moment = (states.T.double() @ states.double()) / len(states)
        values, vectors = torch.linalg.eigh(second_moment)
        width = self.projection.shape[1]
        values, vectors = values.flip(0)[:width], vectors.flip(1)[:, :width]
        # Solvers return eigenvectors with arbitrary signs: make the largest entry positive.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        scale = values.clamp_min(1e-9 * float(values[0]) + 1e-30).pow(-0.25)
        self.projection.copy_((vectors * signs * scale).float())
        return self

    def forward(self, reservoir: Tensor) -> Tensor:
        """Reduce a reservoir state to a key of unit length.

        Args:
            reservoir: ``[..., N]``.

        Returns:
            ``[..., n]``; the zero state gives the zero key.
        """
        return unit(reservoir @ self.projection)


class SuffixKey(nn.Module):
    """The last tokens themselves, as the key of a memory without a reservoir.

    Each token has a random code of signs. A key concatenates the codes of the last L tokens,
    weighting later ones more, so that two positions are the more similar the longer the
    suffix they share. It serves models without a reservoir, and as the baseline in
    ``docs/ablation.md``.

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
        """Look up the codes of tokens, ``[B, T]`` to ``[B, T, w]``."""
        return F.embedding(tokens, self.codes)

    def forward(self, seen: Tensor) -> Tensor:
        """Compute the keys of every step.

        Args:
            seen: Codes of the tokens, preceded by those of the last L tokens before them,
                ``[B, L + T, w]``; zeros before the start of a stream.

        Returns:
            Keys before the first new token and after each, ``[B, T + 1, L w]``.
        """
        batch, length, width = seen.shape
        steps = length - self.length + 1
        ages = torch.arange(self.length, device=seen.device)
        places = torch.arange(steps, device=seen.device).unsqueeze(1) + ages  # [T + 1, L]
        # A gather gives the right order directly; unfold would add a transposition to the graph.
        windows = seen.index_select(1, places.flatten()).view(batch, steps, self.length, width)
        return unit((windows * self.weights.unsqueeze(1)).flatten(2))


def unit(key: Tensor) -> Tensor:
    """Scale to unit length along the last axis; zero stays zero."""
    # A maximum instead of a sum: the exporter's optimizer drops a tiny summand.
    return key * torch.rsqrt(key.pow(2).sum(-1, keepdim=True).clamp_min(1e-12))
