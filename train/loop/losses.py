"""The loss that trains both CNNs together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config.training_config import TrainingConfig
from ..model.dual_cnn import DualCNN, DualCNNOutput
from ..model.state import State

__all__ = ["Losses", "TrainingStep", "training_losses"]


@dataclass(frozen=True)
class Losses:
    """Mean losses of a step over the whole batch, in nats per token.

    Attributes:
        first: Loss of the first CNN.
        second: Loss of the final prediction, memory included.
        without_memory: Loss of the last CNN without the memory.
        total: The weighted sum that training minimizes.
    """

    first: float
    second: float
    without_memory: float
    total: float

    @property
    def are_finite(self) -> bool:
        """Whether every loss is a finite number."""
        return all(map(math.isfinite, (self.first, self.second, self.without_memory, self.total)))


def training_losses(output: DualCNNOutput, config: TrainingConfig) -> Tensor:
    """Compute ``0.3 CE(first CNN) + 0.7 CE(second CNN)`` and its terms; weights are settings.

    A share of the second CNN's weight goes to its prediction without the memory. Otherwise,
    over many epochs, the memory would take over what the network could learn, and a new
    stream has no memory to rely on.

    Args:
        output: Result of the model for given targets.
        config: Supplies the weights.

    Returns:
        The four fields of :class:`Losses` over the chunk, in order, ``[4]``.
    """
    predictions = (output.first_logits, output.logits, output.without_memory)
    first, second, without = (-prediction.mean() for prediction in predictions)
    share = config.network_share
    mixed = (1 - share) * second + share * without
    total = config.first_weight * first + config.second_weight * mixed
    return torch.stack([first, second, without, total])


class TrainingStep(nn.Module):
    """Model and loss as one module, so that ``DistributedDataParallel`` can wrap them.

    Args:
        model: The model.
        config: Settings of training.
    """

    def __init__(self, model: DualCNN, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self, inputs: Tensor, targets: Tensor, state: State, trust: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """Read a chunk.

        Args:
            inputs: ``[B, T]``.
            targets: The tokens that followed, ``[B, T]``.
            state: State before the chunk.
            trust: Factor for each row's memory gate, ``[B]``.

        Returns:
            The loss to minimize, all four losses ``[4]`` without gradients, and the state
            after the chunk.
        """
        output = self.model.compute(inputs, state, trust=trust, targets=targets)
        losses = training_losses(output, self.config)
        state = {name: tensor.detach() for name, tensor in output.state.items()}
        return losses[-1], losses.detach(), state
