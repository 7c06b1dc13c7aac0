"""Reading the stream's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["recall"]


def recall(query: Tensor, keys: Tensor, tokens: Tensor, beta: Tensor, visible: Tensor) -> Tensor:
    """How much each token is what followed when the stream was in a similar state.

    Kernel regression over the stored entries (Nadaraya and Watson, 1964), as in
    kNN language models (Khandelwal et al., 2020), without any trained key::

        m = sum_j exp(beta (k . k_j - 1)) onehot(x_j),    sum_v m_v = z

    Args:
        query: Keys of the current steps, ``[B, T, n]``.
        keys: Stored keys, ``[B, S, n]``; a zero key is never found.
        tokens: What followed, one-hot, ``[B, S, V]``.
        beta: Sharpness, a scalar tensor.
        visible: 0 or 1 for each step and entry, ``[T, S]``.

    Returns:
        ``m [B, T, V]``.
    """
    if torch.compiler.is_exporting():
        return (_similarity(query, keys, beta, visible)) @ tokens
    return _Recall.apply(query, keys, tokens, beta, visible)


def _similarity(query: Tensor, keys: Tensor, beta: Tensor, visible: Tensor) -> Tensor:
    return torch.exp(beta * (query @ keys.transpose(1, 2)) - beta) * visible


class _Recall(torch.autograd.Function):
    """:func:`recall` with a gradient for beta alone.

    Keys and tokens are not trained, so dm/dbeta, computed on the way, is all that
    a backward pass needs: automatic differentiation took five times as long.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, tokens: Tensor, beta: Tensor, visible: Tensor
    ) -> Tensor:
        exponent = query @ keys.transpose(1, 2)
        exponent.mul_(beta).sub_(beta)
        weights = torch.exp(exponent).mul_(visible)
        found = weights @ tokens
        if ctx.needs_input_grad[3]:
            ctx.save_for_backward(exponent.mul_(weights) @ tokens, beta)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor, None]:
        slope, beta = ctx.saved_tensors
        return None, None, None, (grad * slope).sum() / beta, None
