"""The graph that onnxruntime-genai drives: both graphs under an ``If``, with packed state.

onnxruntime-genai runs prompts and continuations through one graph, and feeds every recurrent layer
two state tensors, "conv" and "recurrent", each of one shape across layers. The model is therefore
presented as a single layer. Its recurrent tensor is the largest state tensor, unchanged, because
packing it would copy it at every step. Its conv tensor holds all the others, flattened and
concatenated as float32. Token numbers stay below 2**24 and are exact in float32. ``position`` would
not, so it is kept modulo the memory's capacity, which is all that the model reads of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...runtime.errors import ParityError, UsageError
from .buffer_safety import unsafe_state

__all__ = ["CONV", "IMPOSSIBLE", "RECURRENT", "Learn", "StateLayout", "genai_graph"]

CONV, RECURRENT = "0.conv", "0.recurrent"
"""The two state tensors, without ``past.`` or ``present.``."""

IMPOSSIBLE = -1e30
"""The logit of the end token; finite, so that no difference or product with it is NaN."""

_NUMBERS = 1 << 31
"""Modulus of token numbers: large enough to change negative ones only."""

Learn = Literal["read", "all", "none"]


@dataclass(frozen=True)
class StateLayout:
    """Where each state tensor lies in the two packed tensors.

    Attributes:
        shapes: Sizes after the batch axis of each state tensor, by name, in order.
        types: ONNX element type of each state tensor.
        recurrent: Name of the tensor that is passed unpacked.
    """

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, int]
    recurrent: str

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> StateLayout:
        """Derive the layout from a graph that follows the step contract."""
        shapes, types = {}, {}
        for entry in graph.input:
            name = entry.name.removeprefix("past.")
            if name != entry.name:
                tensor = entry.type.tensor_type
                shapes[name] = tuple(size.dim_value for size in tensor.shape.dim[1:])
                types[name] = tensor.elem_type
        real = [name for name, kind in types.items() if kind == TensorProto.FLOAT]
        return cls(shapes, types, max(real, key=lambda name: prod(shapes[name])))

    @property
    def packed(self) -> dict[str, int]:
        """Size of each packed tensor within the conv tensor, in order."""
        return {name: prod(shape) for name, shape in self.shapes.items() if name != self.recurrent}

    def to_json(self) -> str:
        """Describe the contents of both packed tensors as JSON."""
        held = [{"name": name, "shape": list(self.shapes[name])} for name in self.packed]
        return json.dumps({"recurrent": self.recurrent, "conv": held})


def genai_graph(
    decode: onnx.ModelProto, prefill: onnx.ModelProto, capacity: int, learn: Learn = "read"
) -> onnx.ModelProto:
    """Merge the two graphs into one: ``input_ids [B, T]`` to ``logits [B, T, V + 1]``.

    A single token runs through the step graph, more than one through the prefill graph. The last
    logit belongs to an end token, which onnxruntime-genai requires and which is never likely. A
    number outside the vocabulary is an error, such as the -1 that onnxruntime-genai's tokenizer
    returns for an unknown character. Without the ``Mod``, -1 would index the last token.

    Args:
        decode: The step graph, with the inputs and outputs of the step contract.
        prefill: The graph for prompts.
        capacity: Entries of the stream's memory; 0 without a memory.
        learn: ``read`` stores prompts, which arrive several tokens at a time, and not the generated
            text, which arrives one token at a time; ``all`` stores everything, ``none`` nothing.

    Returns:
        The merged graph; past and present may share buffers.

    Raises:
        ParityError: Past and present cannot share a buffer.
        UsageError: The state holds numbers that float32 cannot.
    """
    _check_types(decode.graph)
    layout, vocabulary = StateLayout.of(decode.graph), _vocabulary(decode.graph)
    branches = [
        _branch(graph, prefix, stored)
        for graph, prefix, stored in (
            (decode.graph, "step/", learn == "all"),
            (prefill.graph, "chunk/", learn != "none"),
        )
    ]
    outputs = ["logits_of_tokens", *(_present(name, layout) for name in layout.shapes)]
    constants: dict[str, npt.NDArray[Any]] = {
        "one": np.array([1], np.int64),
        "sizes": np.array(list(layout.packed.values()), np.int64),
        "capacity": np.array(max(capacity, 1), np.int64),
        "numbers": np.array(_NUMBERS, np.int64),
        "end_column": np.array([0, 0, 0, 0, 0, 1], np.int64),
        "impossible": np.array(IMPOSSIBLE, np.float32),
    }
    nodes = [
        *_unpack(layout, constants),
        helper.make_node("Mod", ["input_ids", "numbers"], ["tokens"], "tokens"),
        helper.make_node("Shape", ["input_ids"], ["length"], "length", start=1, end=2),
        helper.make_node("Equal", ["length", "one"], ["is_step"], "is_step"),
        helper.make_node(
            "If", ["is_step"], outputs, "model", then_branch=branches[0], else_branch=branches[1]
        ),
        helper.make_node(
            "Pad", ["logits_of_tokens", "end_column", "impossible"], ["logits"], "end_token"
        ),
        *_pack(layout),
    ]
    graph = helper.make_graph(
        nodes,
        "genai",
        [_value("input_ids", TensorProto.INT64, "length"), *_state(layout, "past")],
        [
            _value("logits", TensorProto.FLOAT, "length", vocabulary + 1),
            *_state(layout, "present"),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = {entry.domain: entry for entry in (*decode.opset_import, *prefill.opset_import)}
    model = helper.make_model(graph, opset_imports=opsets.values())
    model.ir_version = decode.ir_version
    # Each branch reads the past and writes the present exactly as its source graph does.
    unsafe = unsafe_state(graph) + unsafe_state(decode.graph) + unsafe_state(prefill.graph)
    if unsafe:
        raise ParityError(f"past and present cannot share a buffer: {', '.join(unsafe)}")
    onnx.checker.check_model(model, full_check=True)
    return model


def _unpack(layout: StateLayout, constants: dict[str, npt.NDArray[Any]]) -> list[onnx.NodeProto]:
    """Nodes that split the conv tensor into the tensors that the branches read."""
    flat = [f"past_flat.{name}" for name in layout.packed]
    nodes = [helper.make_node("Split", [f"past.{CONV}", "sizes"], flat, "unpack", axis=1)]
    for name in layout.packed:
        constants[f"shape.{name}"] = np.array([0, *layout.shapes[name]], np.int64)
        integer = layout.types[name] != TensorProto.FLOAT
        shaped = f"past_real.{name}" if integer else f"past.{name}"
        inputs = [f"past_flat.{name}", f"shape.{name}"]
        nodes.append(helper.make_node("Reshape", inputs, [shaped], f"unpack.{name}"))
        if integer:
            to = layout.types[name]
            nodes.append(
                helper.make_node("Cast", [shaped], [f"past.{name}"], f"unpack.{name}.cast", to=to)
            )
    return nodes


def _pack(layout: StateLayout) -> list[onnx.NodeProto]:
    """Nodes that join the tensors that the branches write into the conv tensor."""
    nodes = [
        helper.make_node("Mod", ["present.position", "capacity"], ["slot"], "position_in_memory")
    ]
    for name in layout.packed:
        value = "slot" if name == "position" else f"present.{name}"
        if layout.types[name] != TensorProto.FLOAT:
            real = f"present_real.{name}"
            nodes.append(
                helper.make_node("Cast", [value], [real], f"pack.{name}.cast", to=TensorProto.FLOAT)
            )
            value = real
        flat = f"present_flat.{name}"
        nodes.append(helper.make_node("Flatten", [value], [flat], f"pack.{name}", axis=1))
    flat_names = [f"present_flat.{name}" for name in layout.packed]
    nodes.append(helper.make_node("Concat", flat_names, [f"present.{CONV}"], "pack", axis=1))
    return nodes


def _check_types(graph: onnx.GraphProto) -> None:
    """Refuse state that float32, in which it is packed, cannot hold."""
    if any(entry.name == "past.memory_slots" for entry in graph.input):
        raise UsageError(
            "a memory of contexts cannot be packed into the float32 state of onnxruntime-genai; "
            "leave out --genai, or train with memory_key=reservoir"
        )


def _branch(graph: onnx.GraphProto, prefix: str, stored: bool) -> onnx.GraphProto:
    """Turn a graph into a branch: its inputs are outer names, and ``learn`` is constant."""
    layout = StateLayout.of(graph)
    outer = {"input_ids": "tokens"} | {f"past.{name}": f"past.{name}" for name in layout.shapes}
    outer[f"past.{layout.recurrent}"] = f"past.{RECURRENT}"
    branch = onnx.GraphProto()
    branch.CopyFrom(graph)
    del branch.input[:]
    del branch.value_info[:]
    _rename(branch, prefix, outer)
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [float(stored)])
    rows, learn = f"{prefix}rows", f"{prefix}learn"
    nodes = [
        helper.make_node("Shape", ["input_ids"], [rows], rows, start=0, end=1),
        helper.make_node("ConstantOfShape", [rows], [learn], learn, value=value),
        *branch.node,
    ]
    return helper.make_graph(nodes, prefix, [], branch.output, branch.initializer)


def _rename(graph: onnx.GraphProto, prefix: str, outer: dict[str, str]) -> None:
    """Prefix every name except the outer graph's, so that no name is defined twice."""

    def new(name: str) -> str:
        return outer.get(name, prefix + name if name else "")

    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = new(value.name)
    for node in graph.node:
        node.name = new(node.name)
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, prefix, outer)


def _present(name: str, layout: StateLayout) -> str:
    return f"present.{RECURRENT if name == layout.recurrent else name}"


def _state(layout: StateLayout, when: str) -> list[onnx.ValueInfoProto]:
    width, shape = sum(layout.packed.values()), layout.shapes[layout.recurrent]
    return [
        _value(f"{when}.{CONV}", TensorProto.FLOAT, width),
        _value(f"{when}.{RECURRENT}", TensorProto.FLOAT, *shape),
    ]


def _vocabulary(graph: onnx.GraphProto) -> int:
    logits = next(entry for entry in graph.output if entry.name == "logits")
    return int(logits.type.tensor_type.shape.dim[2].dim_value)


def _value(name: str, kind: int, *sizes: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *sizes])
