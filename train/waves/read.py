"""Read a text with a model and describe the waves it emits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.dual_cnn import DualCNN
from ..model.state import State
from .wave_output import WaveOutput

__all__ = ["read_waves"]


@torch.no_grad()
def read_waves(
    model: DualCNN, tokens: Tensor, state: State | None = None
) -> tuple[list[WaveOutput], State]:
    """Read a text and describe every wave it produces.

    Args:
        model: The model.
        tokens: The text, ``[T]``.
        state: State of one stream before the text; zeros by default.

    Returns:
        One wave per token, and the state after the text.
    """
    training = model.training
    model.eval()
    try:
        state = model.zero_state() if state is None else state
        start = int(state["position"][0])
        output = model.compute(tokens.view(1, -1), state, need_weights=True)
    finally:
        model.train(training)
    confidence = output.first_logits.softmax(-1).amax(-1)[0].tolist()
    entropy, peak = [0.0] * len(tokens), [0] * len(tokens)
    if output.attended is not None and output.attended.weights is not None:
        entropy = output.attended.entropy()[0].tolist()
        weights = output.attended.weights[0].mean(0)  # [T, A], oldest first
        peak = (weights.shape[1] - 1 - weights.argmax(1)).tolist()
    waves = [
        WaveOutput(
            position=start + step,
            token=int(token),
            features=output.waves[0, step].clone(),
            confidence=confidence[step],
            attention_entropy=entropy[step],
            attention_peak=peak[step],
            key=torch.zeros(0) if output.keys is None else output.keys[0, step].clone(),
        )
        for step, token in enumerate(tokens.tolist())
    ]
    return waves, output.state
