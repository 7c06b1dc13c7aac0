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


class LooksUp(nn.Module):
    """Each row in a table of its own; and along the other axis, which stays."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        at = (x % 3).unsqueeze(2)
        return x.gather(1, (at + 0).squeeze(2)), x.gather(0, (at + 1).squeeze(2))


@pytest.mark.usefixtures("real_exporter")
def test_a_lookup_in_each_rows_table_takes_the_index_as_it_is() -> None:
    x = torch.arange(2, 23).view(7, 3)
    model = exported(LooksUp(), x)
    before = run(model, x)
    assert kinds(model.graph)["GatherElements"] == 2
    shorten_patterns(model.graph)
    onnx.checker.check_model(model, full_check=True)
    after = kinds(model.graph)
    assert (after["GatherND"], after["GatherElements"], after["Squeeze"]) == (1, 1, 1)
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


@pytest.mark.slow
def test_the_graphs_hold_nothing_that_is_shortened() -> None:
    config = SMALL.replace(memory_key="contexts", memory=90, contexts="1 3 word", vocab_size=6)
    model = DualCNN(config).eval()
    decode = decode_graph(model)
    assert kinds(decode.graph)["GatherND"] == 1  # the memory's slots
    for graph in (decode, prefill_graph(model)):
        assert kinds(graph.graph)["Div"] >= 3
        plain = [node for node in graph.graph.node if node.op_type == "GatherND"]
        assert all(node.attribute for node in plain)  # of each row's own table
        before = graph.SerializeToString()
        shorten_patterns(graph.graph)
        assert graph.SerializeToString() == before
