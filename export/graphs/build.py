"""From the PyTorch model to ONNX graphs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from ...runtime.errors import ParityError
from ...train.model.dual_cnn import DualCNN
from ...train.model.state import state_shapes
from .buffer_safety import unsafe_state
from .decode_graph import DecodeStep
from .names import name_after_modules
from .opset import IR_VERSION, OPSET, check_opset, ir_version
from .prefill_graph import PrefillForm

__all__ = ["IR_VERSION", "OPSET", "decode_graph", "fix_batch", "prefill_graph"]


def decode_graph(
    model: DualCNN, opset: int = OPSET, static_batch: int | None = None
) -> onnx.ModelProto:
    """The step graph: T = 1, no control flow, every size but the batch static.

    Args:
        model: The trained model.
        opset: The opset to write.
        static_batch: Fix the batch to this size, for engines that want that.

    Raises:
        UsageError: The opset cannot hold the model.
        ParityError: The graph does not have the form that it must have.
    """
    graph = _export(DecodeStep(model).eval(), model, None, opset)
    _check_control_flow(graph, "decode", [])
    if static_batch is not None:
        fix_batch(graph, static_batch)
    return graph


def prefill_graph(model: DualCNN, opset: int = OPSET, last_logits: bool = False) -> onnx.ModelProto:
    """The graph for prompts: dynamic batch and length, one Scan where there is a recurrence.

    Args:
        model: The trained model.
        opset: The opset to write.
        last_logits: Predict after the last token of a call only: ``logits [B, 1, V]``.

    Raises:
        UsageError: The opset cannot hold the model.
        ParityError: The graph does not have the form that it must have.
    """
    length = torch.export.Dim("length", min=1)
    graph = _export(PrefillForm(model, last_logits).eval(), model, length, opset)
    _check_control_flow(graph, "prefill", [] if model.reservoir is None else ["Scan"])
    return graph


def fix_batch(graph: onnx.ModelProto, batch: int) -> None:
    """Give the batch axis of every input, output and value a static size, in place."""
    entries = (*graph.graph.input, *graph.graph.output, *graph.graph.value_info)
    for entry in entries:
        for size in entry.type.tensor_type.shape.dim:
            if size.dim_param == "batch":
                size.dim_value = batch
    onnx.checker.check_model(graph, full_check=True)


def _export(
    module: nn.Module, model: DualCNN, length: torch.export.Dim | None, opset: int
) -> onnx.ModelProto:
    check_opset(opset)
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
            opset_version=opset,
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
    graph.ir_version = ir_version(opset)
    name_after_modules(graph.graph)
    _strip(graph)
    _check(graph, model, getattr(module, "last_logits", False), length is not None)
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


def _check(graph: onnx.ModelProto, model: DualCNN, last_logits: bool, dynamic_length: bool) -> None:
    """What must hold of every graph before it is worth comparing."""
    entries = {entry.name: entry for entry in (*graph.graph.input, *graph.graph.output)}
    for name, entry in entries.items():
        sizes = entry.type.tensor_type.shape.dim
        if sizes[0].dim_param != "batch":
            raise ParityError(f"the batch axis of {name} is fixed to {sizes[0].dim_value}")
        long = ("input_ids",) if last_logits else ("input_ids", "logits")
        if name in long and dynamic_length and sizes[1].dim_param != "length":
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
