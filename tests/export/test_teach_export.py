"""`rillet export --teach` and `--memory-size`: what they write, and what they refuse."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rillet.export import ExportOptions, export, quantize
from rillet.export.cli.export import export_command
from rillet.runtime import Bundle, UsageError, load
from rillet.runtime.files import sha256_bytes, sha256_file
from rillet.runtime.start_state import START_STATE_FILE
from rillet.train import load_checkpoint
from support.command_line import here

FAST = ("--parity-steps", "100", "--no-generate")


@pytest.fixture(scope="module")
def run(variant_run: Callable[[str], Path]) -> Path:
    return variant_run("memory of contexts")


@pytest.fixture(scope="module")
def piped(run: Path, text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that standard input has taught."""
    out = tmp_path_factory.mktemp("piped") / "my model"
    words = ["--teach", "-", "--teach-size", "3kB", *FAST]
    result = here("export", run, "--out", out, *words, stdin=text[:5_000])
    assert result.returncode == 0, result.stderr
    taught = "Taught 5,000 tokens of standard input: not measured: the run kept no sample"
    assert taught in result.stdout
    return out


def test_the_entry_names_the_text(piped: Path, text: str) -> None:
    bundle = Bundle.open(piped)
    assert bundle.manifest["format_version"] == "1.1"
    assert bundle.manifest["taught"] == {
        "file": START_STATE_FILE,
        "text": "standard input",
        "sha256": sha256_bytes(text[:5_000].encode()),
        "part": "all of it",
        "tokens": 5_000,
        "slots": 750,
        "not_measured": "the run kept no sample of its text",
    }
    assert bundle.manifest["files"][START_STATE_FILE] == sha256_file(piped / START_STATE_FILE)
    assert bundle.manifest["model"]["memory"] == 750
    read = [(row["graph"], row["text"]) for row in bundle.manifest["parity"]]
    for graph in ("decode", "prefill"):
        assert (graph, "same, taught") in read


def test_the_card_says_so_and_repeats_it(piped: Path) -> None:
    card = (piped / "README.md").read_text(encoding="utf-8")
    assert "Streams begin with what the memory learnt from standard input: 5,000 tokens" in card
    assert "not measured: the run kept no sample of its text." in card
    (command,) = [line for line in card.splitlines() if line.startswith("rillet export")]
    assert shlex.split(command)[3:9] == [
        *("--no-generate", "--parity-steps", "100"),
        *("--teach", "-", "--memory-size"),
    ]
    assert "'my model'" in command


def test_the_same_text_gives_the_same_file(piped: Path, run: Path, text: str) -> None:
    again = load_checkpoint(run)
    lesson = piped.parent / "lesson.txt"
    lesson.write_text(text[:5_000], encoding="utf-8")
    options = {"teach": lesson, "memory_size": 3_000, "parity_steps": 100, "generate": False}
    bundle = export(again, piped.parent / "again", **options)
    for name in (START_STATE_FILE, "decode.onnx", "prefill.onnx"):
        assert sha256_file(bundle.path / name) == sha256_file(piped / name), name
    assert bundle.manifest["arguments"]["export"][-2:] == ["--memory-size", "3000B"]
    assert bundle.manifest["taught"]["text"] == "lesson.txt"


def test_a_lower_precision_keeps_it(taught_bundle: Path, tmp_path: Path) -> None:
    lowered = quantize(taught_bundle, tmp_path / "int8", "int8", tokens=300, max_loss_rise=0.5)
    source = Bundle.open(taught_bundle)
    assert lowered.manifest["taught"] == source.manifest["taught"]
    first, second = load_file(taught_bundle / START_STATE_FILE), lowered.start_state()
    assert second is not None
    np.testing.assert_array_equal(first["memory_slots"], second["memory_slots"])
    assert START_STATE_FILE not in lowered.manifest["quantization"]["left_out"]
    with load(lowered.path) as model:
        assert model.session().taught
    card = (lowered.path / "README.md").read_text(encoding="utf-8")
    assert "read as one stream, in float32:" in card


@pytest.mark.slow
def test_the_size_can_be_chosen_alone(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "larger"
    result = here("export", run, "--out", out, "--memory-size", "1.2 kB", *FAST)
    assert result.returncode == 0, result.stderr
    bundle = Bundle.open(out)
    assert (bundle.manifest["model"]["memory"], bundle.manifest["trained_memory"]) == (300, 90)
    assert bundle.start_state() is None
    assert "taught" not in bundle.manifest
    with load(out) as model, model.session() as session:
        assert not session.taught
        assert session.state["memory_slots"].shape == (1, 300)
    checked = here("verify", out, "--checkpoint", run, "--steps", "50")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teach-size", "1M"], "the size is '1M'; give a number of bytes, such as"),
        (["--memory-size", "100 bytes"], "is 100 bytes; for 3 contexts it must be 192 to"),
        (["--memory-size", "2GB"], "is 2,000,000,000 bytes; for 3 contexts it must be 192 to"),
        (["--teach", "no such file"], "no such file does not exist"),
        (["--teach", "builtin:pydoc", "--genai"], "leave out --genai or --teach"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = here("export", run, "--out", tmp_path / "out", *words)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--teach", "builtin:pydoc"], ["--memory-size", "1MiB"]])
def test_other_memories_are_refused_by_name(
    small_run: Path, variant_run: Callable[[str], Path], tmp_path: Path, words: list[str]
) -> None:
    for folder, message in (
        (small_run, "memory is keyed by the reservoir (memory_key=reservoir)"),
        (variant_run("keyed by the suffix"), "memory is keyed by the suffix (memory_key=suffix)"),
        (variant_run("no memory"), "the model has no memory"),
    ):
        result = here("export", folder, "--out", tmp_path / "out", *words)
        assert result.returncode == 2
        assert message in result.stderr
        assert "without --set memory" in result.stderr
        assert not list(tmp_path.iterdir())


def test_every_option_is_repeated() -> None:
    options = ExportOptions(teach=("a b.txt", "more"), memory_size="1 MiB")
    parsed = export_command.make_context("export", ["RUN", *options.arguments(), "--out", "B"])
    assert {name: parsed.params[name] for name in vars(options)} == vars(options)
    assert ExportOptions(teach="/home/me/notes.txt").arguments() == ["--teach", "notes.txt"]


@pytest.mark.parametrize("size", [0, -3, 1.5, True, "0MB"])
def test_sizes_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(UsageError, match="size is"):
        ExportOptions(memory_size=size)


def test_the_card_repeats_the_training_with_the_size_of_then(piped: Path) -> None:
    manifest = json.loads((piped / "bundle.json").read_text())
    assert manifest["trained_memory"] == 90
