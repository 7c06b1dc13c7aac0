"""A trial of parts that the caller replaces, before anything is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.errors import UsageError
from .config.model_config import DualCNNConfig
from .model.dropout_noise import Noise
from .model.dual_cnn import DualCNN
from .model.state import State

__all__ = ["blamed_part", "try_model"]


class _Table(dict[str, Tensor]):
    """A state that says what it lacks."""

    def __missing__(self, name: str) -> Tensor:
        raise UsageError(f"the settings have no state tensor {name!r}; they have {', '.join(self)}")


@torch.no_grad()
def try_model(model: DualCNN) -> None:
    """Read two tokens, and compare the state and the prediction with the table of the settings.

    Raises:
        UsageError: A tensor has another shape or type.
        Exception: A part of the caller's own raises what it may.
    """
    before, training = _Table(model.zero_state()), model.training
    with torch.random.fork_rng(devices=[]):
        try:
            logits, after = model.eval()(torch.zeros(1, 2, dtype=torch.int64), before)
        finally:
            model.train(training)
    expected: State = {**before, "logits": torch.zeros(1, 2, model.config.vocab_size)}
    for name, tensor in {**after, "logits": logits}.items():
        if (tensor.shape, tensor.dtype) != (expected[name].shape, expected[name].dtype):
            raise UsageError(
                f"{name} after two tokens is {_described(tensor)}; it must be "
                f"{_described(expected[name])}"
            )


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def blamed_part(config: DualCNNConfig, own: dict[str, nn.Module | None]) -> str:
    """The replaced part of a model that fails: the first that fails among the usual others."""
    for name, part in own.items():
        try:
            try_model(DualCNN(config, Noise(), **{name: part}))
        except Exception:
            return name
    return list(own)[-1]  # they fail together
