"""A bundle without graphs: the native engine runs it, and every command says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rillet.export import ExportOptions, export, quantize, verify
from rillet.export.bundle.folder import write_manifest
from rillet.export.bundle.writer import export_work, write_bundle
from rillet.export.quantization.measurement import quantize_work
from rillet.runtime import (
    Bundle,
    BundleError,
    EngineError,
    Model,
    ParityError,
    UsageError,
    load,
)
from rillet.runtime.engines.native import library
from rillet.runtime.golden import verify_golden
from rillet.train import Checkpoint
from support.command_line import here

pytestmark = pytest.mark.skipif(
    library.library_path() is None, reason="the native library is not built"
)

FILES = {"README.md", "bundle.json", "generation_config.json", "tokenizer.json"}


@pytest.fixture(scope="module")
def native_only(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native-only") / "native"
    write_bundle(small, folder, options=ExportOptions(native_only=True, parity_steps=200))
    return folder


@pytest.fixture(scope="module")
def lowered(native_only: Path) -> Bundle:
    return quantize(native_only, native_only.with_name("int8"), "int8", max_loss_rise=1)


def test_it_holds_no_graph_and_generates_what_the_whole_bundle_does(
    native_only: Path, small_bundle: Path
) -> None:
    bundle = Bundle.open(native_only)
    assert not bundle.has_graphs
    assert not list(native_only.glob("*.onnx"))
    model, whole = load(native_only), load(small_bundle, "native")
    assert model.engine.provider == "native"
    options = {"seed": 3, "max_new_tokens": 60}
    assert model.generate("The ", **options) == whole.generate("The ", **options)
    reports = verify_golden(model)
    assert {report.greedy for report in reports.values()} == {64}


def test_the_gate_compared_its_weights_with_pytorch(native_only: Path, small: Checkpoint) -> None:
    rows = Bundle.open(native_only).manifest["parity"]
    assert {row["provider"] for row in rows} == {"native"}
    report = verify(native_only, small, engines=("native",), steps=200)
    assert report.passed
    assert sum(row["tokens"] for row in report.to_list()) == 260


def test_a_progress_bar_ends_where_the_work_does(
    native_only: Path, small: Checkpoint, tmp_path: Path
) -> None:
    read: list[int] = []
    options = ExportOptions(native_only=True, parity_steps=200)
    write_bundle(small, tmp_path / "again", options=options, progress=read.append)
    assert sum(read) == export_work(options)
    read.clear()
    bundle, limits = Bundle.open(native_only), {"max_loss_rise": 1, "tokens": 2_000}
    quantize(bundle, tmp_path / "int8", "int8", progress=read.append, **limits)
    assert sum(read) == quantize_work(bundle, "int8", 2_000)


def test_int8_is_measured_on_the_native_engine(lowered: Bundle, small_bundle: Path) -> None:
    assert {file.name for file in lowered.path.iterdir()} == FILES | {"weights.safetensors"}
    figures = lowered.manifest["quantization"]
    assert figures["quantizer"].startswith("native")
    whole = quantize(small_bundle, lowered.path.with_name("whole"), "int8", max_loss_rise=1)
    assert figures["loss"] == whole.manifest["quantization"]["native_loss"]
    assert lowered.checked_file("weights.safetensors").read_bytes() == (
        whole.checked_file("weights.safetensors").read_bytes()
    )


def test_a_rise_of_the_loss_is_said_to_be_the_engines(native_only: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="raises the loss of the native engine"):
        quantize(native_only, tmp_path / "int8", "int8", max_loss_rise=0)
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_a_precision_that_only_graphs_hold_is_refused(native_only: Path, precision: str) -> None:
    with pytest.raises(UsageError, match="for the native engine alone"):
        quantize(native_only, native_only.with_name("lower"), precision)


def test_the_engine_s_recurrence_cannot_be_lowered(native_only: Path) -> None:
    with pytest.raises(UsageError, match="alone, which keeps the recurrence in float32"):
        quantize(native_only, native_only.with_name("lower"), "int8", recurrence=True)


def test_export_refuses_it_before_it_builds_anything(small: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose int8"):
        export(small, tmp_path / "b", precision="fp16", native_only=True)
    for option in ("genai", "last_logits", "onnxruntime_only"):
        with pytest.raises(UsageError, match="is about graphs"):
            ExportOptions(native_only=True, **{option: True})


def test_other_engines_say_what_to_do(native_only: Path) -> None:
    with pytest.raises(EngineError, match="without --native-only"):
        load(native_only, "cpu")
    with pytest.raises(EngineError, match="use the provider native"):
        Bundle.open(native_only).graph("decode")


def test_without_the_library_nothing_else_is_tried(
    native_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "library_path", lambda: None)
    library.load_library.cache_clear()
    with pytest.raises(EngineError, match="no native library") as error:
        load(native_only)
    monkeypatch.undo()
    library.load_library.cache_clear()
    assert "onnxruntime" not in str(error.value)


def test_a_manifest_with_neither_graphs_nor_weights_is_refused(
    native_only: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(native_only, bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    del manifest["files"]["weights.safetensors"], manifest["checksum"]
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match="lists no graphs"):
        Bundle.open(bundle)


def test_commands(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    options = ("--native-only", "--parity-steps", "200", "--out", out)
    done = here("export", small_run, "--precision", "int8", "--max-loss-rise", "1", *options)
    assert done.returncode == 0, done.stderr
    assert "TensorRT" not in done.stdout
    assert "--native-only" in (out / "README.md").read_text()
    for command in (
        ("generate", out, "The ", "--max-new-tokens", "5"),
        ("verify", out, "--checkpoint", small_run, "--steps", "100"),
        ("inspect", out),
        ("bench", out, "--prompt", "8", "--tokens", "8", "--repetitions", "1"),
        ("doctor", out),
    ):
        done = here(*command)
        assert done.returncode == 0, (command, done.stderr)
    facts = json.loads(here("inspect", out, "--json").stdout)
    assert facts["graphs"] == {}
    done = here("generate", out, "The ", "--provider", "cpu")
    assert (done.returncode, "without --native-only" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    assert "has no graphs" in here("engine", "build", out).stderr


def test_streams_and_snapshots_work(lowered: Bundle, tmp_path: Path) -> None:
    model: Model = load(lowered.path)
    session = model.session()
    session.feed("The ")
    session.save(tmp_path / "state")
    wanted = session.generate(max_new_tokens=20, seed=1)
    assert model.restore(tmp_path / "state").generate(max_new_tokens=20, seed=1) == wanted
    with model.batch() as batch:
        assert len(batch.generate(["The ", "And "], max_new_tokens=10, seed=1)) == 2
