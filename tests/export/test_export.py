"""The export API and its options, and the reports on damaged graphs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from rillet.export import ExportOptions, ParityReport, export, verify
from rillet.export.api import verify_work
from rillet.export.bundle.folder import CARD
from rillet.export.bundle.writer import export_work
from rillet.export.parity.graph_diff import graph_differences
from rillet.runtime import Bundle, BundleError, ParityError, RilletError, UsageError, load
from rillet.runtime.bundle import checksum
from rillet.runtime.cli.entry import rillet
from rillet.runtime.engines.native.library import library_path
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.files import sha256_file
from rillet.train import Checkpoint


@pytest.fixture(scope="module")
def full(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with every option, in another opset."""
    out = tmp_path_factory.mktemp("export") / "full"
    return export(
        small,
        out,
        opset=21,
        static_batch=2,
        last_logits=True,
        genai=True,
        parity_steps=300,
        temperature=0.7,
        min_p=0.05,
    )


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle that a test may modify."""
    out = tmp_path / "copy"
    out.mkdir()
    for file in small_bundle.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


def damage(bundle: Path, kind: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph and fix all hashes, so that only parity can tell."""
    path = bundle / f"{kind}.onnx"
    graph = onnx.load(str(path))
    change(graph)
    path.write_bytes(graph.SerializeToString())
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["graphs"][kind]["sha256"] = sha256_file(path)
    manifest["checksum"] = checksum(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def one_weight(graph: onnx.ModelProto) -> None:
    tensor = next(t for t in graph.graph.initializer if t.name == "wave_cnn.gated.0.down")
    value = numpy_helper.to_array(tensor).copy()
    value[3, 2] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def halved_state(graph: onnx.ModelProto) -> None:
    """Halve the reservoir's output state and leave the rest of the step."""
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = ["whole" if name == "present.reservoir" else name for name in names]
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    graph.graph.node.append(onnx.helper.make_node("Mul", ["whole", "half"], ["present.reservoir"]))


def dropped_output(graph: onnx.ModelProto) -> None:
    kept = [entry for entry in graph.graph.output if entry.name != "present.wave_buffer"]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)


def test_export_and_verify(small_run: Path, tmp_path: Path) -> None:
    read: list[int] = []
    bundle = export(small_run, tmp_path / "model", parity_steps=300, progress=read.append)
    assert sum(read) == export_work(ExportOptions(parity_steps=300))
    read.clear()
    report = verify(bundle, small_run, steps=300, progress=read.append)
    assert sum(read) == verify_work(bundle, ["cpu"], 300, long=False)
    assert isinstance(report, ParityReport)
    assert report.passed
    assert report.failure is None
    assert {row.graph for row in report.comparisons} == {"decode", "prefill", "generate"}
    assert "logits" in report.table()
    for row in report.to_list():
        assert set(row["outputs"]) == {"logits", *(tensor.name for tensor in bundle.state)}


@pytest.mark.parametrize(
    ("graph", "change", "named"),
    [
        ("decode", one_weight, r"decode: the tensor wave_cnn\.gated\.0\.down differs in 1 values"),
        pytest.param(
            "decode",
            halved_state,
            r"first state tensor that is off is reservoir",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_damaged_graph_fails_and_the_damage_is_named(
    graph: str,
    change: Callable[[onnx.ModelProto], None],
    named: str,
    copy: Path,
    small: Checkpoint,
) -> None:
    damage(copy, graph, change)
    report = verify(copy, small, steps=300)
    assert not report.passed
    with pytest.raises(ParityError, match=named):
        report.check()


def test_swapped_states_are_named(copy: Path, small: Checkpoint) -> None:
    """Their shapes differ, so the engine refuses to bind them and names one."""

    def swap(graph: onnx.ModelProto) -> None:
        names = {"present.wave_buffer": "present.reservoir"}
        names |= {new: old for old, new in names.items()}
        for node in graph.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]
            node.input[:] = [names.get(name, name) for name in node.input]

    damage(copy, "decode", swap)
    with pytest.raises(RilletError, match=r"wave_buffer|reservoir"):
        verify(copy, small, steps=100).check()


def test_a_dropped_output_is_named(copy: Path, small: Checkpoint) -> None:
    damage(copy, "prefill", dropped_output)
    with pytest.raises(BundleError, match=r"present\.wave_buffer"):
        verify(copy, small, steps=100)


def test_graph_differences_are_named(small_bundle: Path) -> None:
    graph = onnx.load(str(small_bundle / "decode.onnx")).graph
    assert graph_differences(graph, graph) == []
    other = onnx.GraphProto()
    other.CopyFrom(graph)
    removed = other.node.pop()
    other.node[0].attribute.append(onnx.helper.make_attribute("extra", 1))
    differences = graph_differences(graph, other)
    assert f"the node {removed.name} is missing" in differences
    assert f"the node {graph.node[0].name} was changed" in differences


def test_every_option_takes_effect(full: Bundle, small: Checkpoint) -> None:
    for kind in ("decode", "prefill", "generate"):
        graph = onnx.load(str(full.graph(kind)))
        assert [entry.version for entry in graph.opset_import] == [21]
        assert graph.ir_version == 10
    static = ort.InferenceSession(str(full.graph("decode_static")))
    assert all(entry.shape[0] == 2 for entry in (*static.get_inputs(), *static.get_outputs()))
    prefill = ort.InferenceSession(str(full.graph("prefill")))
    assert prefill.get_outputs()[0].shape[1] == 1
    assert (full.path / "genai_config.json").is_file()
    assert "genai_config.json" in full.hashes()
    report = verify(full, small, steps=200)
    assert report.passed, report.failure


def test_the_bundle_samples_as_it_was_exported_to(full: Bundle, small_bundle: Path) -> None:
    model, default = load(full.path), load(small_bundle)
    assert model.sampling().temperature == 0.7
    assert (model.sampling().top_p, model.sampling().min_p) == (1.0, 0.05)
    assert (default.sampling().temperature, default.sampling().min_p) == (0.8, 0.0)
    assert "--temperature 0.7 --min-p 0.05" in " ".join(full.manifest["arguments"]["export"])
    chosen = default.generate("The ", seed=4, temperature=0.7, min_p=0.05)
    assert model.generate("The ", seed=4) == chosen
    assert chosen != default.generate("The ", seed=4)


def test_last_logits_match_full_logits(full: Bundle, small_bundle: Path) -> None:
    """Prompts and scores agree with those of a prefill graph that returns all logits."""
    whole, last = load(small_bundle, "cpu"), load(full.path, "cpu")
    text = "The memory of a stream is of fixed size. " * 12
    for model in (whole, last):
        assert model.engine.last_logits == (model is last)
    first, second = whole.session(), last.session()
    first.feed(text)
    second.feed(text)
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)
    tokens = np.asarray([whole.tokenizer.encode(text[:90])])
    expected = whole.engine.prefill(tokens, whole.engine.zero_state())
    actual = last.engine.prefill(tokens, last.engine.zero_state())
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, r"opset 17 cannot express the model, .* added in opset 18; use 18"),
        ({"opset": 99}, r"opset 99 is newer than opset 23"),
        ({"static_batch": 0}, r"static_batch is 0"),
        ({"parity_steps": -1}, r"parity_steps is -1"),
        ({"min_p": 1.5}, r"min_p is 1.5; it must lie between 0 and 1"),
        ({"temperature": -1}, r"temperature is -1; it must be 0 \(greedy\) or above"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, float], message: str, small: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export(small, tmp_path / "never", **options)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_bundle_with_every_option_may_be_replaced(full: Bundle, small: Checkpoint) -> None:
    target = full.path.parent / "again"
    export(small, target, genai=True, static_batch=3, parity_steps=20)
    bundle = export(small, target, generate=False, parity_steps=20)
    assert not (target / "generate.onnx").exists()
    assert not (target / "model.onnx").exists()
    assert set(bundle.manifest["graphs"]) == {"decode", "prefill"}


def test_one_command_exports_a_lower_precision(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "low"
    text = tmp_path / "text.txt"
    text.write_text("The stream learns what it reads, and writes in its words at once. " * 20)
    arguments = ["export", str(small_run), "--out", str(out), "--precision", "int8"]
    arguments += ["--text", str(text), "--parity-steps", "100", "--max-loss-rise", "0.05"]
    shown = CliRunner().invoke(rillet, arguments)
    assert shown.exit_code == 0, shown.output
    assert "in float32" in shown.output
    assert Bundle.open(out).manifest["precision"] == "int8"
    assert load(out).generate("The", max_new_tokens=5, seed=1)
    assert {entry.name for entry in tmp_path.iterdir()} == {"low", "text.txt"}
    with pytest.raises(UsageError, match="the precision is fp32"):
        export(small_run, tmp_path / "never", text=text)


def test_a_lowered_bundle_with_a_higher_loss_fails(small: Checkpoint, tmp_path: Path) -> None:
    """int8 is judged by its loss whenever it is verified."""
    out = tmp_path / "low"
    export(small, out, precision="int8", max_loss_rise=0.05, parity_steps=100)
    assert verify(out, small, steps=400).passed

    def shifted(graph: onnx.ModelProto) -> None:
        tensor = next(t for t in graph.graph.initializer if t.name == "memory.head_bias")
        value = numpy_helper.to_array(tensor).copy()
        value[0] += 5.0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    damage(out, "decode", shifted)
    with pytest.raises(ParityError, match=r"decode on reference text: the loss rises by \d"):
        verify(out, small, steps=400).check()


def test_inspect_shows_the_whole_bundle(small_bundle: Path) -> None:
    shown = CliRunner().invoke(rillet, ["inspect", str(small_bundle)])
    assert shown.exit_code == 0
    for word in ("fp32", "memory_keys", "together", "decode.onnx", "Parity", "spectral_radius"):
        assert word in shown.output
    output = json.loads(CliRunner().invoke(rillet, ["inspect", str(small_bundle), "--json"]).output)
    state = OnnxEngine(Bundle.open(small_bundle), "cpu").zero_state().read()
    assert output["bytes_per_stream"] == sum(value.nbytes for value in state.values())
    assert output["sizes"]["decode.onnx"] == (small_bundle / "decode.onnx").stat().st_size


def test_verify_prints_json(small_bundle: Path, small_run: Path) -> None:
    arguments = ["verify", str(small_bundle), "--checkpoint", str(small_run), "--steps", "200"]
    shown = CliRunner().invoke(rillet, [*arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    output = json.loads(shown.output)
    assert set(output["record"]["cpu"]) == {"prefill", "decode"}
    assert len(output["parity"]) == (5 if library_path() is None else 7)


_EXPORTER = """
import sys
from pathlib import Path
from rillet.export import export
from rillet.train import load_checkpoint
export(load_checkpoint(Path(sys.argv[1])), sys.argv[2], parity_steps=200)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("real_exporter")
def test_another_process_and_folder_give_the_same_bytes(
    small: Checkpoint, small_run: Path, tmp_path: Path
) -> None:
    """Everything but the measured times at the end of the card."""
    here, there = tmp_path / "here" / "model", tmp_path / "there" / "model"
    export(small, here, parity_steps=200)
    subprocess.run(
        [sys.executable, "-c", _EXPORTER, str(small_run), str(there)], cwd=tmp_path, check=True
    )
    assert {file.name for file in here.iterdir()} == {file.name for file in there.iterdir()}
    for file in here.iterdir():
        first, again = file.read_bytes(), (there / file.name).read_bytes()
        if file.name == CARD:
            first, again = (data.partition(b"## Time")[0] for data in (first, again))
        assert first == again, file.name


def test_no_file_contains_a_path_of_this_machine(full: Bundle) -> None:
    for file in full.path.iterdir():
        data = file.read_bytes()
        for path in (str(Path.home()), str(Path(__file__).parents[2]), str(full.path.parent)):
            assert path.encode() not in data, (file.name, path)
