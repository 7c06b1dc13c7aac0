"""The command line from text to streamed text, and its answers to bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from support.command_line import RILLET, here, rillet

SIZES = "width=16 hidden=16 wave_features=16 reservoir_size=32 memory=96 batch=4"
TINY = ["--steps", "3", *(part for size in SIZES.split() for part in ("--set", size))]


def fails(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Check for one sentence on stderr, the right exit code, and no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr


def test_text_in_streamed_text_out(tmp_path: Path) -> None:
    """Each command in a process of its own, as users run them."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    options = (*TINY, "--set", "report_every=1")
    result = rillet("train", "--corpus", corpus, "--out", run, *options)
    assert result.returncode == 0, result.stderr
    assert "Held-out loss:" in result.stdout
    assert "without the memory" in result.stdout
    summary = json.loads((run / "summary.json").read_text())
    assert summary["held_out"]["tokens"] == 899
    assert len((run / "log.csv").read_text().splitlines()) == 4

    result = rillet("export", run, "--out", bundle, "--parity-steps", 300)
    assert result.returncode == 0, result.stderr
    assert "equal" in result.stdout
    card = (bundle / "README.md").read_text()
    assert f"{summary['held_out']['loss']:.4f}" in card

    result = rillet("verify", bundle)
    assert result.returncode == 0, result.stderr
    assert "CPUExecutionProvider." in result.stdout.splitlines()[-1]
    result = here("verify", bundle, "--checkpoint", run, "--steps", 300)
    assert result.returncode == 0, result.stderr

    arguments = ("generate", bundle, "The quick ", "--max-new-tokens", 30, "--seed", 4)
    first, second = rillet(*arguments), rillet(*arguments, "--threads", 2)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("The quick ")
    assert len(first.stdout) == len("The quick ") + 30 + 1
    assert first.stdout == second.stdout

    result = here("generate", bundle, "The 水 é fox", "--max-new-tokens", 5)
    assert result.returncode == 0
    assert "never seen" in result.stderr
    assert "'水', 'é'" in result.stderr

    fails(here("train", "--corpus", corpus, "--out", run, *TINY), 2, "already holds a checkpoint")
    (run / "checkpoint.safetensors").write_bytes(b"damaged")
    fails(here("export", run, "--out", bundle), 1, "damaged")
    assert here("verify", bundle).returncode == 0


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_trained(tmp_path: Path) -> None:
    """Ctrl-C during training leaves a checkpoint."""
    from rillet.train import load_checkpoint

    command = [*RILLET, "train", "--corpus", "builtin:pydoc", "--out", str(tmp_path), *TINY]
    command += ["--steps", "100000", "--set", "validate_every=3"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("step 6:"):
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "The run is saved in" in errors
    assert load_checkpoint(tmp_path).training["steps"] >= 3
    result = rillet("train", "--corpus", "builtin:pydoc", "--out", tmp_path, *TINY)
    fails(result, 2, "already holds a checkpoint", "--resume")
    # Another number of steps would have meant another learning rate: it is another run.
    result = rillet("train", "--corpus", "builtin:pydoc", "--out", tmp_path, *TINY, "--resume")
    fails(result, 1, "belongs to another run: steps was 100000 and is now 3; validate_every was 3")


@pytest.mark.slow
def test_a_run_is_resumed_from_the_command_line(tmp_path: Path) -> None:
    """Killed and resumed, a run ends with the model of an undisturbed one."""
    from rillet.train.checkpoint import CHECKPOINT_FILE

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    options = [*TINY, "--steps", "60", "--set", "validate_every=2", "--set", "precision=fp32"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert rillet("train", "--corpus", corpus, "--out", whole, *options).returncode == 0
    command = [*RILLET, "train", "--corpus", str(corpus), "--out", str(parts), *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 10:"):
                break
        process.kill()
    result = rillet("train", "--corpus", corpus, "--out", parts, *options, "--resume")
    assert result.returncode == 0, result.stderr
    first, second = (
        safetensors.numpy.load_file(folder / CHECKPOINT_FILE) for folder in (whole, parts)
    )
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    rows = [line.split(",")[0] for line in (parts / "log.csv").read_text().splitlines()[1:]]
    assert rows == sorted(rows, key=int)
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ("none.txt does not exist",)),
        (b"", ("is empty", "at least 2,000 characters")),
        (b"too short", ("has only 9 characters",)),
        (b"\xe9t\xe9 " * 1000, ("is not UTF-8", "0xe9", "iconv")),
    ],
)
def test_bad_corpora(tmp_path: Path, content: bytes | None, parts: tuple[str, ...]) -> None:
    corpus = tmp_path / "none.txt"
    if content is not None:
        corpus.write_bytes(content)
    fails(here("train", "--corpus", corpus, "--out", tmp_path / "run"), 1, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "huge"], ("--preset", "'huge'")),
        (["--set", "width"], ("KEY=VALUE",)),
        (["--set", "widht=3"], ("no such setting", "width")),
        (["--set", "width=abc"], ("width is 'abc'", "whole number")),
        (["--set", "dropout=nan"], ("dropout is 'nan'",)),
        (["--set", "width=65"], ("the heads must divide the width",)),
        (["--set", "spectral_radius=1.5"], ("spectral_radius is 1.5",)),
        (["--steps", "0"], ("0 is not in the range",)),
        (["--tokenizer", "word"], ("'word' is not",)),
        (["--nonsense"], ("No such option",)),
    ],
)
def test_bad_training_options(tmp_path: Path, arguments: list[str], parts: tuple[str, ...]) -> None:
    result = here("train", "--corpus", "builtin:pydoc", "--out", tmp_path / "run", *arguments)
    fails(result, 2, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--temperature", "-1"], ("--temperature", "-1.0 is not in the range")),
        (["--temperature", "warm"], ("'warm' is not a valid float",)),
        (["--temperature", "nan"], ("temperature is nan",)),
        (["--top-p", "0"], ("--top-p",)),
        (["--top-k", "-2"], ("--top-k",)),
        (["--seed", "x"], ("'x' is not a valid integer",)),
        (["--max-new-tokens", "-5"], ("--max-new-tokens",)),
        (["--learn", "some"], ("'some' is not",)),
        (["--provider", "tpu"], ("'tpu' is not",)),
    ],
)
def test_bad_generation_options(
    small_bundle: Path, arguments: list[str], parts: tuple[str, ...]
) -> None:
    fails(here("generate", small_bundle, "The", *arguments), 2, *parts)


def test_folders_that_are_no_bundle(small_bundle: Path, small_run: Path, tmp_path: Path) -> None:
    for command in ("generate", "verify"):
        fails(here(command, tmp_path / "none"), 1, "is not a folder")
        fails(here(command, tmp_path), 1, "is not a bundle")
    fails(here("export", tmp_path, "--out", tmp_path / "out"), 1, "holds no checkpoint")
    copy = tmp_path / "copy"
    shutil.copytree(small_bundle, copy)
    (copy / "mine.txt").write_text("mine")
    fails(here("export", small_run, "--out", copy), 2, "contains other files (mine.txt)")
    (copy / "decode.onnx").write_bytes(b"tampered")
    fails(here("generate", copy, "The"), 1, "decode.onnx is damaged or was changed")
    fails(here("verify", copy), 1, "decode.onnx is damaged or was changed")


def test_verify_names_another_checkpoint(small_bundle: Path, nano: object, tmp_path: Path) -> None:
    from rillet.train import Checkpoint, save_checkpoint

    assert isinstance(nano, Checkpoint)
    save_checkpoint(tmp_path, nano)
    fails(here("verify", small_bundle, "--checkpoint", tmp_path), 1, "other weights")


def test_a_prompt_that_is_not_utf8(small_bundle: Path) -> None:
    result = subprocess.run(
        [*RILLET, "generate", str(small_bundle), b"The \xff name", "--max-new-tokens", "3"],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    assert b"the byte 0xff, which is not UTF-8" in result.stderr
    assert b"Traceback" not in result.stderr


def test_a_terminal_without_the_characters(small_bundle: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run(
        [*RILLET, "generate", str(small_bundle), "The é", "--max-new-tokens", "300"],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_reader_that_goes_away(small_bundle: Path) -> None:
    command = [*RILLET, "generate", str(small_bundle), "The", "--max-new-tokens", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = here("--debug", "generate", tmp_path / "none")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "Error: " in result.stderr


def test_no_command_prints_help() -> None:
    for arguments in ([], ["--help"]):
        shown = here(*arguments)
        for command in ("train", "export", "verify", "generate"):
            assert command in shown.stdout + shown.stderr
    fails(here("nonsense"), 2, "No such command 'nonsense'")
