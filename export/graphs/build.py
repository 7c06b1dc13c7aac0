"""Build the step graph and the prefill graph from the PyTorch model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch

from ...runtime.errors import ParityError
from ...train.model.context_memory import ContextMemory
from ...train.model.dual_cnn import DualCNN
from ...train.model.state import state_shapes
from .buffer_safety import unsafe_state
from .decode_step import DecodeStep
from .exporter_patterns import shorten_patterns
from .node_names import name_after_modules
from .opset import IR_VERSION, OPSET, check_opset, ir_version
from .prefill_chunk import PrefillChunk
from .stack_traces import strip_traces

__all__ = ["IR_VERSION", "OPSET", "decode_graph", "fix_batch", "prefill_graph"]


def decode_graph(
    model: DualCNN, opset: int = OPSET, static_batch: int | None = None
) -> onnx.ModelProto:
    """Build the step graph: T = 1, no control flow, every size but the batch static.

    Args:
        model: The trained model.
        opset: The ONNX opset to write.
        static_batch: Fix the batch to this size, for engines that need static shapes.

    Raises:
        UsageError: The opset is not supported.
        ParityError: The exported graph violates the step contract.
    """
    graph = _export(DecodeStep(model), model, opset)
    _check_control_flow(graph, "decode", [])
    if static_batch is not None:
        fix_batch(graph, static_batch)
    return graph


def prefill_graph(model: DualCNN, opset: int = OPSET, last_logits: bool = False) -> onnx.ModelProto:
    """Build the prompt graph: dynamic batch and length.

    One ``Scan`` runs the recurrence; with a memory of contexts, one stores what follows them and
    two move the online weights.

    Args:
        model: The trained model.
        opset: The ONNX opset to write.
        last_logits: Predict only after the last token of a call: ``logits [B, 1, V]``.

    Raises:
        UsageError: The opset is not supported.
        ParityError: The exported graph violates the step contract.
    """
    graph = _export(PrefillChunk(model, last_logits), model, opset)
    has_contexts = isinstance(model.memory, ContextMemory)
    scans = (model.reservoir is not None) + has_contexts + 2 * model.config.adapts
    _check_control_flow(graph, "prefill", ["Scan"] * scans)
    return graph


def fix_batch(graph: onnx.ModelProto, batch: int) -> None:
    """Fix the batch axis of every input, output and value to ``batch``, in place."""
    entries = (*graph.graph.input, *graph.graph.output, *graph.graph.value_info)
    for entry in entries:
        for size in entry.type.tensor_type.shape.dim:
            if size.dim_param == "batch":
                size.dim_value = batch
    onnx.checker.check_model(graph, full_check=True)


def _export(module: DecodeStep | PrefillChunk, model: DualCNN, opset: int) -> onnx.ModelProto:
    check_opset(opset)
    module.eval()
    chunked = isinstance(module, PrefillChunk)
    # torch.export specialises an axis whose example size is 1, so the dynamic axes are larger.
    rows, steps = 3, 5 if chunked else 1
    tokens = torch.arange(rows * steps).view(rows, steps) % model.config.vocab_size
    past = model.zero_state(rows)
    names = list(state_shapes(model.config))
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            # As keywords, because a trailing positional dictionary is read as keyword arguments.
            kwargs={"input_ids": tokens, "learn": torch.ones(rows), "past": past},
            dynamo=True,
            opset_version=opset,
            input_names=["input_ids", "learn", *(f"past.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
            dynamic_shapes={
                "input_ids": {0: batch, 1: length} if chunked else {0: batch},
                "learn": {0: batch},
                "past": {name: {0: batch} for name in names},
            },
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    graph.ir_version = ir_version(opset)
    shorten_patterns(graph.graph)
    name_after_modules(graph.graph)
    strip_traces(graph)
    with_length: tuple[str, ...] = ()
    if isinstance(module, PrefillChunk):
        with_length = ("input_ids",) if module.last_logits else ("input_ids", "logits")
    _check(graph, model, with_length)
    return graph


def _check(graph: onnx.ModelProto, model: DualCNN, with_length: tuple[str, ...]) -> None:
    """Check the step contract: dynamic axes, state shapes and buffer safety.

    Args:
        graph: The exported graph.
        model: The model it was exported from.
        with_length: Inputs and outputs whose second axis must stay dynamic.
    """
    entries = {entry.name: entry for entry in (*graph.graph.input, *graph.graph.output)}
    for name, entry in entries.items():
        sizes = entry.type.tensor_type.shape.dim
        if sizes[0].dim_param != "batch":
            raise ParityError(f"the batch axis of {name} is fixed to {sizes[0].dim_value}")
        if name in with_length and sizes[1].dim_param != "length":
            raise ParityError(f"the length axis of {name} is fixed to {sizes[1].dim_value}")
        if name.startswith(("past.", "present.")):
            expected = state_shapes(model.config)[name.partition(".")[2]][0]
            actual = tuple(size.dim_value for size in sizes[1:])
            if actual != expected:
                raise ParityError(f"{name} has shape {actual} instead of {expected}")
    unsafe = unsafe_state(graph.graph)
    if unsafe:
        raise ParityError(f"past and present cannot share a buffer: {', '.join(unsafe)}")
    onnx.checker.check_model(graph, full_check=True)


def _check_control_flow(graph: onnx.ModelProto, kind: str, expected: list[str]) -> None:
    """Check the control flow: an unrolled or branching part would export silently."""
    actual = [n.op_type for n in graph.graph.node if n.op_type in ("If", "Loop", "Scan")]
    if actual != expected:
        raise ParityError(f"the {kind} graph has the control flow {actual} instead of {expected}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's output; its errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
