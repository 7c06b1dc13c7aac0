"""The loss that trains both CNNs together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.training_config import TrainingConfig
from ..model.dual_cnn import DualCNN, DualCNNOutput, State

__all__ = ["Losses", "TrainingStep", "losses"]


@dataclass(frozen=True)
class Losses:
    """Mean losses of a step over the whole batch, in nats per token.

    Attributes:
        first: Of the first CNN.
        second: Of the final prediction, memory included.
        without_memory: Of the last CNN without the memory.
        total: The weighted sum that is minimised.
    """

    first: float
    second: float
    without_memory: float
    total: float

    @property
    def are_finite(self) -> bool:
        """Whether all of them are numbers."""
        return all(map(math.isfinite, (self.first, self.second, self.without_memory, self.total)))


def losses(output: DualCNNOutput, targets: Tensor, config: TrainingConfig) -> Tensor:
    """``0.3 CE(first CNN) + 0.7 CE(second CNN)``, the weights configurable.

    A share of the second CNN's weight goes to its prediction without the memory: on a text
    that is read again and again the memory would otherwise take over what the network could
    have learnt, and a stream that begins has no memory to lean on.

    Args:
        output: What the model computed.
        targets: The tokens that followed, ``[B, T]``.
        config: The weights.

    Returns:
        The four of :class:`Losses` over the chunk, in their order, ``[4]``.
    """
    target = targets.reshape(-1)
    first = F.cross_entropy(output.first_logits.flatten(0, 1), target)
    second = F.nll_loss(output.logits.flatten(0, 1), target)
    without = F.cross_entropy(output.without_memory.flatten(0, 1), target)
    share = config.network_share
    mixed = (1 - share) * second + share * without
    total = config.first_weight * first + config.second_weight * mixed
    return torch.stack([first, second, without, total])


class TrainingStep(nn.Module):
    """Model and loss as one module, so that ``DistributedDataParallel`` can wrap them.

    Args:
        model: The model.
        config: How to train.
    """

    def __init__(self, model: DualCNN, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self, inputs: Tensor, targets: Tensor, state: State, trust: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """Read a chunk.

        Returns:
            The loss to minimise, the four losses ``[4]`` without gradients, and the state
            after the chunk.
        """
        output = self.model.compute(inputs, state, trust=trust)
        found = losses(output, targets, self.config)
        state = {name: tensor.detach() for name, tensor in output.state.items()}
        return found[-1], found.detach(), state
