"""The generating graph: a loop over the decoding step with sampling inside."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["generate_graph"]

_SAMPLING: dict[str, tuple[int, list[str | int]]] = {
    "last_logits": (TensorProto.FLOAT, ["batch", 0]),
    "uniforms": (TensorProto.DOUBLE, ["batch", "count"]),
    "temperature": (TensorProto.DOUBLE, [1]),
    "top_k": (TensorProto.INT64, [1]),
    "top_p": (TensorProto.DOUBLE, [1]),
    "end_token": (TensorProto.INT64, [1]),
}
"""Inputs in addition to the step's: type and sizes, where 0 stands for the vocabulary size."""


def generate_graph(decode: onnx.ModelProto) -> onnx.ModelProto:
    """Wrap the decoding step in a loop that draws tokens and feeds them back.

    Each turn draws a token from the last logits by the rule of the runtime's sampler, in double
    precision as there, and steps the model with it. The host supplies one uniform number per
    token, so its seed decides the text. The loop ends when the numbers run out, or after the turn
    in which any row draws ``end_token`` (-1: none). Every row's state then matches the tokens
    that were returned.

    Inputs: ``last_logits [B, V]`` (the logits after the text read so far), ``uniforms [B, K]``,
    ``temperature``, ``top_k``, ``top_p`` and ``end_token``, each ``[1]``, ``learn [B]`` and
    ``past.*``. Outputs: ``tokens [B, k]``, ``logits [B, 1, V]`` after the last token, and
    ``present.*``. The weights are constants of the loop's body: outside the body they would add a
    tenth to the time per token.

    Args:
        decode: The step graph, with dynamic batch.

    Returns:
        The graph, without metadata properties.
    """
    step = decode.graph
    inputs = {entry.name: entry for entry in step.input}
    outputs = {entry.name: entry for entry in step.output}
    vocab_size = outputs["logits"].type.tensor_type.shape.dim[2].dim_value
    states = [name.removeprefix("past.") for name in inputs if name.startswith("past.")]
    node = helper.make_node
    nodes = [
        node("Shape", ["uniforms"], ["sizes"], name="uniforms/shape"),
        node("Gather", ["sizes", "one"], ["count"], name="uniforms/count"),
        # Loop invariants: the numbers by turn, and which cuts apply.
        node("Transpose", ["uniforms"], ["by_turn"], name="uniforms/by_turn", perm=[1, 0]),
        node("Unsqueeze", ["by_turn", "third"], ["numbers"], name="uniforms/numbers"),
        node("Unsqueeze", ["last_logits", "second"], ["first_logits"], name="first_logits"),
        node("Greater", ["temperature", "cold"], ["warm"], name="sampling/warm"),
        node("Greater", ["top_k", "no_k"], ["cut_k"], name="sampling/cut_k"),
        node("Less", ["top_p", "no_p"], ["cut_p"], name="sampling/cut_p"),
        node("Or", ["cut_k", "cut_p"], ["cut"], name="sampling/cut"),
        node(
            "Loop",
            ["count", "", "first_logits", *(f"past.{name}" for name in states)],
            ["logits", *(f"present.{name}" for name in states), "drawn_by_turn"],
            name="generate",
            body=_body(step, states, vocab_size),
        ),
        node("Squeeze", ["drawn_by_turn", "third"], ["drawn_rows"], name="tokens/squeeze"),
        node("Transpose", ["drawn_rows"], ["tokens"], name="tokens", perm=[1, 0]),
    ]
    graph_inputs = [
        helper.make_tensor_value_info(name, kind, [size or vocab_size for size in sizes])
        for name, (kind, sizes) in _SAMPLING.items()
    ]
    graph_inputs += [copy.deepcopy(inputs["learn"])]
    graph_inputs += [copy.deepcopy(inputs[f"past.{name}"]) for name in states]
    graph_outputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "generated"]),
        copy.deepcopy(outputs["logits"]),
        *(copy.deepcopy(outputs[f"present.{name}"]) for name in states),
    ]
    constants = _tensors(
        one=np.asarray(1),
        second=np.asarray([1]),
        third=np.asarray([2]),
        no_k=np.asarray([0]),
        no_p=np.asarray([1.0]),
        cold=np.asarray([0.0]),
    )
    graph = helper.make_graph(nodes, "generate", graph_inputs, graph_outputs, constants)
    model = helper.make_model(
        graph, opset_imports=decode.opset_import, ir_version=decode.ir_version
    )
    model.producer_name = decode.producer_name
    onnx.checker.check_model(model, full_check=True)
    return model


def _body(step: onnx.GraphProto, states: Sequence[str], vocab_size: int) -> onnx.GraphProto:
    """Build the loop's body: draw, step, and decide whether to continue."""
    node = helper.make_node
    draw = [
        node("Gather", ["numbers", "turn"], ["number"], name="number"),
        node(
            "If",
            ["warm"],
            ["input_ids"],
            name="sampling",
            then_branch=_warm(vocab_size),
            else_branch=_greedy(),
        ),
    ]
    end = [
        node("Sub", ["input_ids", "end_token"], ["from_end"], name="end/sub"),
        node("Abs", ["from_end"], ["far"], name="end/abs"),
        node("ReduceMin", ["far"], ["nearest"], name="end/nearest", keepdims=0),
        node("Cast", ["nearest"], ["go_on"], name="end/go_on", to=TensorProto.BOOL),
        # A loop may not return, under the same name, a tensor that its body reads.
        node("Identity", ["input_ids"], ["drawn"], name="drawn"),
    ]
    nodes = []
    for entry in step.node:
        inner = copy.deepcopy(entry)
        inner.input[:] = [_inside(name) for name in entry.input]
        inner.output[:] = [_inside(name) for name in entry.output]
        nodes.append(inner)
    shapes = {entry.name: entry for entry in (*step.input, *step.output)}
    info = helper.make_tensor_value_info
    logits: list[str | int] = ["batch", 1, vocab_size]
    carried = [
        info("turn", TensorProto.INT64, []),
        info("going_on", TensorProto.BOOL, []),
        info("body_logits", TensorProto.FLOAT, logits),
        *(_renamed(shapes[f"past.{name}"], _inside(f"past.{name}")) for name in states),
    ]
    going = [
        info("go_on", TensorProto.BOOL, []),
        info("step_logits", TensorProto.FLOAT, logits),
        *(_renamed(shapes[f"present.{name}"], _inside(f"present.{name}")) for name in states),
        info("drawn", TensorProto.INT64, ["batch", 1]),
    ]
    weights = [copy.deepcopy(entry) for entry in step.initializer]
    return helper.make_graph([*draw, *nodes, *end], "turn", carried, going, weights)


def _inside(name: str) -> str:
    """Rename a tensor of the step for the loop's body, where the outer graph's names are taken."""
    if name == "logits":
        return "step_logits"
    return f"turn.{name}" if name.startswith(("past.", "present.")) else name


def _renamed(entry: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    entry = copy.deepcopy(entry)
    entry.name = name
    return entry


def _tensors(**values: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _greedy() -> onnx.GraphProto:
    """Take the likeliest token."""
    nodes = [
        helper.make_node(
            "ArgMax", ["body_logits"], ["likeliest"], name="sampling/greedy", axis=2, keepdims=0
        )
    ]
    output = helper.make_tensor_value_info("likeliest", TensorProto.INT64, ["batch", 1])
    return helper.make_graph(nodes, "greedy", [], [output])


def _warm(vocab_size: int) -> onnx.GraphProto:
    """Draw by inverse transform: the token whose share of [0, 1) contains the number."""
    node = helper.make_node
    nodes = [
        node("Cast", ["body_logits"], ["wide"], to=TensorProto.DOUBLE),
        node("ReduceMax", ["wide", "across"], ["top"]),
        node("Sub", ["wide", "top"], ["below"]),
        node("Div", ["below", "temperature"], ["scaled"]),
        node("Exp", ["scaled"], ["weights"]),
        node("If", ["cut"], ["kept"], then_branch=_cut(vocab_size), else_branch=_whole()),
        node("CumSum", ["kept", "axis"], ["ends"]),
        node("Gather", ["ends", "last"], ["total"], axis=2),
        node("Mul", ["number", "total"], ["place"]),
        node("Unsqueeze", ["place", "across"], ["place_column"]),
        # The first cumulative weight above the number; the number is below 1, so one exists.
        node("Greater", ["ends", "place_column"], ["beyond"]),
        node("Cast", ["beyond"], ["beyond_number"], to=TensorProto.INT32),
        node("ArgMax", ["beyond_number"], ["token"], axis=2, keepdims=0),
    ]
    for entry in nodes:
        entry.name = f"sampling/{entry.output[0]}"
    constants = _tensors(
        across=np.asarray([2]), axis=np.asarray(2), last=np.asarray(vocab_size - 1)
    )
    output = helper.make_tensor_value_info("token", TensorProto.INT64, ["batch", 1])
    return helper.make_graph(nodes, "draw", [], [output], constants)


def _whole() -> onnx.GraphProto:
    """Keep all tokens."""
    node = helper.make_node("Identity", ["weights"], ["all_weights"], name="sampling/all")
    output = helper.make_tensor_value_info("all_weights", TensorProto.DOUBLE, None)
    return helper.make_graph([node], "whole", [], [output])


def _cut(vocab_size: int) -> onnx.GraphProto:
    """Apply top-k, then top-p; dropped tokens get weight 0."""
    node = helper.make_node
    nodes = [
        # Likeliest first; the lower token first among equals, as the host sorts.
        node("TopK", ["weights", "all"], ["sorted", "order"], axis=2),
        # The k-th likeliest sets the threshold, ties included; 0 keeps all.
        node("Where", ["cut_k", "top_k", "all"], ["asked"]),
        node("Min", ["asked", "all"], ["k"]),
        node("Sub", ["k", "unit"], ["kth"]),
        node("Gather", ["sorted", "kth"], ["threshold"], axis=2),
        node("Less", ["sorted", "threshold"], ["weak"]),
        node("Where", ["weak", "nothing", "sorted"], ["strong"]),
        node("ReduceSum", ["strong", "across"], ["sum"]),
        node("Div", ["strong", "sum"], ["share"]),
        node("CumSum", ["share", "axis"], ["reached"]),
        node("Sub", ["reached", "share"], ["earlier"]),
        node("Less", ["earlier", "top_p"], ["inside"]),
        node("Not", ["cut_p"], ["any_p"]),
        node("Or", ["inside", "any_p"], ["stays"]),
        node("Where", ["stays", "share", "nothing"], ["nucleus"]),
        # Restore the order of the vocabulary.
        node("ScatterElements", ["share", "order", "nucleus"], ["kept_weights"], axis=2),
    ]
    for entry in nodes:
        entry.name = f"sampling/cut/{entry.output[0]}"
    constants = _tensors(all=np.asarray([vocab_size]), unit=np.asarray([1]), nothing=np.zeros(()))
    output = helper.make_tensor_value_info("kept_weights", TensorProto.DOUBLE, None)
    return helper.make_graph(nodes, "cut", [], [output], constants)
