"""Bundles in lower precision: what they keep, what they cost, and which requests are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rillet.export import quantize
from rillet.export.bundle.writer import write_bundle
from rillet.export.graphs.buffer_safety import unsafe_state
from rillet.export.quantization.conversions import PRECISIONS, convert
from rillet.export.quantization.fp16 import fp16_matmuls, fp16_weights
from rillet.export.quantization.matmuls import find_matmuls, walk
from rillet.export.quantization.static_int8 import matmul_inputs, to_static_int8
from rillet.runtime import Bundle, CorpusError, EngineError, ParityError, UsageError, load
from rillet.runtime.engines.native.library import library_path
from rillet.runtime.engines.tensorrt.api import installed_tensorrt
from rillet.runtime.engines.tensorrt.build import PREFILL_LENGTHS, BuildOptions, build_graph
from rillet.runtime.golden import SELF_TOLERANCE, verify_golden
from support.cache import Cache
from support.models import SMALL, train_small
from support.operators import complaints

SHIPPED = Path(__file__).parents[2] / "models" / "shakespeare-nano"
WAYS = [(name, method) for name, entry in PRECISIONS.items() for method in entry.methods]
IDS = [" ".join(way) for way in WAYS]
# The small model is barely trained, so its loss says little.
LOOSE: dict[str, Any] = {"max_loss_rise": 1.0, "tokens": 600}


@pytest.fixture(scope="module")
def source(cache: Cache, text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model just large enough for its products, the recurrence included, to be lowered.

    Its matrices are not square, so that a transposed one is noticed.
    """

    def make(folder: Path) -> None:
        config = SMALL.replace(width=36, hidden=64, wave_features=32, reservoir_size=40)
        write_bundle(train_small(config, text[:60_000], steps=40), folder / "source", steps=300)

    return cache.folder("quantize-source", make, tmp_path_factory.mktemp("lowering")) / "source"


@pytest.fixture(scope="module")
def lowered(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """The source in any precision, made on first use."""
    folder, done = tmp_path_factory.mktemp("lowered"), {}

    def make(precision: str, method: str) -> Bundle:
        if (precision, method) not in done:
            out = folder / f"{precision}-{method}"
            done[precision, method] = quantize(source, out, precision, method=method, **LOOSE)
        return done[precision, method]

    return make


def graphs(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    return {kind: onnx.load(bundle.graph(kind)) for kind in bundle.manifest["graphs"]}


def inner(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for graph, _ in walk(model.graph) for node in graph.node]


@pytest.mark.parametrize(("precision", "method"), WAYS, ids=IDS)
def test_lowered_bundles_verify_and_generate(
    lowered: Callable[..., Bundle], source: Path, precision: str, method: str
) -> None:
    bundle, before = lowered(precision, method), Bundle.open(source)
    assert bundle.manifest["precision"] == precision
    for same in ("state", "model", "weights_sha256", "tokenizer_sha256", "training"):
        assert bundle.manifest[same] == before.manifest[same], same
    cost = bundle.manifest["quantization"]
    assert cost["method"] == method
    assert cost["tokens"] == 600
    for loss in ("loss", "step_loss"):
        assert cost[loss] - cost[f"{loss}_fp32"] < 0.05
    model = load(bundle.path)
    assert set(verify_golden(model)) == {"prefill", "decode"}
    assert model.generate("The ", max_new_tokens=40, seed=3)
    if precision == "int8" and library_path() is not None:
        assert abs(cost["native_loss"] - cost["loss_fp32"]) < 0.01
        native = load(bundle.path, "native")
        assert set(verify_golden(native)) == {"prefill", "decode"}
        assert native.generate("The ", max_new_tokens=40, seed=3)
    card = (bundle.path / "README.md").read_text()
    assert precision in card
    assert f"{cost['loss']:.4f}" in card


@pytest.mark.parametrize(("precision", "method"), WAYS, ids=IDS)
def test_inputs_outputs_and_properties_are_kept(
    lowered: Callable[..., Bundle], source: Path, precision: str, method: str
) -> None:
    before, after = graphs(Bundle.open(source)), graphs(lowered(precision, method))
    assert before.keys() == after.keys()
    for kind, model in after.items():
        onnx.checker.check_model(model, full_check=True)
        for side in ("input", "output"):
            expected = [entry.SerializeToString() for entry in getattr(before[kind].graph, side)]
            actual = [entry.SerializeToString() for entry in getattr(model.graph, side)]
            assert actual == expected, (kind, side)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        kept = {entry.key: entry.value for entry in before[kind].metadata_props}
        assert properties.items() > kept.items()
        assert properties["rillet.precision"] == precision
        assert model.ir_version == before[kind].ir_version
        if kind in ("decode", "prefill"):
            assert not unsafe_state(model.graph), kind


@pytest.mark.parametrize("method", PRECISIONS["fp16"].methods)
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_fp16_is_legal_for_tensorrt(source: Path, kind: str, method: str) -> None:
    """Only standard operators, and never two types in one of them."""
    lower = fp16_matmuls if method == "multiply" else fp16_weights
    model = lower(onnx.load(source / f"{kind}.onnx"))
    assert {entry.domain for entry in model.opset_import} == {""}
    # Strict inference fails if an operator receives mixed types.
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    halves = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    assert halves
    for node in inner(model):
        if halves & set(node.input):
            assert node.op_type in ("Cast", "MatMul"), node.name


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_static_int8_is_legal_for_tensorrt(lowered: Callable[..., Bundle], kind: str) -> None:
    """No uint8, zero points of zero, and no other node reads an int8 constant."""
    model = graphs(lowered("int8", "static"))[kind]
    assert {entry.domain for entry in model.opset_import} == {""}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {tensor.data_type for tensor in constants.values()}
    assert onnx.TensorProto.UINT8 not in types
    pairs = [n for n in inner(model) if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == onnx.TensorProto.INT8
        assert not onnx.numpy_helper.to_array(zero).any()
    narrow = {name for name, t in constants.items() if t.data_type == onnx.TensorProto.INT8}
    for node in inner(model):
        if node not in pairs:
            assert not narrow & set(node.input), node.name


@pytest.mark.parametrize(("precision", "method"), WAYS, ids=IDS)
def test_recurrence_and_memory_stay_float32(
    lowered: Callable[..., Bundle], source: Path, precision: str, method: str
) -> None:
    """The reservoir and the memory's keys are bit-identical."""
    model, exact = load(lowered(precision, method).path, "cpu"), load(source, "cpu")
    state, expected = model.engine.zero_state(), exact.engine.zero_state()
    tokens = np.random.default_rng(5).integers(0, model.vocab_size, (1, 90))
    model.engine.prefill(tokens, state)
    exact.engine.prefill(tokens, expected)
    for name in ("reservoir", "memory_keys", "memory_tokens", "position"):
        np.testing.assert_array_equal(state.read()[name], expected.read()[name], err_msg=name)


def test_the_recurrence_is_lowered_on_request(source: Path, tmp_path: Path) -> None:
    for kind in ("decode", "prefill"):
        model = onnx.load(source / f"{kind}.onnx")
        without, included = find_matmuls(model), find_matmuls(model, recurrence=True)
        assert len(included) == len(without) + 1
        added = {m.node.name for m in included} - {m.node.name for m in without}
        assert all(name.startswith("reservoir/") for name in added)
    bundle = quantize(source, tmp_path / "out", "int8", recurrence=True, **LOOSE)
    assert bundle.manifest["quantization"]["recurrence"] is True
    assert load(bundle.path).generate("The ", max_new_tokens=20, seed=1)
    assert bundle.state == Bundle.open(source).state


@pytest.mark.parametrize(("precision", "method"), WAYS, ids=IDS)
def test_batches_and_chunkings_agree(
    lowered: Callable[..., Bundle], precision: str, method: str
) -> None:
    """Equal results for any batch and chunking, unless the method rounds inputs to int8."""
    engine = load(lowered(precision, method).path).engine
    tokens = np.random.default_rng(6).integers(0, engine.vocab_size, (3, 50))
    state = engine.zero_state(3)
    whole = engine.prefill(tokens, state)
    state = engine.zero_state(3)
    cut = np.concatenate(
        [engine.prefill(tokens[:, a:b], state) for a, b in ((0, 1), (1, 8), (8, 50))], axis=1
    )
    alone = np.concatenate([engine.prefill(row[None], engine.zero_state()) for row in tokens])
    rounds_inputs = precision == "int8"
    for other in (cut, alone):
        assert np.isfinite(other).all()
        np.testing.assert_allclose(other, whole, atol=0.5 if rounds_inputs else 1e-4)
    if method == "dynamic":  # each row is a call of its own
        np.testing.assert_array_equal(alone, whole)
    steps = engine.zero_state(3)
    stepped = np.stack([engine.step(column, steps).copy() for column in tokens.T], axis=1)
    np.testing.assert_allclose(stepped, whole, atol=SELF_TOLERANCE[precision])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "method"),
    [("fp16", "multiply"), ("int8", "dynamic"), ("int8", "static"), ("int4", "weight-only")],
)
def test_quantising_twice_gives_the_same_bytes(
    lowered: Callable[..., Bundle], source: Path, tmp_path: Path, precision: str, method: str
) -> None:
    """Quantise a copy of the bundle in another process and another folder."""
    first = lowered(precision, method)
    copy = Path(shutil.copytree(source, tmp_path / "elsewhere" / "copy"))
    command = [sys.executable, "-m", "rillet.runtime.cli", "quantize", str(copy), "--out"]
    command += [str(tmp_path / "second"), "--precision", precision, "--method", method]
    command += ["--tokens", "600", "--max-loss-rise", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    second = tmp_path / "second"
    names = sorted(file.name for file in first.path.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        data = (second / name).read_bytes()
        assert str(tmp_path).encode() not in data, name
        assert b".py" not in data or name == "README.md", name
        if name != "README.md":  # which holds measured times
            assert (first.path / name).read_bytes() == data, name


def test_bad_requests_are_refused(
    lowered: Callable[..., Bundle], source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    int8 = lowered("int8", "weight-only").path
    with pytest.raises(UsageError, match=r"is already in int8.*give the fp32 bundle"):
        quantize(int8, out, "fp16")
    with pytest.raises(UsageError, match="precision is 'int2'; choose one of fp16, int8, int4"):
        quantize(source, out, "int2")
    with pytest.raises(UsageError, match="int4 has no method 'static'"):
        quantize(source, out, "int4", method="static")
    with pytest.raises(UsageError, match="max_loss_rise is nan"):
        quantize(source, out, "int8", max_loss_rise=float("nan"))
    with pytest.raises(UsageError, match="tokens is 3"):
        quantize(source, out, "int8", tokens=3)
    with pytest.raises(UsageError, match="choose another --out"):
        quantize(source, source, "int8")
    with pytest.raises(CorpusError, match=r"none\.txt"):
        quantize(source, out, "int8", text=tmp_path / "none.txt")
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(CorpusError, match="too few to measure"):
        quantize(source, out, "int8", text=tmp_path / "short.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 200)
    with pytest.raises(CorpusError, match="UTF-8"):
        quantize(source, out, "int8", text=tmp_path / "latin.txt")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="will not be replaced"):
        quantize(source, mine, "int8")
    assert not out.exists()
    assert [file.name for file in mine.iterdir()] == ["letter.txt"]


def test_too_large_a_loss_rise_leaves_the_old_bundle(
    lowered: Callable[..., Bundle], source: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(lowered("int8", "dynamic").path, tmp_path / "out"))
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    loss = quantize(source, tmp_path / "loose", "int4", **LOOSE).manifest["quantization"]
    rise = max(loss[name] - loss[f"{name}_fp32"] for name in ("loss", "step_loss"))
    assert rise > 0
    with pytest.raises(ParityError, match=r"int4 \(weight-only\) raises the loss of the .* graph"):
        quantize(source, out, "int4", max_loss_rise=rise / 2, tokens=600)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_only_the_held_out_part_of_the_training_text_is_measured(
    source: Path, text: str, tmp_path: Path
) -> None:
    """A bundle knows the hash of its corpus; any other text is calibrated on and measured."""
    from rillet.runtime.bundle import checksum
    from rillet.runtime.files import sha256_bytes

    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    corpus, other = tmp_path / "corpus.txt", tmp_path / "other.txt"
    corpus.write_text(text[:8_000], encoding="utf-8")
    other.write_text(text[20_000:22_000], encoding="utf-8")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["training"]["corpus_sha256"] = sha256_bytes(corpus.read_bytes())
    manifest["training"]["config"] = {"held_out": 0.25}
    manifest["checksum"] = checksum(manifest)
    (copy / "bundle.json").write_text(json.dumps(manifest))
    options = {**LOOSE, "tokens": None}
    cost = quantize(copy, tmp_path / "a", "int8", text=corpus, **options).manifest["quantization"]
    assert cost["tokens"] == 2_000 - 1
    assert cost["text"] == "corpus.txt"
    assert cost["text_sha256"] == sha256_bytes(corpus.read_bytes())
    # With a separate text held out, the end of the corpus was trained on like the rest.
    manifest["training"]["validation_sha256"] = sha256_bytes(b"another text")
    manifest["checksum"] = checksum(manifest)
    (copy / "bundle.json").write_text(json.dumps(manifest))
    cost = quantize(copy, tmp_path / "a", "int8", text=corpus, **options).manifest["quantization"]
    assert cost["part"] == "all but the calibrating beginning"
    cost = quantize(copy, tmp_path / "b", "int8", text=other, **options).manifest["quantization"]
    assert cost["tokens"] < 2_000
    assert cost["text_sha256"] == sha256_bytes(other.read_bytes())


def test_static_scales_are_the_calibrated_ranges(source: Path) -> None:
    """Each input's scale is its range divided by 127."""
    model = onnx.load(source / "decode.onnx")
    names = matmul_inputs(model)
    quantized = to_static_int8(model, dict.fromkeys(names, 12.7))
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.graph.initializer}
    quantizers = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert {node.input[0] for node in quantizers} == set(names)
    for node in quantizers:
        np.testing.assert_allclose(scales[node.input[1]], 0.1, rtol=1e-6)


def test_a_conversion_does_not_modify_its_input(source: Path) -> None:
    state = Bundle.open(source).state
    model = onnx.load(source / "decode.onnx")
    before = model.SerializeToString(deterministic=True)
    tokens = np.arange(80)[None] % 7
    for precision, method in WAYS:
        convert(model, precision, method, False, tokens, state, 1.0)
        assert model.SerializeToString(deterministic=True) == before, (precision, method)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "method"), WAYS, ids=IDS)
def test_shipped_model_keeps_its_loss(
    tinyshakespeare: str, tmp_path: Path, precision: str, method: str
) -> None:
    """Within the default limits, on the held-out text."""
    text = tmp_path / "tinyshakespeare.txt"
    text.write_text(tinyshakespeare, encoding="utf-8")
    bundle = quantize(SHIPPED, tmp_path / "out", precision, method=method, text=text, tokens=8_000)
    cost = bundle.manifest["quantization"]
    assert "held out" in cost["part"]
    limit = {"fp16": 0.001, "int8": 0.01, "int4": 0.05}[precision]
    assert abs(cost["loss"] - cost["loss_fp32"]) <= limit
    assert bundle.graph("decode").stat().st_size < (SHIPPED / "decode.onnx").stat().st_size
    verify_golden(load(bundle.path))


def test_dynamic_products_cannot_saturate(lowered: Callable[..., Bundle]) -> None:
    """A pair of products of 8 by 7 bits fits 16 bits, as processors without VNNI require."""
    checked = 0
    for model in graphs(lowered("int8", "dynamic")).values():
        for graph, _ in walk(model.graph):
            for tensor in graph.initializer:
                if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2:
                    checked += 1
                    assert np.abs(numpy_helper.to_array(tensor).astype(int)).max() <= 64
    assert checked


@pytest.mark.tensorrt
@pytest.mark.parametrize(("precision", "method"), WAYS, ids=IDS)
def test_tensorrt_builds_what_is_portable(
    lowered: Callable[..., Bundle], precision: str, method: str
) -> None:
    """And rejects the others, which use ONNX Runtime's own operators."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: pip install it")
    api = installed_tensorrt("tensorrt_rtx")
    bundle = lowered(precision, method)
    for kind, lengths in (("decode", (1, 1, 1)), ("prefill", PREFILL_LENGTHS)):
        model = bundle.graph(kind).read_bytes()
        if method in PRECISIONS[precision].portable:
            assert complaints(onnx.load_from_string(model)) == []
            assert len(build_graph(api, model, BuildOptions(), lengths)) > 10_000
            continue
        with pytest.raises(EngineError, match=r"tensorrt_rtx .* cannot (read|build)"):
            build_graph(api, model, BuildOptions(), lengths)
