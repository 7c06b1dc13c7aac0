"""Token codes for the reservoir, and the trained token embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..data.token_file import Tokens
from .cooccurrence import pmi_coordinates

__all__ = ["SinusoidalEmbedder", "fit_codes"]

_NEIGHBOUR_SIMILARITY = 0.3
"""Similarity of a typical token's code to its nearest neighbour's: related, but distinct."""

_ROWS = 2_048
"""Tokens whose distances to all others are computed together."""


class SinusoidalEmbedder(nn.Module):
    """Two views of a token: a fixed code for the reservoir, and a trained embedding.

    The fixed codes of tokens that occur in similar contexts are close to each other. They
    are a random Fourier feature map (Rahimi and Recht, 2007) of the leading principal
    coordinates of the corpus's co-occurrence statistics (positive pointwise mutual
    information; Levy and Goldberg, 2014)::

        c_x = sqrt(2 / w) [sin(P_x Omega), cos(P_x Omega)],    |c_x| = 1

    Args:
        vocab_size: Number of tokens V.
        code_width: Width w of a code.
        width: Width d of the trained embedding.
    """

    codes: Tensor

    def __init__(self, vocab_size: int, code_width: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(vocab_size, code_width))
        self.embedding = nn.Embedding(vocab_size, width)

    def fit(self, tokens: Tensor | Tokens, seed: int = 0) -> SinusoidalEmbedder:
        """Fit the fixed codes to a corpus.

        Args:
            tokens: The corpus, ``[length]``.
            seed: Seed of the random frequencies.

        Returns:
            The embedder itself.
        """
        vocab_size, code_width = self.codes.shape
        self.codes.copy_(fit_codes(tokens, vocab_size, code_width, seed))
        return self


def fit_codes(tokens: Tensor | Tokens, vocab_size: int, code_width: int, seed: int = 0) -> Tensor:
    """Compute sinusoidal codes from co-occurrence statistics.

    Args:
        tokens: The corpus, ``[length]``; every token is below ``vocab_size``. It is read in
            blocks, so tokens mapped from a file need not fit in memory.
        vocab_size: Number of tokens V.
        code_width: Width w of a code.
        seed: Seed of the random frequencies.

    Returns:
        Codes of unit length, ``[V, w]``.
    """
    rank = min(16, vocab_size)
    coordinates, seen = pmi_coordinates(Tokens.of(tokens), vocab_size, rank)
    generator = torch.Generator().manual_seed(seed)
    # A token that never occurs has no statistics, and gets a random place.
    places = torch.randn(vocab_size, rank, generator=generator, dtype=torch.float64)
    coordinates = torch.where(seen.unsqueeze(1), coordinates, places)
    coordinates = coordinates / coordinates.norm(dim=1, keepdim=True).clamp_min(1e-12)
    spread = math.sqrt(2 * math.log(1 / _NEIGHBOUR_SIMILARITY))
    bandwidth = spread / _neighbour_distance(coordinates[seen])
    half = (code_width + 1) // 2
    frequencies = torch.randn(rank, half, generator=generator, dtype=torch.float64)
    angles = coordinates @ (frequencies * bandwidth)
    codes = torch.cat([angles.sin(), angles.cos()], dim=1)[:, :code_width]
    unit: Tensor = codes / codes.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit.float()


def _neighbour_distance(coordinates: Tensor) -> float:
    """Median distance of a token to its nearest neighbour."""
    if len(coordinates) < 2:
        return 1.0
    nearest = []
    for start in range(0, len(coordinates), _ROWS):
        distances = torch.cdist(coordinates[start : start + _ROWS], coordinates)
        distances.diagonal(start).fill_(torch.inf)
        nearest.append(distances.min(1).values)
    return max(1e-3, float(torch.cat(nearest).median()))
