"""Our model computed the way one would first write it down: the same function, only slower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from rillet.train.model import attention, readout_cnn, stream_memory, wave_cnn
from rillet.train.model.causal import band
from rillet.train.model.recall import least_weight
from rillet.train.model.reservoir import SparseReservoir

__all__ = ["naive_forms"]


@contextmanager
def naive_forms() -> Iterator[None]:
    """Replace every optimised part of the model while the context is open.

    The memory's read is differentiated automatically, with the weights of a whole batch at once;
    dropout draws its own noise; gradients are tracked through the reservoir's loop; depthwise
    convolutions are ``conv1d``; attention takes a chunk as a whole.
    """
    with ExitStack() as stack:
        for owner, name, form in (
            (stream_memory, "recall_tokens", _recall),
            (wave_cnn.Dropout, "forward", _dropout),
            (SparseReservoir, "run", _run_reservoir),
            (readout_cnn, "causal_filters", _causal_filters),
            (wave_cnn, "shifted_sum", _shifted_sum),
            (attention, "causal_attention", _causal_attention),
        ):
            stack.enter_context(patch.object(owner, name, form))
        yield


def _recall(
    query: Tensor, keys: Tensor, tokens: Tensor, beta: Tensor, visible: Tensor, fast: object = None
) -> Tensor:
    close = query @ keys.transpose(1, 2) - 1
    return (torch.relu(torch.exp(beta * close) - least_weight(beta)) * visible) @ tokens


def _dropout(self: wave_cnn.Dropout, x: Tensor) -> Tensor:
    return F.dropout(x, self.share, self.training)


def _run_reservoir(self: SparseReservoir, state: Tensor, drive: Tensor) -> Tensor:
    states = []
    for step in drive.unbind(1):
        state = self.step(state, step)
        states.append(state)
    return torch.stack(states, dim=1)


def _causal_filters(x: Tensor, filters: Tensor) -> Tensor:
    taps = filters.flatten(0, 1).unsqueeze(1)  # [F K, 1, window]
    return F.conv1d(x.transpose(1, 2), taps, groups=filters.shape[0]).transpose(1, 2)


def _shifted_sum(x: Tensor, taps: Tensor) -> Tensor:
    return _causal_filters(x, taps.T.unsqueeze(1))


def _causal_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    seen, distance = band(q.shape[2], bias.shape[1], q.device)
    scores = q @ k.transpose(-1, -2) + torch.where(seen, bias[:, distance], -torch.inf)
    return torch.softmax(scores, dim=-1) @ v
