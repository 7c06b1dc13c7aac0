"""The decode step of a baseline as an ONNX graph, alone and with our memory on top."""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillet.export.graphs.decode_contexts import DecodeContexts
from rillet.train.model.context_memory import ContextMemory
from rillet.train.model.state import State

from .baselines import Baseline
from .plain_export import export_step
from .sliding_transformer import PERIOD, SlidingTransformer, rotate

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
    sliding = isinstance(model, SlidingTransformer)
    network: _Recurrent | _Sliding = _Sliding(model) if sliding else _Recurrent(model)
    past = {**network.zero_state(3), **(memory_state or {})}
    step = _Step(network, model.head_layer(), memory)
    return export_step(step.eval(), past, {} if sliding else {"state": 1})


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

    def __init__(self, model: Baseline) -> None:
        super().__init__()
        self.model = model

    def zero_state(self, batch: int) -> State:
        """The initial state."""
        state: Tensor = self.model.get_submodule("").zero_state(batch)  # type: ignore[operator]
        return {"state": state}

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
        shape = (batch, model.heads, model.window, model.width // model.heads)
        names = [f"cache_{kind}{block}" for block in range(len(model.blocks)) for kind in "kv"]
        caches = {name: torch.zeros(shape) for name in names}
        return {**caches, "position": torch.zeros(batch, dtype=torch.long)}

    def forward(self, tokens: Tensor, past: State) -> tuple[Tensor, State]:
        model, position = self.model, past["position"]
        present: State = {"position": position + 1}
        x = F.embedding(tokens.squeeze(1), model.tokens.weight)  # [B, d]
        turned = (position % PERIOD).to(x.dtype).unsqueeze(1) * model.frequencies
        angles = turned.view(-1, 1, 1, turned.shape[1])  # [B, 1, 1, e / 2]
        size = model.width // model.heads
        slot = (position % model.window).view(-1, 1, 1, 1).expand(-1, model.heads, 1, size)
        for index, block in enumerate(model.blocks):
            joint = block.query_key_value(block.attention_norm(x))
            q, k, v = joint.view(-1, 3, model.heads, size).unsqueeze(3).unbind(1)
            keys = past[f"cache_k{index}"].scatter(2, slot, rotate(k, angles))
            values = past[f"cache_v{index}"].scatter(2, slot, v)
            present[f"cache_k{index}"], present[f"cache_v{index}"] = keys, values
            scores = (rotate(q, angles) * size**-0.5) @ keys.transpose(2, 3)  # [B, H, 1, W]
            mixed = (torch.softmax(scores, dim=-1) @ values).flatten(1)
            x = block.feed_forward(x + block.attention_output(mixed))
        return model.norm(x), present
