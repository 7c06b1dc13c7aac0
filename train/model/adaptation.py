"""Weights of the memory of contexts that follow the text while a stream reads it.

Training fixes how far each context is trusted. On another kind of text, that trust is wrong. So a
stream adds a bias to the score of each context, and a temperature to the prediction, and each
token that it reads moves them down the gradient of its own surprise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .limits import FLOOR, SUREST

__all__ = ["BOUNDS", "ONLINE", "RATES", "Evidence", "Predicted", "adapt", "divide", "mix"]

ONLINE = ("adapted", "context_shares", "context_logits")
"""State tensors: the online weights, and the last prediction as :func:`adapt` takes it."""

RATES, BOUNDS = (0.15, 0.002), (8.0, 2.0)
"""Rates of the biases and of the log temperature, and the bounds that they stay within."""


class Evidence(NamedTuple):
    """What a prediction is made of.

    Attributes:
        score: Each context's score before its bias, ``[..., n]``.
        share: The newer token's share of each slot, ``[..., n]``.
        tokens: The newer token of each slot and the other one, ``[..., n, 2]``.
        network: The network's distribution, ``[..., V]``.
    """

    score: Tensor
    share: Tensor
    tokens: Tensor
    network: Tensor


class Predicted(NamedTuple):
    """A prediction.

    Attributes:
        shares: What each context gives to its newer and to its other token, ``[..., n, 2]``.
        mixed: Log-probabilities before the temperature, ``[..., V]``.
        logits: Log-probabilities, ``[..., V]``.
    """

    shares: Tensor
    mixed: Tensor
    logits: Tensor


def divide(
    evidence: Evidence, adapted: Tensor | None, trust: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Divide the prediction between the network and what followed the contexts.

    Args:
        evidence: What is mixed.
        adapted: As for :func:`mix`.
        trust: As for :func:`mix`.

    Returns:
        What the network's distribution is divided by, ``[..., 1]``, and what each context gives
        to its newer and to its other token, ``[..., n, 2]``.
    """
    score = evidence.score if adapted is None else evidence.score + adapted[..., :-1]
    weight = torch.exp(score.clamp_max(SUREST))
    if trust is not None:
        weight = weight * trust.view(-1, *[1] * (weight.ndim - 1))
    total = 1 + weight.sum(-1, keepdim=True)
    shares = torch.stack([evidence.share, 1 - evidence.share], dim=-1)
    return total, shares * (weight / total).unsqueeze(-1)


def mix(evidence: Evidence, adapted: Tensor | None, trust: Tensor | None = None) -> Predicted:
    """Mix the network and what followed the contexts.

    With ``s`` the network's distribution, ``q_i`` what followed context i, ``z_i`` its score and
    ``b_i`` its bias, the prediction is

        ``softmax(e^tau log((s + sum_i e^(z_i + b_i) q_i) / (1 + sum_i e^(z_i + b_i))))``.

    Args:
        evidence: What is mixed.
        adapted: The biases, then tau, ``[..., n + 1]``; zeros if there are none.
        trust: Factor for the share of each row's memory, ``[B]``; 1 by default.
    """
    total, shares = divide(evidence, adapted, trust)
    network, tokens = evidence.network / total, evidence.tokens.flatten(-2)
    both = network.scatter_add(-1, tokens, shares.flatten(-2))
    mixed = torch.log(both.clamp_min(FLOOR))
    if adapted is None:
        return Predicted(shares, mixed, mixed)
    logits = torch.log_softmax(mixed * adapted[..., -1:].exp(), dim=-1)
    return Predicted(shares, mixed, logits)


def adapt(
    adapted: Tensor, shares: Tensor, mixed: Tensor, came: Tensor, token: Tensor, learn: Tensor
) -> Tensor:
    """Move the online weights by the gradient of the log-probability of the token that came.

    Args:
        adapted: The biases, then the log temperature, ``[B, n + 1]``.
        shares: Shares of the prediction that the token follows, ``[B, n, 2]``.
        mixed: Its log-probabilities before the temperature, ``[B, V]``.
        came: 1 where a slot's token is the one that came, ``[B, n, 2]``.
        token: The token, ``[B, 1]``.
        learn: 1 for rows that adapt and 0 for the others, ``[B, 1]``.

    Returns:
        The weights after the token; at the start of a stream, where all is zero, none moves.
    """
    chance = mixed.gather(1, token)
    gained = shares * (came / chance.exp().unsqueeze(2) - 1)
    sharpness = adapted[:, -1:].exp()
    tempered = mixed * sharpness
    expected = (torch.softmax(tempered, dim=1) * tempered).sum(1, keepdim=True)
    uphill = torch.cat([gained.sum(2), chance * sharpness - expected], dim=1)
    biases = adapted.shape[1] - 1
    rates, bounds = (adapted.new_tensor([bias] * biases + [last]) for bias, last in (RATES, BOUNDS))
    moved = adapted + uphill * (learn * rates)
    return torch.minimum(torch.maximum(moved, -bounds), bounds)
