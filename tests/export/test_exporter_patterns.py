"""What the exporter writes in several nodes is shortened, and only that."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from rillet.export.graphs.build import decode_graph, prefill_graph
from rillet.export.graphs.exporter_patterns import shorten_patterns
from rillet.runtime.engines.ort.providers import create_session
from rillet.train import DualCNN
from support.models import SMALL


def exported(module: nn.Module, x: Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(
        module.eval(),
        kwargs={"x": x},
        dynamo=True,
        opset_version=18,
        input_names=["x"],
        verbose=False,
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def run(model: onnx.ModelProto, x: Tensor) -> list[np.ndarray]:
    session = create_session(model.SerializeToString(), "cpu", 1)
    result: list[np.ndarray] = session.run(None, {"x": x.numpy()})
    return result


class Divides(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(30) * 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        whole = x // torch.tensor([1, 3, 7])
        return whole + x, self.table[whole % 30]


class Others(nn.Module):
    """A divisor below zero, one that is computed, a difference, and fractions."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return x // -3, x // (x + 1), x % 3 - x, x.float() // 3


@pytest.mark.usefixtures("real_exporter")
def test_division_and_lookups_become_one_node_each() -> None:
    x = torch.arange(2, 23).view(7, 3)
    model = exported(Divides(), x)
    before, longer = run(model, x), len(model.graph.node)
    shorten_patterns(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Div", "Add", "Mod", "Gather"]
    assert longer == 12
    assert all(map(np.array_equal, before, run(model, x)))


@pytest.mark.usefixtures("real_exporter")
def test_other_arithmetic_stays() -> None:
    x = torch.arange(21).view(7, 3)
    model = exported(Others(), x)
    nodes = [node.SerializeToString() for node in model.graph.node]
    shorten_patterns(model.graph)
    assert [node.SerializeToString() for node in model.graph.node] == nodes


def kinds(graph: onnx.GraphProto) -> Counter[str]:
    found = Counter(node.op_type for node in graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += kinds(attribute.g)
    return found


def test_the_graphs_hold_nothing_that_is_shortened() -> None:
    config = SMALL.replace(memory_key="contexts", memory=90, contexts="1 3 word", vocab_size=6)
    model = DualCNN(config).eval()
    for graph in (decode_graph(model), prefill_graph(model)):
        assert kinds(graph.graph)["Div"] >= 3
        assert "GatherND" not in kinds(graph.graph)
        before = graph.SerializeToString()
        shorten_patterns(graph.graph)
        assert graph.SerializeToString() == before
