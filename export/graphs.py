"""From the PyTorch model to ONNX graphs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from ..runtime.errors import ParityError
from ..train.model import DualCNN
from ..train.state import State, state_shapes
from .buffer_safety import unsafe_state
from .decode_graph import DecodeStep

__all__ = ["IR_VERSION", "OPSET", "decode_graph", "prefill_graph"]

OPSET = 18
IR_VERSION = 10
"""The newest pair that TensorRT 10.3 and ONNX Runtime 1.23 on Python 3.10 both read."""


class _Prefill(nn.Module):
    """The model itself, with the graph's argument names."""

    def __init__(self, model: DualCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        output = self.model.compute(input_ids, past, learn)
        return output.logits, output.state


def decode_graph(model: DualCNN) -> onnx.ModelProto:
    """The step graph: T = 1, dynamic batch, no control flow."""
    graph = _export(DecodeStep(model).eval(), model, length=None)
    _check_control_flow(graph, "decode", [])
    return graph


def prefill_graph(model: DualCNN) -> onnx.ModelProto:
    """The graph for prompts: dynamic batch and length, one Scan where there is a recurrence."""
    graph = _export(_Prefill(model).eval(), model, length=torch.export.Dim("length", min=1))
    _check_control_flow(graph, "prefill", [] if model.reservoir is None else ["Scan"])
    return graph


def _export(module: nn.Module, model: DualCNN, length: torch.export.Dim | None) -> onnx.ModelProto:
    # An example axis of size 1 would be fixed to 1, so the free axes are larger.
    rows, steps = 3, 1 if length is None else 5
    tokens = torch.arange(rows * steps).view(rows, steps) % model.config.vocab_size
    past = model.zero_state(rows)
    names = list(state_shapes(model.config))
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            # As keywords: a dictionary that comes last by position is taken for keywords.
            kwargs={"input_ids": tokens, "learn": torch.ones(rows), "past": past},
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "learn", *(f"past.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
            dynamic_shapes={
                "input_ids": {0: batch} if length is None else {0: batch, 1: length},
                "learn": {0: batch},
                "past": {name: {0: batch} for name in names},
            },
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    graph.ir_version = IR_VERSION
    _strip(graph)
    _check(graph, model, dynamic_length=length is not None)
    return graph


def _strip(graph: onnx.ModelProto) -> None:
    """Remove stack traces and source paths, which differ from machine to machine."""
    del graph.metadata_props[:]
    graph.producer_version = ""
    stack = [graph.graph, *graph.functions]
    while stack:
        part = stack.pop()
        del part.metadata_props[:]
        part.doc_string = ""
        for value in part.value_info:
            del value.metadata_props[:]
        if isinstance(part, onnx.GraphProto):
            for value in (*part.input, *part.output, *part.initializer):
                del value.metadata_props[:]
                value.doc_string = ""
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
            stack.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))


def _check(graph: onnx.ModelProto, model: DualCNN, dynamic_length: bool) -> None:
    """What must hold of every graph before it is worth comparing."""
    entries = {entry.name: entry for entry in (*graph.graph.input, *graph.graph.output)}
    for name, entry in entries.items():
        sizes = entry.type.tensor_type.shape.dim
        if sizes[0].dim_param != "batch":
            raise ParityError(f"the batch axis of {name} is fixed to {sizes[0].dim_value}")
        if name in ("input_ids", "logits") and dynamic_length and sizes[1].dim_param != "length":
            raise ParityError(f"the length axis of {name} is fixed to {sizes[1].dim_value}")
        if name.startswith(("past.", "present.")):
            shape = state_shapes(model.config)[name.partition(".")[2]][0]
            found = tuple(size.dim_value for size in sizes[1:])
            if found != shape:
                raise ParityError(f"{name} has the sizes {found} instead of {shape}")
    unsafe = unsafe_state(graph.graph)
    if unsafe:
        raise ParityError(f"past and present cannot share a buffer: {', '.join(unsafe)}")
    onnx.checker.check_model(graph, full_check=True)


def _check_control_flow(graph: onnx.ModelProto, kind: str, wanted: list[str]) -> None:
    """A part that unrolls, or branches, would export without a word."""
    found = [n.op_type for n in graph.graph.node if n.op_type in ("If", "Loop", "Scan")]
    if found != wanted:
        raise ParityError(f"the {kind} graph has the control flow {found} instead of {wanted}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter off the terminal; its errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
