"""Co-occurrence statistics of a corpus, counted in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...runtime.errors import CorpusError, UsageError
from ..data.token_file import Tokens

__all__ = ["count_pairs", "pmi_coordinates"]

_SMOOTHING = 0.1
"""Added to every count, so that an unseen pair is unlikely rather than impossible."""

_EXACT = 1_500
"""Vocabulary size up to which the whole matrix is built and its SVD is exact."""

_DENSE = 4_096
"""Vocabulary size up to which pairs are counted in a table of all pairs (128 MiB)."""

_BLOCK = 1 << 20


def pmi_coordinates(tokens: Tokens, vocab_size: int, rank: int) -> tuple[Tensor, Tensor]:
    """Principal coordinates of the tokens by pointwise mutual information (PMI).

    They are the leading left singular vectors, scaled by their singular values, of the matrix
    ``[V, 2 V]`` that holds the positive PMI of each token with the tokens after it, followed
    by that with the tokens before it.

    Args:
        tokens: The corpus.
        vocab_size: Number of tokens V.
        rank: Number of coordinates, at most V.

    Returns:
        Coordinates ``[V, rank]`` in float64, and whether each token occurs, ``[V]``.

    Raises:
        CorpusError: The corpus has fewer than two tokens.
        UsageError: A token is not below ``vocab_size``.
    """
    if len(tokens) < 2:
        raise CorpusError(
            f"the text has {len(tokens)} tokens; fitting token codes needs at least two"
        )
    pairs, counts = count_pairs(tokens, vocab_size)
    seen = torch.zeros(vocab_size, dtype=torch.bool)
    seen[pairs // vocab_size] = True
    seen[pairs % vocab_size] = True
    if vocab_size <= _EXACT:
        left, scale, _ = torch.linalg.svd(_pmi(pairs, counts, vocab_size), full_matrices=False)
    else:
        left, scale = _leading(_LazyPmi(pairs, counts, vocab_size), rank)
    coordinates = left[:, :rank] * scale[:rank]
    # Solvers return singular vectors with arbitrary signs: make the largest entry positive.
    signs = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign()
    return coordinates * torch.where(signs == 0, 1.0, signs), seen


def count_pairs(tokens: Tokens, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Count how often each token follows each other token.

    Memory grows with the number of distinct pairs, not with the corpus.

    Args:
        tokens: The corpus.
        vocab_size: Number of tokens V.

    Returns:
        The pairs that occur, as ``first V + second`` in ascending order, ``[pairs]``, and the
        count of each, ``[pairs]``.
    """
    if vocab_size <= _DENSE:
        table = torch.zeros(vocab_size * vocab_size, dtype=torch.int64)
        for block in _pairs(tokens, vocab_size, _BLOCK):
            if len(table) <= len(block):
                table += torch.bincount(block, minlength=len(table))
            else:
                table.scatter_add_(0, block, torch.ones_like(block))
        pairs = table.nonzero().squeeze(1)
        return pairs, table[pairs]
    pairs = counts = torch.zeros(0, dtype=torch.int64)
    for block in _pairs(tokens, vocab_size, 4 * _BLOCK):
        new, times = torch.unique(block, return_counts=True)
        pairs, place = torch.unique(torch.cat([pairs, new]), return_inverse=True)
        counts = torch.zeros_like(pairs).scatter_add_(0, place, torch.cat([counts, times]))
    return pairs, counts


def _pairs(tokens: Tokens, vocab_size: int, size: int) -> Iterator[Tensor]:
    """Encode successive pairs as ``first V + second``, in blocks ``[<= size]``."""
    for start in range(0, len(tokens) - 1, size):
        block = tokens[start : start + size + 1].tensor()
        if block.max() >= vocab_size:
            raise UsageError(
                f"the text has token {int(block.max())}, but the vocabulary has {vocab_size}; "
                "encode the text with the tokenizer of this vocabulary"
            )
        yield block[:-1] * vocab_size + block[1:]


def _pmi(pairs: Tensor, counts: Tensor, vocab_size: int) -> Tensor:
    """The matrix of positive PMI, ``[V, 2 V]``."""
    after = torch.zeros(vocab_size * vocab_size, dtype=torch.float64)
    after[pairs] = counts.double()
    after = after.view(vocab_size, vocab_size)
    smooth = torch.cat([after, after.T], dim=1) + _SMOOTHING
    expected = smooth.sum(1, keepdim=True) * smooth.sum(0, keepdim=True) / smooth.sum()
    return (smooth / expected).log().clamp_min(0)


class _LazyPmi:
    """The same matrix for a large vocabulary, computed in blocks of rows."""

    def __init__(self, pairs: Tensor, counts: Tensor, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        first, second = pairs // vocab_size, pairs % vocab_size
        order = (second * vocab_size + first).argsort()
        # Pairs with the token after, and with the token before, each sorted by the token itself.
        self.after = (pairs, counts)
        self.before = ((second * vocab_size + first)[order], counts[order])
        zeros = torch.zeros(vocab_size, dtype=torch.float64)
        begins = zeros.scatter_add(0, first, counts.double())
        ends = zeros.scatter_add(0, second, counts.double())
        smoothing = _SMOOTHING * vocab_size
        self.rows = (begins + ends + 2 * smoothing).log()
        self.columns = (torch.cat([ends, begins]) + smoothing).log()
        total = 2 * int(counts.sum()) + 2 * smoothing * vocab_size
        self.unseen = math.log(total * _SMOOTHING)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Iterate over all rows, in blocks ``[rows, 2 V]``."""
        size = max(1, 2 * _BLOCK // self.vocab_size)
        for start in range(0, self.vocab_size, size):
            part = slice(start, min(start + size, self.vocab_size))
            yield part, self._block(part)

    def _block(self, part: slice) -> Tensor:
        # Sums of logarithms; most pairs are unseen and share one term.
        block = self.unseen - self.rows[part, None] - self.columns
        width = self.vocab_size
        for offset, (pairs, counts) in ((0, self.after), (width, self.before)):
            ends = torch.tensor([part.start * width, part.stop * width])
            low, high = torch.searchsorted(pairs, ends).tolist()
            local = pairs[low:high] - part.start * width
            places = local // width * 2 * width + local % width + offset
            block.view(-1)[places] += (counts[low:high].double() / _SMOOTHING).log1p()
        return block.clamp_min_(0)


def _leading(matrix: _LazyPmi, rank: int, steps: int = 10) -> tuple[Tensor, Tensor]:
    """Compute leading left singular vectors and values by a block Krylov method.

    The products ``(A' A)^i Q`` of a random ``Q`` span a space that contains the leading
    singular vectors almost entirely (Musco and Musco, 2015). Each product reads the matrix
    once.
    """
    generator = torch.Generator().manual_seed(0)
    width = 2 * matrix.vocab_size
    start = torch.randn(width, rank + 8, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(start)[0]
    newest = basis
    for _ in range(steps - 1):
        product = torch.zeros_like(newest)
        for _, block in matrix.blocks():
            product.addmm_(block.T, block @ newest)
        for _ in range(2):  # one pass is not orthogonal enough
            product = torch.linalg.qr(product - basis @ (basis.T @ product))[0]
        newest = product
        basis = torch.cat([basis, newest], dim=1)
    image = torch.cat([block @ basis for _, block in matrix.blocks()])
    left, scale, _ = torch.linalg.svd(image, full_matrices=False)
    return left[:, :rank], scale[:rank]
