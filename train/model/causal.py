"""Causal windows over time, shared by attention and convolutions.

Both take a chunk of T steps preceded by the ``window - 1`` steps before it,
``[B, window - 1 + T, ...]``. A long chunk is cut into blocks of queries, each with only the
keys it can see, so that the cost grows with T instead of T².
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "attention_weights",
    "band",
    "causal_attention",
    "causal_filters",
    "newest",
    "shifted_sum",
]


def band(queries: int, window: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Compute which steps each query sees, and at what distance.

    Args:
        queries: Number of queries T.
        window: Steps that a query sees, its own included.
        device: Device of the result.

    Returns:
        Two tensors ``[T, window - 1 + T]``: whether the query sees the step, and the
        distance in steps, clamped to 0 .. window - 1.
    """
    query = torch.arange(queries, device=device).unsqueeze(1)
    step = torch.arange(queries + window - 1, device=device).unsqueeze(0)
    distance = query + (window - 1) - step
    seen = (distance >= 0) & (distance < window)
    return seen, distance.clamp(0, window - 1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Multi-head attention of each query over the last steps, its own included.

    Softmax attention (Vaswani et al., 2017) with a learned bias for each head and distance.
    Steps before the start of the stream have zero keys and values, and are attended to like
    any other.

    Args:
        q: Scaled queries, ``[B, H, T, e]``.
        k: Keys, ``[B, H, window - 1 + T, e]``.
        v: Values, in the shape of ``k``.
        bias: Score added at each distance, ``[H, window]``.

    Returns:
        ``[B, H, T, e]``.
    """
    batch, heads, length, width = q.shape
    window = bias.shape[1]
    if torch.compiler.is_exporting() or length <= window:
        # An exported graph must work for every T, so it treats the chunk as one block.
        seen, distance = band(length, window, q.device)
        scores = torch.where(seen, bias[:, distance], -torch.inf)  # [H, T, window - 1 + T]
        return torch.softmax(q @ k.transpose(-1, -2) + scores, dim=-1) @ v
    blocks = -(-length // window)
    missing = blocks * window - length
    q = F.pad(q, (0, 0, 0, missing)).view(batch, heads, blocks, window, width)
    k, v = (_pairs_of_blocks(x, missing, window) for x in (k, v))  # [B, H, n, 2 window, e]
    seen, distance = band(window, window + 1, q.device)
    bias = F.pad(bias, (0, 1), value=-torch.inf)  # a pair of blocks has one step too many
    scores = torch.where(seen, bias[:, distance], -torch.inf)  # [H, window, 2 window]
    weights = torch.softmax(q @ k.transpose(-1, -2) + scores.unsqueeze(1), dim=-1)
    mixed = weights @ v  # [B, H, n, window, e]
    return mixed.reshape(batch, heads, blocks * window, width)[:, :, :length]


def _pairs_of_blocks(x: Tensor, missing: int, window: int) -> Tensor:
    """Join each block of ``window`` steps with the block before it.

    Slices replace ``unfold``, whose backward pass took 5 % of a training step.

    Args:
        x: ``[B, H, window - 1 + T, e]``.
        missing: Steps that pad T to whole blocks.
        window: Steps in a block.

    Returns:
        ``[B, H, blocks, 2 window, e]``.
    """
    batch, heads, _, width = x.shape
    x = F.pad(x, (0, 0, 1, missing)).view(batch, heads, -1, window, width)
    return torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3)


def attention_weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Compute the weights of :func:`causal_attention`, for inspection.

    Returns:
        ``[B, H, T, window]``, oldest step first.
    """
    window = bias.shape[1]
    steps = torch.arange(q.shape[2], device=q.device).unsqueeze(1)
    seen = steps + torch.arange(window, device=q.device)  # [T, window]
    scores = torch.einsum("bhte,bhtwe->bhtw", q, k[:, :, seen])
    return torch.softmax(scores + bias.flip(1).unsqueeze(1), dim=-1)


def causal_filters(x: Tensor, filters: Tensor) -> Tensor:
    """Long causal depthwise convolution with several filters per feature.

    Training multiplies blocks of time by one banded matrix per feature, which is five times
    faster on a CPU than a depthwise convolution with 32 taps.

    Args:
        x: ``[B, window - 1 + T, F]``.
        filters: Taps, oldest first, ``[F, K, window]``.

    Returns:
        ``[B, T, F K]``; the K outputs of a feature are adjacent.
    """
    features, multiplier, window = filters.shape
    batch, length = x.shape[0], x.shape[1] - window + 1
    if torch.compiler.is_exporting():
        taps = filters.reshape(features * multiplier, 1, window)
        return F.conv1d(x.transpose(1, 2), taps, groups=features).transpose(1, 2)
    block = window
    blocks = -(-length // block)
    seen, distance = band(block, window + 1, x.device)
    # Widen the window by one step, so that a block and the one before it align.
    filters = F.pad(filters, (1, 0))
    toeplitz = filters[:, :, window - distance] * seen  # [F, K, block, 2 block]
    toeplitz = toeplitz.permute(0, 3, 1, 2).reshape(features, -1, multiplier * block)
    x = F.pad(x, (0, 0, 1, blocks * block - length)).view(batch, blocks + 1, block, features)
    x = torch.cat([x[:, :-1], x[:, 1:]], dim=2)  # [B, n, 2 block, F]
    x = x.permute(3, 0, 1, 2).reshape(features, batch * blocks, 2 * block)
    y = torch.bmm(x, toeplitz).view(features, batch, blocks, multiplier, block)
    y = y.permute(1, 2, 4, 0, 3).reshape(batch, blocks * block, features * multiplier)
    return y[:, :length]


def newest(x: Tensor, count: int) -> Tensor:
    """Take the last ``count`` steps of ``x [B, S, ...]``.

    This is a gather because TensorRT loses the static size of a slice whose start is known
    only at run time.
    """
    return x.index_select(1, torch.arange(count, device=x.device) + (x.shape[1] - count))


def shifted_sum(x: Tensor, taps: Tensor) -> Tensor:
    """Short causal depthwise convolution, computed as a sum of shifted copies.

    Args:
        x: ``[B, k - 1 + T, d]``.
        taps: Oldest first, ``[k, d]``.

    Returns:
        ``[B, T, d]``.
    """
    kernel = taps.shape[0]
    length = x.shape[1] - kernel + 1
    total = x[:, :length] * taps[0]
    for index in range(1, kernel):
        total = total + x[:, index : index + length] * taps[index]
    return total
