"""The files for onnxruntime-genai, on plain ONNX Runtime and with the package itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from rillet.export.bundle.genai import GENAI_FILES, write_genai
from rillet.export.graphs.buffer_safety import unsafe_state
from rillet.export.graphs.build import decode_graph, prefill_graph
from rillet.export.graphs.genai import IMPOSSIBLE, Learn, StateLayout, genai_graph
from rillet.runtime.files import sha256_file
from rillet.train import Checkpoint, make_tokenizer

TOLERANCE = 1e-4
DOCS = Path(__file__).parents[2] / "docs" / "genai.md"

Graphs = tuple[onnx.ModelProto, onnx.ModelProto]


@pytest.fixture(scope="module")
def graphs(small: Checkpoint) -> Graphs:
    return decode_graph(small.model), prefill_graph(small.model)


@pytest.fixture(scope="module")
def folder(small: Checkpoint, graphs: Graphs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genai")
    assert write_genai(small, path, graphs) == list(GENAI_FILES)
    return path


@pytest.fixture(scope="module")
def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "genai_config.json").read_text())


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORT_DISABLE_TELEMETRY", "1")
        yield pytest.importorskip(
            "onnxruntime_genai",
            reason="onnxruntime-genai is not installed (pip install rillet[genai])",
        )


class Driver:
    """Runs the graph as onnxruntime-genai does, feeding back its two state tensors."""

    def __init__(self, graph: onnx.ModelProto | Path, batch: int = 1, shared: bool = False) -> None:
        source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        self.session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
        shapes = {entry.name: entry.shape[1:] for entry in self.session.get_inputs()}
        self.shared = shared
        self.state = {
            name: np.zeros((batch, *shapes[f"past.{name}"]), np.float32)
            for name in ("0.conv", "0.recurrent")
        }

    def run(self, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", tokens.astype(np.int64))
        past, present = self.state, self.state
        if not self.shared:
            present = {name: np.full_like(value, np.nan) for name, value in past.items()}
        for name, value in past.items():
            place = ("cpu", 0, np.float32, value.shape)
            binding.bind_input(f"past.{name}", *place, value.ctypes.data)
            binding.bind_output(f"present.{name}", *place, present[name].ctypes.data)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        self.state = present
        logits: np.ndarray[Any, Any] = binding.copy_outputs_to_cpu()[-1]
        return logits


def cut(stream: np.ndarray[Any, Any], lengths: list[int]) -> list[np.ndarray[Any, Any]]:
    return np.split(stream, np.cumsum(lengths)[:-1], axis=1)


@torch.no_grad()
def compare(
    checkpoint: Checkpoint, driver: Driver, parts: list[np.ndarray[Any, Any]], learn: Learn
) -> None:
    model = checkpoint.model
    state = model.zero_state(len(parts[0]))
    for part in parts:
        stored = learn == "all" or (learn == "read" and part.shape[1] > 1)
        expected, state = model(
            torch.from_numpy(part), state, torch.full((len(part),), float(stored))
        )
        actual = driver.run(part)
        assert actual.shape == (*part.shape, model.config.vocab_size + 1)
        assert np.abs(actual[..., :-1] - expected.numpy()).max() <= TOLERANCE
        assert (actual[..., -1] == np.float32(IMPOSSIBLE)).all()


@torch.no_grad()
def greedy(checkpoint: Checkpoint, turns: list[list[int]], count: int) -> list[int]:
    """Generate with PyTorch, storing the turns that are read but not the generated tokens."""
    state, tokens = checkpoint.model.zero_state(), []
    for number, turn in enumerate(turns):
        if number:  # the last generated token was chosen but not read
            _, state = checkpoint.model(torch.tensor([tokens[-1:]]), state, torch.zeros(1))
        logits, state = checkpoint.model(torch.tensor([turn]), state)
        tokens += turn
        for step in range(count):
            if step:
                last = torch.tensor([tokens[-1:]])
                logits, state = checkpoint.model(last, state, torch.zeros(1))
            tokens.append(int(logits[0, -1].argmax()))
    return tokens


CUTS = [40, 1, 1, 1, 1, 1, 1, 1, 3, 1, 19, 1, 1, 2, 1, 1]
"""Prompts and steps in turn, which overrun the small model's memory of 20 more than once."""


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("learn", ["read", "all", "none"])
def test_the_packed_graph_matches_pytorch(
    small: Checkpoint, graphs: Graphs, text: str, learn: Learn, shared: bool
) -> None:
    graph = genai_graph(*graphs, small.model.config.memory, learn)
    tokens = small.tokenizer.encode(text[: 2 * sum(CUTS) + 100])[: 2 * sum(CUTS)]
    stream = np.array(tokens).reshape(2, -1)
    compare(small, Driver(graph, 2, shared), cut(stream, CUTS), learn)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["the least", "no memory", "keyed by the suffix"])
def test_packed_graphs_of_variants_match_pytorch(
    variant: str, variant_checkpoint: Callable[[str], Checkpoint], text: str, tmp_path: Path
) -> None:
    checkpoint = variant_checkpoint(variant)
    write_genai(checkpoint, tmp_path)
    stream = np.array([checkpoint.tokenizer.encode(text[: sum(CUTS)])])
    compare(checkpoint, Driver(tmp_path / "model.onnx"), cut(stream, CUTS), "read")


def test_greedy_tokens_match_pytorch(small: Checkpoint, folder: Path, text: str) -> None:
    prompt = small.tokenizer.encode(text[:30])
    driver, tokens = Driver(folder / "model.onnx", shared=True), list(prompt)
    part = prompt
    for _ in range(64):
        part = [int(driver.run(np.array([part]))[0, -1].argmax())]
        tokens += part
    assert tokens == greedy(small, [prompt], 64)


def test_the_position_stays_exact(small: Checkpoint, folder: Path) -> None:
    """It is kept modulo the memory's capacity, which float32 holds exactly."""
    driver, capacity = Driver(folder / "model.onnx"), small.model.config.memory
    for steps, length in ((7, 7), (14, 7), (15, 1), (50, 35), (51, 1)):
        driver.run(np.ones((1, length)))
        assert driver.state["0.conv"][0, -1] == steps % capacity


def test_the_config_matches_the_graph(
    small: Checkpoint, folder: Path, config: dict[str, Any]
) -> None:
    model, decoder = config["model"], config["model"]["decoder"]
    assert model["type"] == "decoder"
    assert {file.name for file in folder.iterdir()} == set(GENAI_FILES)
    graph = onnx.load(folder / decoder["filename"]).graph
    sizes = {
        entry.name: [d.dim_value or d.dim_param for d in entry.type.tensor_type.shape.dim]
        for entry in (*graph.input, *graph.output)
    }
    inputs, outputs = decoder["inputs"], decoder["outputs"]
    assert set(sizes) == {name.replace("%d", "0") for name in (*inputs.values(), *outputs.values())}
    for kind, rank in (("conv", 3), ("recurrent", 4)):
        past, present = inputs[f"past_{kind}_names"], outputs[f"present_{kind}_names"]
        assert past.count("%d") == present.count("%d") == 1
        shape = sizes[past % 0]
        assert sizes[present % 0] == shape
        assert len(shape) <= rank
        assert shape[0] == "batch"
        assert all(isinstance(size, int) and size > 0 for size in shape[1:])
    vocabulary = small.model.config.vocab_size
    assert sizes["logits"] == ["batch", "length", model["vocab_size"]]
    assert model["vocab_size"] == vocabulary + 1
    assert model["eos_token_id"] == model["pad_token_id"] == vocabulary
    assert config["search"]["past_present_share_buffer"] is True


def test_past_and_present_may_share_buffers(folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx").graph
    assert not unsafe_state(graph)
    whole = next(node for node in graph.node if node.op_type == "If")
    for attribute in whole.attribute:
        assert "past.0.recurrent" in {name for node in attribute.g.node for name in node.input}


def test_the_largest_tensor_is_not_packed(small: Checkpoint, graphs: Graphs) -> None:
    layout = StateLayout.of(graphs[0].graph)
    assert layout.recurrent == "memory_keys"
    assert {*layout.packed, "memory_keys"} == set(small.model.zero_state())


@pytest.mark.parametrize("number", [-1, 500])
@pytest.mark.parametrize("length", [1, 4])
def test_numbers_outside_the_vocabulary_are_refused(folder: Path, number: int, length: int) -> None:
    """-1, the package's number for an unknown character, is not read as the last token."""
    with pytest.raises(Exception, match="out of data bounds"):
        Driver(folder / "model.onnx").run(np.full((1, length), number))


@pytest.mark.slow
def test_a_second_export_gives_the_same_bytes(
    small: Checkpoint, folder: Path, tmp_path: Path
) -> None:
    write_genai(small, tmp_path)
    for name in GENAI_FILES:
        assert sha256_file(tmp_path / name) == sha256_file(folder / name), name


@pytest.mark.parametrize("shared", [False, True])
def test_the_package_matches_pytorch(
    package: ModuleType, small: Checkpoint, folder: Path, text: str, shared: bool
) -> None:
    """Two turns; the first has more tokens than one chunk."""
    turns = [small.tokenizer.encode(part) for part in (text[:600], text[900:950])]
    generator = make_generator(package, package.Model(str(folder)), shared)
    for turn in turns:
        generator.append_tokens(turn)
        for _ in range(64):
            generator.generate_next_token()
    assert generator.get_sequence(0).tolist() == greedy(small, turns, 64)


def test_the_package_runs_a_batch(
    package: ModuleType, small: Checkpoint, folder: Path, text: str
) -> None:
    prompts = [small.tokenizer.encode(text[start : start + 20]) for start in (0, 500)]
    generator = make_generator(package, package.Model(str(folder)), True, batch_size=2)
    generator.append_tokens(np.array(prompts, np.int32))
    for _ in range(30):
        generator.generate_next_token()
    for row, prompt in enumerate(prompts):
        assert generator.get_sequence(row).tolist() == greedy(small, [prompt], 30)


def test_the_package_rewinds_to_the_start(
    package: ModuleType, small: Checkpoint, folder: Path, text: str
) -> None:
    prompts = [small.tokenizer.encode(text[start : start + 20]) for start in (0, 500)]
    generator = make_generator(package, package.Model(str(folder)), True)
    for prompt in prompts:
        generator.rewind_to(0)
        generator.append_tokens(prompt)
        for _ in range(30):
            generator.generate_next_token()
    assert generator.get_sequence(0).tolist() == greedy(small, prompts[1:], 30)


def test_sampling_never_ends_a_text(package: ModuleType, folder: Path) -> None:
    generator = make_generator(
        package, package.Model(str(folder)), True, do_sample=True, temperature=5.0, min_length=50
    )
    generator.append_tokens([1, 2, 3])
    while not generator.is_done():
        generator.generate_next_token()
    assert len(generator.get_sequence(0)) == 1_000


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_the_packages_tokenizer_matches_ours(
    package: ModuleType, small: Checkpoint, graphs: Graphs, text: str, tmp_path: Path, kind: str
) -> None:
    sample = "\n".join(["  Two  spaces,\ta tab", text[:300], "naïve façade — 日本語 Ġ"])
    tokenizer = make_tokenizer(text[:60_000] + sample, kind, 300 if kind == "bpe" else None)
    write_genai(Checkpoint(small.model, tokenizer, {}), tmp_path, graphs)
    theirs = package.Tokenizer(package.Model(str(tmp_path)))
    tokens = tokenizer.encode(sample)
    assert theirs.encode(sample).tolist() == tokens
    assert theirs.decode(tokens) == sample
    stream = theirs.create_stream()
    assert "".join(stream.decode(token) for token in tokens) == sample


def test_the_documented_snippet_runs(package: ModuleType, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my-model").symlink_to(folder)
    blocks = re.findall(r"```py\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert blocks
    for code in blocks:
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        assert len(result.stdout) > 100


def make_generator(package: ModuleType, model: Any, shared: bool, **options: float) -> Any:
    parameters = package.GeneratorParams(model)
    settings = {"do_sample": False, "max_length": 1_000, "past_present_share_buffer": shared}
    parameters.set_search_options(**{**settings, **options})
    return package.Generator(model, parameters)
