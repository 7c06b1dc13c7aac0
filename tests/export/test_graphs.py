"""The exported graphs: step contract, metadata, and other model configurations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from rillet.export.bundle.folder import CARD
from rillet.export.bundle.writer import write_bundle
from rillet.export.graphs.build import IR_VERSION, OPSET, decode_graph, prefill_graph
from rillet.train import Checkpoint, DualCNN
from support.models import SMALL
from support.operators import complaints

GRAPHS = ["decode", "prefill"]


@pytest.fixture(scope="module", params=GRAPHS)
def path(request: pytest.FixtureRequest, small_bundle: Path) -> Path:
    return small_bundle / f"{request.param}.onnx"


def test_onnx_checker_accepts(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)


def test_versions_are_readable_by_old_engines(path: Path) -> None:
    graph = onnx.load(str(path))
    assert graph.ir_version == IR_VERSION <= 10
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]


def test_tensorrt_lists_every_operator(path: Path) -> None:
    assert complaints(onnx.load(str(path))) == []


def test_complaints_about_graphs_that_tensorrt_cannot_read(small_bundle: Path) -> None:
    """The generating graph has some, and each rule of the list raises one."""
    assert complaints(onnx.load(str(small_bundle / "generate.onnx")))
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])
    axes = onnx.helper.make_tensor_value_info("axes", onnx.TensorProto.INT64, [1])
    nodes = [
        onnx.helper.make_node("Unsqueeze", ["x", "axes"], ["a"], name="open"),
        onnx.helper.make_node("Swish", ["x"], ["b"], name="swish"),
        onnx.helper.make_node("ScatterND", ["x", "axes", "x"], ["c"], name="s", reduction="add"),
        onnx.helper.make_node("Einsum", ["x"], ["d"], name="e", equation="...i->..."),
        onnx.helper.make_node("MatMulNBits", ["x"], ["f"], name="m", domain="com.microsoft"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x, axes], [])
    graph.initializer.append(onnx.helper.make_tensor("u", onnx.TensorProto.UINT8, [1], [0]))
    opsets = [onnx.helper.make_opsetid("", 24)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=12)
    assert complaints(model) == [
        "IR version 12",
        "opsets [('', 24)]",
        "open: input 1 of Unsqueeze is computed",
        "swish: :Swish",
        "s: a scatter that reduces",
        "e: an ellipsis in Einsum",
        "m: com.microsoft:MatMulNBits",
        "u: uint8",
    ]


def test_only_prefill_has_control_flow(path: Path) -> None:
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert "Loop" not in kinds
    assert "If" not in kinds
    assert kinds.count("Scan") == (1 if path.stem == "prefill" else 0)


def test_only_batch_and_length_are_dynamic(path: Path) -> None:
    graph = onnx.load(str(path)).graph
    free = {"batch", "length"} if path.stem == "prefill" else {"batch"}
    for entry in (*graph.input, *graph.output):
        sizes = entry.type.tensor_type.shape.dim
        assert sizes[0].dim_param == "batch", entry.name
        assert all(size.dim_value > 0 or size.dim_param in free for size in sizes), entry.name


def test_state_names_pair_by_string_replacement(path: Path) -> None:
    graph = onnx.load(str(path)).graph
    past = [entry.name for entry in graph.input if entry.name.startswith("past.")]
    present = [entry.name for entry in graph.output if entry.name.startswith("present.")]
    assert [name.replace("past.", "present.") for name in past] == present
    assert {entry.name for entry in graph.input} == {"input_ids", "learn", *past}
    assert {entry.name for entry in graph.output} == {"logits", *present}


def test_graphs_contain_no_source_paths(path: Path) -> None:
    data = path.read_bytes()
    assert b"/train/" not in data
    assert b".py" not in data


def test_the_metadata_suffices_to_run_a_graph(
    small_bundle: Path, small: Checkpoint, tmp_path: Path
) -> None:
    """Plain onnxruntime runs a copied graph from the graph's own properties."""
    for kind in GRAPHS:
        copy = tmp_path / f"{kind}.onnx"
        copy.write_bytes((small_bundle / copy.name).read_bytes())
        session = ort.InferenceSession(str(copy))
        properties = session.get_modelmeta().custom_metadata_map
        assert properties["rillet.graph"] == kind
        assert "zeros" in properties["rillet.step_contract"]
        state = {
            row["name"]: np.zeros([2, *row["shape"][1:]], row["dtype"])
            for row in json.loads(properties["rillet.state"])
        }
        tokens = np.arange(24).reshape(2, 12) % small.tokenizer.vocab_size
        names = [output.name for output in session.get_outputs()]
        parts = []
        for chunk in np.split(tokens, 12 if kind == "decode" else 3, axis=1):
            feeds = {"input_ids": chunk, "learn": np.ones(2, np.float32)}
            feeds |= {f"past.{name}": value for name, value in state.items()}
            outputs = dict(zip(names, session.run(None, feeds), strict=True))
            parts.append(outputs["logits"])
            state = {name: outputs[f"present.{name}"] for name in state}
        with torch.no_grad():
            expected, _ = small.model(torch.from_numpy(tokens), small.model.zero_state(2))
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected.numpy(), atol=1e-5)


def test_metadata_matches_the_manifest(path: Path, small_bundle: Path) -> None:
    manifest = json.loads((small_bundle / "bundle.json").read_text())
    properties = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert json.loads(properties["rillet.state"]) == manifest["state"]
    assert properties["rillet.weights_sha256"] == manifest["weights_sha256"]
    assert properties["rillet.tokenizer_sha256"] == manifest["tokenizer_sha256"]
    assert properties["rillet.opset"] == str(OPSET)
    assert json.loads(properties["rillet.exporter"])["torch"] == torch.__version__


@pytest.mark.slow
@pytest.mark.usefixtures("real_exporter")
def test_exporting_twice_gives_the_same_bytes(
    small: Checkpoint, small_bundle: Path, tmp_path: Path
) -> None:
    second = tmp_path / "small"
    write_bundle(small, second, steps=500)
    names = sorted(file.name for file in small_bundle.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        first, again = (small_bundle / name).read_bytes(), (second / name).read_bytes()
        if name == CARD:  # which ends with measured times
            first, again = (data.partition(b"## Time")[0] for data in (first, again))
        assert first == again, name


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": 0, "sine_frequency": 0.5, "sine_amplitude": 1.5},
        {"wave_blocks": 1, "wave_kernel": 2, "readout_filters": 1, "readout_blocks": 1},
        pytest.param(
            {"reservoir": "none", "memory_key": "suffix", "suffix_length": 1, "code_width": 5},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"wave_blocks": 3, "attention_heads": 1, "attention_window": 2, "wave_window": 2},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_other_configurations_export(changes: dict[str, object]) -> None:
    """Logits and state of both graphs agree with PyTorch."""
    model = DualCNN(SMALL.replace(vocab_size=11, **changes))
    tokens = torch.arange(150).view(3, 50).pow(2) % 11
    model.fit(tokens.flatten(), [b" "] * 11).eval()
    learn = torch.tensor([1.0, 0.0, 1.0])
    with torch.no_grad():
        expected, state = model(tokens, model.zero_state(3), learn)
    for graph, length in ((decode_graph(model), 1), (prefill_graph(model), 25)):
        session = ort.InferenceSession(graph.SerializeToString())
        names = [output.name for output in session.get_outputs()]
        values = {name: tensor.numpy() for name, tensor in model.zero_state(3).items()}
        parts = []
        for chunk in np.split(tokens.numpy(), 50 // length, axis=1):
            feeds = {"input_ids": chunk, "learn": learn.numpy()}
            feeds |= {f"past.{name}": value for name, value in values.items()}
            outputs = dict(zip(names, session.run(None, feeds), strict=True))
            parts.append(outputs["logits"])
            values = {name: outputs[f"present.{name}"] for name in values}
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected.numpy(), atol=1e-5)
        for name, tensor in state.items():
            np.testing.assert_allclose(values[name], tensor.numpy(), atol=1e-5, err_msg=name)


def test_small_constants_survive_the_export() -> None:
    """The exporter keeps the kernel's offset, exp(-beta / 2), which is 6e-9 here.

    Its optimiser drops scalars that small. Without the offset, entries that were not learned
    would be recalled.
    """
    model = DualCNN(SMALL.replace(vocab_size=11, memory_sharpness=38.0))
    model.fit(torch.arange(300).pow(2) % 11).eval()
    assert model.memory is not None
    assert model.readout_cnn is not None
    with torch.no_grad():
        model.memory.gate.output.bias.fill_(9.0)
        model.readout_cnn.head.weight.mul_(20)
    session = ort.InferenceSession(decode_graph(model).SerializeToString())
    predictions = []
    for token in range(11):
        feeds = {f"past.{name}": value.numpy() for name, value in model.zero_state().items()}
        feeds["past.memory_tokens"] = np.full((1, SMALL.memory), token)
        feeds |= {"input_ids": np.array([[3]]), "learn": np.zeros(1, np.float32)}
        predictions.append(session.run(["logits"], feeds)[0])
    for logits in predictions[1:]:
        np.testing.assert_array_equal(predictions[0], logits)


@pytest.mark.parametrize("vocab_size", [129, 300])
def test_large_vocabularies_are_read_by_digits(vocab_size: int) -> None:
    """Tokens as two digits, where the last high digit is only partly used."""
    torch.manual_seed(0)
    model = DualCNN(SMALL.replace(vocab_size=vocab_size))
    model.fit(torch.randint(vocab_size, (4_000,))).eval()
    session = ort.InferenceSession(decode_graph(model).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    tokens = torch.randint(vocab_size, (2, 40))
    tokens[:, 20:] = tokens[:, :20]  # the second half is recalled
    tokens[:, -1] = vocab_size - 1
    state = {name: value.numpy() for name, value in model.zero_state(2).items()}
    with torch.no_grad():
        expected, _ = model(tokens, model.zero_state(2))
    for place in range(tokens.shape[1]):
        feeds = {"input_ids": tokens[:, place : place + 1].numpy(), "learn": np.ones(2, np.float32)}
        feeds |= {f"past.{name}": value for name, value in state.items()}
        outputs = dict(zip(names, session.run(None, feeds), strict=True))
        state = {name: outputs[f"present.{name}"] for name in state}
        np.testing.assert_allclose(outputs["logits"][:, 0], expected[:, place], atol=1e-5)
