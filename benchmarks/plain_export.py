"""Exporting a step the ordinary way: a module's own forward, traced for one token.

What :mod:`graphs` compares with, and how :mod:`forms` exports its variants.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from baselines import GRU
from min_gru import MinGRU
from rillet.train import DualCNN
from rillet.train.model.reservoir import SparseReservoir
from rillet.train.model.state import State

__all__ = ["export_recurrent", "export_step", "plain_graph"]

OPSET, IR_VERSION = 18, 10
"""Those of the project's own graphs."""


def plain_graph(model: DualCNN) -> onnx.ModelProto:
    """The model's own forward at T = 1, as ``torch.onnx.export`` writes it."""
    return export_step(_PlainStep(model).eval(), model.zero_state(3))


class _PlainStep(nn.Module):
    """The model as it is, but for the recurrence: at T = 1 its Scan would stay a Scan."""

    def __init__(self, model: DualCNN) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        reservoir = self.model.reservoir
        if reservoir is not None:
            self.model.reservoir = _single_step(reservoir)

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        output: tuple[Tensor, State] = self.model(input_ids, past, learn)
        return output


def _single_step(reservoir: SparseReservoir) -> SparseReservoir:
    def run(state: Tensor, drive: Tensor) -> Tensor:
        return reservoir.step(state, drive.squeeze(1)).unsqueeze(1)

    reservoir.run = run  # type: ignore[method-assign]
    return reservoir


def export_step(module: nn.Module, past: dict[str, Any]) -> onnx.ModelProto:
    """Export ``module(input_ids [B, 1], learn [B], past)``, B free.

    Args:
        module: Returns logits, and the present in the order of the past.
        past: State tensors of a batch above 1, by name; a tuple of tensors is numbered.
    """
    batch = torch.export.Dim("batch", min=1)
    names = [
        f"{name}.{place}" if isinstance(value, tuple) else name
        for name, value in past.items()
        for place in range(len(value) if isinstance(value, tuple) else 1)
    ]
    rows = len(next(iter(past.values())))
    free = {
        name: tuple({0: batch} for _ in value) if isinstance(value, tuple) else {0: batch}
        for name, value in past.items()
    }
    return _export(
        module,
        {"input_ids": torch.arange(rows).view(rows, 1), "learn": torch.ones(rows), "past": past},
        {"input_ids": {0: batch}, "learn": {0: batch}, "past": free},
        names,
    )


def export_recurrent(model: GRU | MinGRU) -> onnx.ModelProto:
    """A baseline's T = 1, ``input_ids [B, 1]`` and ``past.state [layers, B, d]``, B free."""
    batch = torch.export.Dim("batch", min=1)
    return _export(
        model,
        {"tokens": torch.zeros(3, 1, dtype=torch.long), "state": model.zero_state(3)},
        {"tokens": {0: batch}, "state": {1: batch}},
        ["state"],
    )


def _export(
    module: nn.Module, example: dict[str, Any], free: dict[str, Any], states: list[str]
) -> onnx.ModelProto:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    learn = ["learn"] if "learn" in example else []
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                kwargs=example,
                dynamo=True,
                opset_version=OPSET,
                input_names=["input_ids", *learn, *(f"past.{name}" for name in states)],
                output_names=["logits", *(f"present.{name}" for name in states)],
                dynamic_shapes=free,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    graph.ir_version = IR_VERSION
    return graph
