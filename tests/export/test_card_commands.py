"""The commands on a bundle's card are those that made it: run literally, they make it again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rillet.export.bundle.commands import commands_of_bundle, generate_command
from rillet.export.bundle.training_command import command_of_run
from rillet.export.cli.export import export_command
from rillet.export.options import ExportOptions
from rillet.runtime import Bundle
from rillet.runtime.files import sha256_file
from rillet.runtime.tokenizer import Tokenizer
from rillet.train import PRESETS, load_checkpoint, make_tokenizer
from support.command_line import here

TINY = {"reservoir_size": 16, "width": 8, "hidden": 8, "wave_blocks": 1, "memory": 96}
TINY |= {"key_width": 8, "attention_window": 4, "wave_window": 4, "wave_features": 8}
TINY |= {"batch": 4, "chunk": 32, "code_width": 8}
SETTINGS = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]


def run(folder: Path, *words: str) -> str:
    result = here(*words, cwd=folder)
    assert result.returncode == 0, f"{shlex.join(words)}\n{result.stderr}"
    return result.stdout


def fill(folder: Path, text: str) -> Path:
    """Texts with awkward names."""
    (folder / "more texts").mkdir(parents=True)
    (folder / "my notes.txt").write_text(text[:9_000], encoding="utf-8")
    for index in range(7):
        part = text[10_000 + 400 * index : 10_400 + 400 * index]
        (folder / "more texts" / f"it's {index}.txt").write_text(part, encoding="utf-8")
    (folder / "held out.txt").write_text(text[20_000:24_000], encoding="utf-8")
    return folder


def next_command(output: str) -> list[str]:
    (command,) = re.findall(r"^Next: rillet (.*)$", output, re.MULTILINE)
    return shlex.split(command)


def shown_commands(card: str) -> list[list[str]]:
    (block,) = re.findall(r"Made with:\n\n```sh\n(.*?)```", card, re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def same_bundle(first: Path, second: Path) -> bool:
    names = sorted(file.name for file in first.iterdir())
    if names != sorted(file.name for file in second.iterdir()):
        return False
    graphs = [name for name in names if name.endswith((".onnx", ".json")) and name != "bundle.json"]
    return all(sha256_file(first / name) == sha256_file(second / name) for name in graphs)


@pytest.mark.slow
def test_run_literally_they_make_the_bundle_again(tmp_path: Path, text: str) -> None:
    made = fill(tmp_path / "where it was made", text)
    given = ["--corpus", "my notes.txt", "--corpus", "more texts", "--validation", "held out.txt"]
    output = run(made, "train", *given, "--steps", "3", *SETTINGS, "--no-plot", "--out", "my run")
    export = next_command(output)
    assert export == ["export", "my run", "--out", "BUNDLE"]
    options = ["--parity-steps", "200", "--static-batch", "2", "--last-logits"]
    output = run(made, *export[:-1], "it's a model", *options)
    generate = next_command(output)
    assert generate == ["generate", "it's a model", "Once"]
    assert run(made, *generate, "--max-new-tokens", "3").startswith("Once")
    lower = ["--precision", "int8", "--text", "held out.txt", "--max-loss-rise", "0.5"]
    output = run(made, "quantize", "it's a model", *lower, "--tokens", "300", "--out", "int8 model")
    assert next_command(output) == ["generate", "int8 model", "Once"]

    again = fill(tmp_path / "where it is made again", text)
    for name, full in (("it's a model", "it's a model"), ("int8 model", "FLOAT32")):
        card = (made / name / "README.md").read_text(encoding="utf-8")
        for command in shown_commands(card):
            overwrite = ["--overwrite", "--no-plot"] if command[1] == "train" else []
            run(again, *command[1:], *overwrite)
        assert same_bundle(made / name, again / name)
        assert same_bundle(made / "it's a model", again / full)
        assert f"\nrillet generate '{name}' ".replace("'it's", "'it'\"'\"'s") in card
        manifest = (made / name / "bundle.json").read_text(encoding="utf-8")
        assert str(tmp_path) not in card + manifest


def test_what_auto_chose_is_repeated_without_measuring_the_machine(
    tmp_path: Path, text: str
) -> None:
    fill(tmp_path / "a folder", text)
    corpus = tmp_path / "a folder" / "my notes.txt"
    words = ["--corpus", str(corpus), "--preset", "auto", "--budget", "1min", "--threads", "1"]
    run(tmp_path, "train", *words, "--steps", "1", "--no-plot", "--out", "run")
    checkpoint = load_checkpoint(tmp_path / "run")
    config = checkpoint.model.config
    command = command_of_run(checkpoint.training, config.to_dict())
    assert command is not None
    words = shlex.split(command)
    assert words[:6] == ["rillet", "train", "--corpus", "my notes.txt", "--preset", words[5]]
    assert words[5] in PRESETS
    assert words[words.index("--threads") + 1] == "1"
    pairs = [words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--set"]
    assert PRESETS[words[5]].replace_text(dict(pairs)).replace(
        vocab_size=config.vocab_size
    ) == config.replace(seed=0)


@pytest.mark.parametrize(
    "given", [{}, 3, {"export": "x", "quantize": {"a": 1}}, {"export": [1, None], "quantize": [[]]}]
)
def test_what_a_file_says_is_not_trusted(given: Any) -> None:
    """Records of any shape give a card."""
    manifest = {"precision": "int8", "model": {}, "arguments": given}
    for training in ({}, {"given": 3}, {"given": {"corpus": 4}, "preset": []}, {"preset": "nano"}):
        commands = commands_of_bundle("name", {**manifest, "training": training})
        assert all(shlex.split(command)[0] == "rillet" for command in commands)


def test_every_option_of_the_export_is_repeated() -> None:
    options = ExportOptions(20, 4, True, False, True, True, 300)
    words = ["RUN", *options.arguments(), "--out", "B"]
    parsed = export_command.make_context("export", words)
    assert {name: parsed.params[name] for name in vars(options)} == vars(options)
    assert ExportOptions().arguments() == []


def test_a_prompt_that_the_model_does_not_know_is_not_suggested() -> None:
    chinese: Tokenizer = make_tokenizer("水火木金土" * 10, "char")
    assert generate_command("a b", chinese) == "rillet generate 'a b'"


def test_a_bundle_without_arguments_still_has_a_card(small_bundle: Path) -> None:
    manifest = dict(Bundle.open(small_bundle).manifest)
    manifest.pop("arguments", None)
    assert commands_of_bundle("small", manifest) == []
