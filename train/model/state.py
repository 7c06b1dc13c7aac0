"""The state of a stream: a few named tensors of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor

from ...runtime.errors import UsageError
from ..config.model_config import LONGEST_CONTEXT, DualCNNConfig
from .context_slots import slot_type

__all__ = ["State", "in_table_order", "state_bytes", "state_shapes", "zero_state"]

State = dict[str, Tensor]
"""Everything the model remembers: tensors by name, batch first."""


def state_shapes(config: DualCNNConfig) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape (without the batch axis) and type of each state tensor, in order.

    Parts that the configuration leaves out have no tensors.
    """
    real, whole = torch.float32, torch.int64
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    if config.reservoir != "none":
        shapes["reservoir"] = ((config.reservoir_size,), real)
    if config.attends:
        shapes["attention_window"] = ((config.attention_window - 1, 2 * config.width), real)
    shapes["wave_context"] = ((config.wave_kernel - 1, config.wave_blocks * config.width), real)
    if config.dual:
        shapes["wave_buffer"] = ((config.wave_window, config.wave_features), real)
    if config.memory and config.memory_key == "contexts":
        contexts = len(config.context_list)
        shapes["context_tokens"] = ((LONGEST_CONTEXT - 1,), whole)
        shapes["context_slots"] = ((contexts, 6), whole)
        if config.adapts:
            shapes["adapted"] = ((contexts + 1,), real)
            shapes["context_shares"] = ((contexts, 2), real)
            shapes["context_logits"] = ((config.vocab_size,), real)
        shapes["memory_slots"] = ((contexts * config.context_slots,), slot_type(config.vocab_size))
    elif config.memory:
        if config.memory_key == "suffix":
            shapes["suffix"] = ((config.suffix_length, config.code_width), real)
        shapes["memory_keys"] = ((config.memory, config.keys), real)
        shapes["memory_tokens"] = ((config.memory,), whole)
    shapes["position"] = ((), whole)
    return shapes


def state_bytes(config: DualCNNConfig) -> int:
    """Size of one stream's state in bytes."""
    total = 0
    for shape, dtype in state_shapes(config).values():
        total += torch.Size(shape).numel() * dtype.itemsize
    return total


def zero_state(
    config: DualCNNConfig, batch: int = 1, device: torch.device | str | None = None
) -> State:
    """Build the state at the start of a stream: all zeros."""
    return {
        name: torch.zeros(batch, *shape, dtype=dtype, device=device)
        for name, (shape, dtype) in state_shapes(config).items()
    }


def in_table_order(config: DualCNNConfig, state: State) -> State:
    """Sort the tensors as in :func:`state_shapes`; graphs identify them by position.

    Raises:
        UsageError: A tensor is missing: a part of the caller's own does not write it.
    """
    if missing := [name for name in state_shapes(config) if name not in state]:
        raise UsageError(f"the state after a chunk lacks {', '.join(missing)}")
    return {name: state[name] for name in state_shapes(config)}
