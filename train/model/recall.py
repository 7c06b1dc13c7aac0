"""Read the stream's memory with a kernel over its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["closeness", "least_weight", "recall_tokens", "split_key"]

_GRID = 2048.0
"""The coarse part of a key is a multiple of 2**-11. The product of two such numbers is a multiple
of 2**-22, so a sum of products below 2 is exact in float32, whatever the order of summation."""

_ROWS, _STEPS = 4, 64
"""Streams and steps computed at a time, chosen so that their weights fit a core's cache."""

_FAR = 80.0
"""An exponent that counts as zero: e^-80 is still a normal number, and processors take five times
as long for the subnormal numbers below."""


def recall_tokens(
    query: Tensor,
    keys: Tensor,
    tokens: Tensor,
    beta: Tensor,
    visible: Tensor,
    fast: torch.dtype | None = None,
) -> Tensor:
    """Weigh each token by how often it followed when the stream was in a similar state.

    This is kernel regression over the stored entries (Nadaraya and Watson, 1964), as in kNN
    language models (Khandelwal et al., 2020), but without trained keys::

        w_j = max(0, exp(beta (k . k_j - 1)) - exp(-0.499 beta))
        m   = sum_j w_j onehot(x_j),    sum_v m_v = z

    Keys have unit length, so ``k . k_j - 1 = -|k - k_j|^2 / 2``. A zero key is at distance
    1/2 in this measure, just beyond the cutoff: its weight is exactly 0.

    Args:
        query: Keys of the current steps, ``[B, T, n]``.
        keys: Stored keys, ``[B, S, n]``; a zero key is never found.
        tokens: The tokens that followed, one-hot, ``[B, S, V]``.
        beta: Sharpness, ``[1]``.
        visible: 1 if a step can see an entry, else 0, ``[T, S]``.
        fast: Allow the rounding of training, and multiply weights and tokens in this type;
            otherwise distances are those of :func:`closeness`.

    Returns:
        The mass of each token, ``m [B, T, V]``.
    """
    if torch.compiler.is_exporting():
        close = closeness(query, keys)
        return (torch.relu(torch.exp(beta * close) - least_weight(beta)) * visible) @ tokens
    return _recall(query, keys, tokens, beta, visible, fast)


def least_weight(beta: Tensor) -> Tensor:
    """The kernel's cutoff weight, just above that of a zero key, ``exp(-beta / 2)``."""
    return torch.exp(-0.499 * beta)


def closeness(query: Tensor, keys: Tensor) -> Tensor:
    """Compute ``-|k - k_j|^2 / 2`` for each query and key, accurate to 1e-8.

    In float32, ``k . k_j - 1`` has an error of up to 5e-7, which is then multiplied by beta.
    The error of a matrix product differs from that of a vector product, so that logits
    changed by 2e-5 with the length of the chunks. Each key is therefore split into a coarse
    part, whose products are exact, and a remainder, whose products are small.

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
    # |k|^2 / 2 is that of the coarse part, already subtracted, plus what the remainder adds.
    small = small - _half_square_rest(coarse_query, rest_query)
    small = small - _half_square_rest(coarse_keys, rest_keys).transpose(1, 2)
    return exact + small


def split_key(key: Tensor) -> tuple[Tensor, Tensor]:
    """Split keys ``[..., n]`` into a coarse part, whose products are exact, and a remainder."""
    coarse = torch.round(key * _GRID) * (1 / _GRID)
    return coarse, key - coarse


def _half_square(coarse: Tensor) -> Tensor:
    return coarse.pow(2).sum(2, keepdim=True) * 0.5


def _half_square_rest(coarse: Tensor, rest: Tensor) -> Tensor:
    return (rest * (coarse + rest * 0.5)).sum(2, keepdim=True)


class _Recall(torch.autograd.Function):
    """:func:`recall_tokens` with a gradient for beta alone.

    Keys and tokens are not trained, so the backward pass needs only dm/dbeta, which the
    forward pass computes along the way. Automatic differentiation took four times as long.
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
        recalled = tokens.new_empty(batch, length, tokens.shape[2], dtype=kind)
        slope = torch.empty_like(recalled) if ctx.needs_input_grad[3] else None
        # An entry that a step cannot see gets an exponent that counts as zero.
        hidden = torch.where(visible > 0, -beta, -2 * beta - _FAR) if fast else visible
        followed = tokens.to(kind)
        # On a CPU, use tiles that fit the cache, each with only the entries that its steps can
        # see. A GPU is faster with everything at once.
        on_cpu = query.device.type == "cpu"
        height, width = (_ROWS, _STEPS) if on_cpu else (batch, length)
        for row in range(0, batch, height):
            rows = slice(row, row + height)
            for start in range(0, length, width):
                steps = slice(start, min(start + width, length))
                seen = slice(start + 1, steps.stop + capacity)
                q, k = query[rows, steps], keys[rows, seen]
                if fast:
                    # Leave out the kernel's offset, which is 1e-13 at the usual beta.
                    bias = hidden[steps, seen]
                    scaled = torch.baddbmm(bias, q * beta, k.transpose(1, 2)).clamp_(min=-_FAR)
                    weights = scaled.exp()
                else:
                    scaled = closeness(q, k) * beta
                    weights = (scaled.exp() - least_weight(beta)).relu_()
                    weights = weights.mul_(visible[steps, seen])
                x = followed[rows, seen]
                recalled[rows, steps] = weights.to(kind) @ x
                if slope is not None:
                    # The kernel's slope is close * exp(beta close); its offset's is negligible.
                    slope[rows, steps] = scaled.mul_(weights).to(kind) @ x
        if slope is not None:
            ctx.save_for_backward(slope.to(tokens.dtype) / beta)
        return recalled.to(tokens.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return None, None, None, (grad * slope).sum().view(1), None, None


_recall: Callable[..., Tensor] = _Recall.apply
