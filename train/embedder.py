"""Token codes for the reservoir, and the trained token embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..runtime.errors import CorpusError

__all__ = ["SinusoidalEmbedder", "fit_codes"]

_NEIGHBOUR = 0.3
"""Similarity of a typical token's code to its nearest neighbour's: alike, but told apart."""


class SinusoidalEmbedder(nn.Module):
    """Two views of a token: a fixed code for the reservoir, a trained embedding.

    The fixed code places tokens that occur in similar company near each other.
    It is a random Fourier feature map (Rahimi and Recht, 2007) of the leading
    principal coordinates of the corpus's co-occurrence statistics (positive
    pointwise mutual information; Levy and Goldberg, 2014)::

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

    def fit(self, tokens: Tensor, seed: int = 0) -> SinusoidalEmbedder:
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


def fit_codes(tokens: Tensor, vocab_size: int, code_width: int, seed: int = 0) -> Tensor:
    """Sinusoidal codes of co-occurrence statistics.

    Args:
        tokens: The corpus, ``[length]``; token numbers below ``vocab_size``.
        vocab_size: Number of tokens V.
        code_width: Width w of a code.
        seed: Seed of the random frequencies.

    Returns:
        Codes of unit length, ``[V, w]``.
    """
    if len(tokens) < 2:
        raise CorpusError("token codes need a text of at least two tokens")
    tokens = tokens.to(torch.int64)
    # What stands before a token and what stands after it, side by side: [V, 2V].
    pairs = tokens[:-1] * vocab_size + tokens[1:]
    after = torch.bincount(pairs, minlength=vocab_size * vocab_size).double()
    after = after.view(vocab_size, vocab_size)
    counts = torch.cat([after, after.T], dim=1) + 0.1
    total = counts.sum()
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / total
    information = (counts / expected).log().clamp_min(0)
    left, scale, _ = torch.linalg.svd(information, full_matrices=False)
    rank = min(16, vocab_size)
    coordinates = left[:, :rank] * scale[:rank]
    # A singular vector's sign is the solver's whim: make the largest entry positive.
    signs = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign()
    coordinates = coordinates * torch.where(signs == 0, 1.0, signs)
    generator = torch.Generator().manual_seed(seed)
    # A token that the corpus lacks keeps no company: it gets a place of its own.
    seen = torch.bincount(tokens, minlength=vocab_size) > 0
    places = torch.randn(vocab_size, rank, generator=generator, dtype=torch.float64)
    coordinates = torch.where(seen.unsqueeze(1), coordinates, places)
    coordinates = coordinates / coordinates.norm(dim=1, keepdim=True).clamp_min(1e-12)
    bandwidth = math.sqrt(2 * math.log(1 / _NEIGHBOUR)) / _neighbour_distance(coordinates[seen])
    half = (code_width + 1) // 2
    frequencies = torch.randn(rank, half, generator=generator, dtype=torch.float64)
    angles = coordinates @ (frequencies * bandwidth)
    codes = torch.cat([angles.sin(), angles.cos()], dim=1)[:, :code_width]
    unit: Tensor = codes / codes.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit.float()


def _neighbour_distance(coordinates: Tensor) -> float:
    """Distance of a typical token to its nearest neighbour."""
    if len(coordinates) < 2:
        return 1.0
    distances = torch.cdist(coordinates, coordinates).fill_diagonal_(torch.inf)
    return max(1e-3, float(distances.min(1).values.median()))
