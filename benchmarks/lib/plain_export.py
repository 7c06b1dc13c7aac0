"""The ordinary export of a step: a module's own forward, traced for one token.

``graphs.py`` compares with it, and ``forms.py`` exports its variants through it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from unittest import mock

import onnx
import torch
from torch import Tensor, nn

from rillet.train import DualCNN
from rillet.train.model.state import State

from .baselines import GRU
from .min_gru import MinGRU

__all__ = ["export_recurrent", "export_step", "plain_graph"]

_OPSET, _IR_VERSION = 18, 10
"""The versions of the project's own graphs."""


def plain_graph(model: DualCNN) -> onnx.ModelProto:
    """Export the model's own forward at T = 1 with ``torch.onnx.export``."""
    reservoir, state = model.reservoir, model.zero_state(3)
    if reservoir is None:
        return export_step(_PlainStep(model).eval(), state)

    def run(state: Tensor, drive: Tensor) -> Tensor:
        return reservoir.step(state, drive.squeeze(1)).unsqueeze(1)

    # One step instead of the Scan, which the exporter keeps even at T = 1.
    with mock.patch.object(reservoir, "run", run):
        return export_step(_PlainStep(model).eval(), state)


class _PlainStep(nn.Module):
    """The model with the arguments in the order that :func:`export_step` passes them."""

    def __init__(self, model: DualCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        output: tuple[Tensor, State] = self.model(input_ids, past, learn)
        return output


def export_step(
    module: nn.Module, past: dict[str, Any], axes: Mapping[str, int] = MappingProxyType({})
) -> onnx.ModelProto:
    """Export ``module(input_ids [B, 1], learn [B], past)`` with a dynamic batch B.

    Args:
        module: Returns the logits, and the present in the order of the past.
        past: State tensors of a batch above 1, by name; the tensors of a tuple are numbered.
        axes: The batch axis of state tensors where it is not the first.
    """
    batch = torch.export.Dim("batch", min=1)
    names = [
        f"{name}.{index}" if isinstance(value, tuple) else name
        for name, value in past.items()
        for index in range(len(value) if isinstance(value, tuple) else 1)
    ]
    name, first = next(iter(past.items()))
    sizes = (first[0] if isinstance(first, tuple) else first).shape
    rows = sizes[axes.get(name, 0)]
    dynamic = {
        name: tuple({0: batch} for _ in value)
        if isinstance(value, tuple)
        else {axes.get(name, 0): batch}
        for name, value in past.items()
    }
    return _export(
        module,
        {"input_ids": torch.arange(rows).view(rows, 1), "learn": torch.ones(rows), "past": past},
        {"input_ids": {0: batch}, "learn": {0: batch}, "past": dynamic},
        names,
    )


def export_recurrent(model: GRU | MinGRU) -> onnx.ModelProto:
    """Export a baseline's step, ``input_ids [B, 1]`` and ``past.state [layers, B, d]``."""
    batch = torch.export.Dim("batch", min=1)
    return _export(
        model,
        {"tokens": torch.zeros(3, 1, dtype=torch.long), "state": model.zero_state(3)},
        {"tokens": {0: batch}, "state": {1: batch}},
        ["state"],
    )


def _export(
    module: nn.Module, example: dict[str, Any], dynamic: dict[str, Any], states: list[str]
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
                opset_version=_OPSET,
                input_names=["input_ids", *learn, *(f"past.{name}" for name in states)],
                output_names=["logits", *(f"present.{name}" for name in states)],
                dynamic_shapes=dynamic,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    graph.ir_version = _IR_VERSION
    return graph
