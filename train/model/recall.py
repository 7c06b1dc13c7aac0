"""Reading the stream's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["closeness", "least_weight", "recall", "split_key"]

_GRID = 2048.0
"""Keys are cut at 2**-11: a product of two such numbers is a multiple of 2**-22, and a sum
of them that stays below 2 is exact in float32, in whatever order it is taken."""

_ROWS, _STEPS = 4, 64
"""Streams and steps that are computed at a time: their weights fit a core's cache."""

_FAR = 80.0
"""An exponent that is as good as 0: e^-80 is still a normal number, and what lies below takes
the processor five times as long."""


def recall(
    query: Tensor,
    keys: Tensor,
    tokens: Tensor,
    beta: Tensor,
    visible: Tensor,
    fast: torch.dtype | None = None,
) -> Tensor:
    """How much each token is what followed when the stream was in a similar state.

    Kernel regression over the stored entries (Nadaraya and Watson, 1964), as in
    kNN language models (Khandelwal et al., 2020), without any trained key::

        w_j = max(0, exp(beta (k . k_j - 1)) - exp(-0.499 beta))
        m   = sum_j w_j onehot(x_j),    sum_v m_v = z

    Keys have unit length, so that ``k . k_j - 1 = -|k - k_j|^2 / 2``. Measured by that
    distance a zero key stands at 1/2, just beyond the cut: its weight is exactly 0.

    Args:
        query: Keys of the current steps, ``[B, T, n]``.
        keys: Stored keys, ``[B, S, n]``; a zero key is never found.
        tokens: What followed, one-hot, ``[B, S, V]``.
        beta: Sharpness, ``[1]``.
        visible: 0 or 1 for each step and entry, ``[T, S]``.
        fast: Round as training may, and multiply weights and tokens in this type;
            otherwise the distances are those of :func:`closeness`.

    Returns:
        ``m [B, T, V]``.
    """
    if torch.compiler.is_exporting():
        close = closeness(query, keys)
        return (torch.relu(torch.exp(beta * close) - least_weight(beta)) * visible) @ tokens
    found: Tensor = _Recall.apply(query, keys, tokens, beta, visible, fast)  # type: ignore[no-untyped-call]
    return found


def least_weight(beta: Tensor) -> Tensor:
    """The weight that the kernel is cut at: just above that of a zero key, ``exp(-beta / 2)``."""
    return torch.exp(-0.499 * beta)


def closeness(query: Tensor, keys: Tensor) -> Tensor:
    """``-|k - k_j|^2 / 2`` for each query and key, to 1e-8.

    In float32, ``k . k_j - 1`` has an error of up to 5e-7, which beta multiplies; it
    differs between a product of matrices and one of vectors, so that the same text read
    in other chunks gave logits that differed by 2e-5. Each key is therefore split into
    a coarse part, whose products are exact, and a rest, whose products are small.

    Args:
        query: ``[B, T, n]``.
        keys: ``[B, S, n]``.

    Returns:
        ``[B, T, S]``.
    """
    coarse_query, rest_query = split_key(query)
    coarse_keys, rest_keys = split_key(keys)
    exact = coarse_query @ coarse_keys.transpose(1, 2)
    exact = exact - _half_square(coarse_query)
    exact = exact - _half_square(coarse_keys).transpose(1, 2)
    left = torch.cat([query, rest_query], dim=2)
    right = torch.cat([rest_keys, coarse_keys], dim=2)
    small = left @ right.transpose(1, 2)
    # |k|^2 / 2 is the coarse part's, already subtracted, and what the rest adds to it.
    small = small - _half_square_rest(coarse_query, rest_query)
    small = small - _half_square_rest(coarse_keys, rest_keys).transpose(1, 2)
    return exact + small


def split_key(key: Tensor) -> tuple[Tensor, Tensor]:
    """Split keys ``[..., n]`` into a coarse part, whose products are exact, and the rest."""
    coarse = torch.round(key * _GRID) * (1 / _GRID)
    return coarse, key - coarse


def _half_square(coarse: Tensor) -> Tensor:
    return coarse.pow(2).sum(2, keepdim=True) * 0.5


def _half_square_rest(coarse: Tensor, rest: Tensor) -> Tensor:
    return (rest * (coarse + rest * 0.5)).sum(2, keepdim=True)


class _Recall(torch.autograd.Function):
    """:func:`recall` with a gradient for beta alone.

    Keys and tokens are not trained, so dm/dbeta, computed on the way, is all that
    a backward pass needs: automatic differentiation took four times as long.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        tokens: Tensor,
        beta: Tensor,
        visible: Tensor,
        fast: torch.dtype | None,
    ) -> Tensor:
        batch, length, _ = query.shape
        capacity = keys.shape[1] - length
        kind = fast or tokens.dtype
        found = tokens.new_empty(batch, length, tokens.shape[2], dtype=kind)
        slope = torch.empty_like(found) if ctx.needs_input_grad[3] else None
        # What a step cannot see gets an exponent that makes 0 of it.
        hidden = torch.where(visible > 0, -beta, -2 * beta - _FAR) if fast else visible
        followed = tokens.to(kind)
        # Tiles that fit the cache, and each with just the entries that some step in it sees; a GPU
        # would rather have all at once.
        on_cpu = query.device.type == "cpu"
        height, width = (_ROWS, _STEPS) if on_cpu else (batch, length)
        for row in range(0, batch, height):
            rows = slice(row, row + height)
            for start in range(0, length, width):
                steps = slice(start, min(start + width, length))
                seen = slice(start + 1, steps.stop + capacity)
                q, k = query[rows, steps], keys[rows, seen]
                if fast:
                    # The kernel without its offset, which is 1e-13 at the usual beta.
                    bias = hidden[steps, seen]
                    scaled = torch.baddbmm(bias, q * beta, k.transpose(1, 2)).clamp_(min=-_FAR)
                    weights = scaled.exp()
                else:
                    scaled = closeness(q, k) * beta
                    weights = (scaled.exp() - least_weight(beta)).relu_()
                    weights = weights.mul_(visible[steps, seen])
                x = followed[rows, seen]
                found[rows, steps] = weights.to(kind) @ x
                if slope is not None:
                    # d/dbeta of the kernel is close * exp(beta close); its offset's is negligible.
                    slope[rows, steps] = scaled.mul_(weights).to(kind) @ x
        if slope is not None:
            ctx.save_for_backward(slope.to(tokens.dtype) / beta)
        return found.to(tokens.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return None, None, None, (grad * slope).sum().view(1), None, None
