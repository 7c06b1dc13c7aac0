"""The decode step of a baseline as an ONNX graph, alone and with our memory on top."""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillet.export.graphs.decode_contexts import DecodeContexts
from rillet.export.graphs.exporter_patterns import shorten_patterns
from rillet.export.graphs.stack_traces import strip_traces
from rillet.train.model.context_memory import ContextMemory
from rillet.train.model.state import State

from .baselines import GRU, Baseline
from .lstm import LSTM
from .min_gru import MinGRU
from .plain_export import export_step
from .sliding_transformer import PERIOD, SlidingTransformer

__all__ = ["baseline_step"]


def baseline_step(
    model: Baseline, memory: ContextMemory | None = None, memory_state: State | None = None
) -> onnx.ModelProto:
    """Export a step: ``input_ids [B, 1]``, ``learn [B]`` and ``past.*`` to ``logits [B, 1, V]``.

    Args:
        model: The baseline.
        memory: A memory over its features.
        memory_state: The memory's state at the start of three streams.
    """
    network: _Recurrent | _Sliding
    axes: dict[str, int] = {}
    if isinstance(model, SlidingTransformer):
        network = _Sliding(model)
    elif isinstance(model, GRU | LSTM | MinGRU):
        network, axes = _Recurrent(model), {"state": 1}
    else:
        raise TypeError(f"a {type(model).__name__} has no step; take one of full_training.BUILD")
    past = {**network.zero_state(3), **(memory_state or {})}
    graph = export_step(_Step(network, model.head_layer(), memory).eval(), past, axes)
    # As with our own graphs: the memory's code has patterns that take the exporter many nodes.
    shorten_patterns(graph.graph)
    strip_traces(graph)
    return graph


class _Step(nn.Module):
    """A network's features, and then its head or the memory, which holds the head."""

    def __init__(
        self, network: _Recurrent | _Sliding, head: nn.Linear, memory: ContextMemory | None
    ) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.memory = None if memory is None else DecodeContexts(memory, head)

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        features, present = self.network(input_ids, past)
        if self.memory is None:
            logits = self.head(features)
        else:
            logits = self.memory(input_ids, learn, features, past, present)
        return logits.unsqueeze(1), {name: present[name] for name in past}


class _Recurrent(nn.Module):
    """A recurrent baseline's own forward, with one state tensor ``[layers, B, d]``."""

    def __init__(self, model: GRU | LSTM | MinGRU) -> None:
        super().__init__()
        self.model = model

    def zero_state(self, batch: int) -> State:
        """The initial state."""
        return {"state": self.model.zero_state(batch)}

    def forward(self, tokens: Tensor, past: State) -> tuple[Tensor, State]:
        features, state = self.model.features(tokens, past["state"])
        return features.squeeze(1), {"state": state}


class _Sliding(nn.Module):
    """A sliding transformer with a cache of rotated keys, whose oldest slot each step overwrites.

    ONNX Runtime offers no cheaper update. Since all angles repeat after :data:`.PERIOD` steps, a
    step's position is counted modulo that.
    """

    def __init__(self, model: SlidingTransformer) -> None:
        super().__init__()
        self.model = model

    def zero_state(self, batch: int) -> State:
        """The initial state: keys and values of each block, and the position."""
        model = self.model
        shape = (batch, model.heads, model.window, model.size)
        names = [f"cache_{kind}{block}" for block in range(len(model.blocks)) for kind in "kv"]
        caches = {name: torch.zeros(shape) for name in names}
        return {**caches, "position": torch.zeros(batch, dtype=torch.long)}

    def forward(self, tokens: Tensor, past: State) -> tuple[Tensor, State]:
        model, position = self.model, past["position"]
        present: State = {"position": position + 1}
        x = F.embedding(tokens.squeeze(1), model.tokens.weight)  # [B, d]
        turns = model.turns((position % PERIOD).to(x.dtype).view(-1, 1, 1, 1))
        slot = (position % model.window).view(-1, 1, 1, 1)
        for index, block in enumerate(model.steps()):
            names = f"cache_k{index}", f"cache_v{index}"
            x, after = block.step(x, (past[names[0]], past[names[1]]), slot, turns)
            present.update(zip(names, after, strict=True))
        return model.norm(x), present
