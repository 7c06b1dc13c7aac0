"""What keeps company with what: co-occurrence statistics of a corpus, counted in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...runtime.errors import CorpusError, UsageError
from ..data.token_file import Tokens

__all__ = ["company", "count_pairs"]

_SMOOTHING = 0.1
"""Added to every count, so that a pair not seen is unlikely and not impossible."""

_WHOLE = 1_500
"""Vocabulary up to which the statistics are one matrix and its decomposition is exact."""

_DENSE = 4_096
"""Vocabulary up to which pairs are counted in a table of all pairs (128 MiB)."""

_BLOCK = 1 << 20


def company(tokens: Tokens, vocab_size: int, rank: int) -> tuple[Tensor, Tensor]:
    """Principal coordinates of what stands before and after each token.

    They are the leading left singular vectors, times their singular values, of the positive
    pointwise mutual information of a token with what stands after it, and before it, side
    by side: a matrix ``[V, 2 V]``.

    Args:
        tokens: The corpus.
        vocab_size: Number of tokens V.
        rank: Number of coordinates, at most V.

    Returns:
        Coordinates ``[V, rank]`` in float64, and which tokens occur at all, ``[V]``.

    Raises:
        CorpusError: The corpus has fewer than two tokens.
        UsageError: A token number is not below ``vocab_size``.
    """
    if len(tokens) < 2:
        raise CorpusError("token codes need a text of at least two tokens")
    pairs, counts = count_pairs(tokens, vocab_size)
    seen = torch.zeros(vocab_size, dtype=torch.bool)
    seen[pairs // vocab_size] = True
    seen[pairs % vocab_size] = True
    if vocab_size <= _WHOLE:
        left, scale, _ = torch.linalg.svd(_whole(pairs, counts, vocab_size), full_matrices=False)
    else:
        left, scale = _leading(_Information(pairs, counts, vocab_size), rank)
    coordinates = left[:, :rank] * scale[:rank]
    # A singular vector's sign is the solver's whim: make the largest entry positive.
    signs = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign()
    return coordinates * torch.where(signs == 0, 1.0, signs), seen


def count_pairs(tokens: Tokens, vocab_size: int) -> tuple[Tensor, Tensor]:
    """How often each token is followed by each other one.

    Memory does not grow with the corpus, but with the number of distinct pairs.

    Args:
        tokens: The corpus.
        vocab_size: Number of tokens V.

    Returns:
        The pairs that occur, as ``first V + second`` in rising order, ``[pairs]``, and how
        often each does, ``[pairs]``.
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
        new, times = block.unique(return_counts=True)
        every = torch.cat([pairs, new])
        pairs, place = every.unique(return_inverse=True)
        counts = torch.zeros_like(pairs).scatter_add_(0, place, torch.cat([counts, times]))
    return pairs, counts


def _pairs(tokens: Tokens, vocab_size: int, size: int) -> Iterator[Tensor]:
    """The numbers of successive pairs, ``[<= size]``."""
    for start in range(0, len(tokens) - 1, size):
        block = tokens[start : start + size + 1].tensor()
        if block.max() >= vocab_size:
            raise UsageError(
                f"there is a token {int(block.max())}, and the vocabulary has {vocab_size}; "
                "make the tokens with the tokenizer they are meant for"
            )
        yield block[:-1] * vocab_size + block[1:]


def _whole(pairs: Tensor, counts: Tensor, vocab_size: int) -> Tensor:
    """Positive pointwise mutual information, ``[V, 2 V]``."""
    after = torch.zeros(vocab_size * vocab_size, dtype=torch.float64)
    after[pairs] = counts.double()
    after = after.view(vocab_size, vocab_size)
    smooth = torch.cat([after, after.T], dim=1) + _SMOOTHING
    expected = smooth.sum(1, keepdim=True) * smooth.sum(0, keepdim=True) / smooth.sum()
    return (smooth / expected).log().clamp_min(0)


class _Information:
    """The same matrix for a large vocabulary: rows of it are made when they are asked for."""

    def __init__(self, pairs: Tensor, counts: Tensor, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        first, second = pairs // vocab_size, pairs % vocab_size
        order = (second * vocab_size + first).argsort()
        # What stands after a token, and what stands before it, each sorted by the token.
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
        """All rows in order, some at a time, ``[rows, 2 V]``."""
        size = max(1, 2 * _BLOCK // self.vocab_size)
        for start in range(0, self.vocab_size, size):
            part = slice(start, min(start + size, self.vocab_size))
            yield part, self._block(part)

    def _block(self, part: slice) -> Tensor:
        # The logarithm of a quotient is a sum; most pairs are unseen and share a summand.
        block = self.unseen - self.rows[part, None] - self.columns
        width = self.vocab_size
        for offset, (pairs, counts) in ((0, self.after), (width, self.before)):
            ends = torch.tensor([part.start * width, part.stop * width])
            low, high = torch.searchsorted(pairs, ends).tolist()
            local = pairs[low:high] - part.start * width
            places = local // width * 2 * width + local % width + offset
            block.view(-1)[places] += (counts[low:high].double() / _SMOOTHING).log1p()
        return block.clamp_min_(0)


def _leading(matrix: _Information, rank: int, steps: int = 10) -> tuple[Tensor, Tensor]:
    """Leading left singular vectors and values, by a block Krylov method.

    Musco and Musco, 2015: the products ``(A' A)^i Q`` of a random ``Q`` span a space in which
    the leading singular vectors lie almost entirely. Each product reads the matrix once.
    """
    generator = torch.Generator().manual_seed(0)
    width = 2 * matrix.vocab_size
    fresh = torch.randn(width, rank + 8, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(fresh)[0]
    newest = basis
    for _ in range(steps - 1):
        product = torch.zeros_like(newest)
        for _, block in matrix.blocks():
            product.addmm_(block.T, block @ newest)
        for _ in range(2):  # once is not orthogonal enough
            product = torch.linalg.qr(product - basis @ (basis.T @ product))[0]
        newest = product
        basis = torch.cat([basis, newest], dim=1)
    image = torch.cat([block @ basis for _, block in matrix.blocks()])
    left, scale, _ = torch.linalg.svd(image, full_matrices=False)
    return left[:, :rank], scale[:rank]
