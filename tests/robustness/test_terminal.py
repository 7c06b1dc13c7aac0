"""Text from files, paths and models never commands a terminal."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from rillet.runtime import Model
from support.command_line import here

ROOT = Path(__file__).parents[2]
WINDOW = "\x1b]0;renamed\x07"
"""What renames the window of a terminal."""

COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def commands(text: str) -> list[str]:
    """Control characters in a terminal's output, but for the progress bar's own."""
    return [found for found in COMMANDS.findall(text) if found != "\r"]


@pytest.mark.parametrize("control", ["\x1b[31m", "\x9b31m", "\x07", "\x7f", "\b"])
def test_a_models_text_is_shown_on_a_terminal_and_passed_on_to_a_pipe(
    byte_model: Model, control: str
) -> None:
    words = ("generate", byte_model.bundle.path, f"a{control}\tb", "--choice", f"c{control}\n")
    shown, passed = here(*words, terminal=True), here(*words)
    assert commands(shown.stdout) == commands(shown.stderr) == []
    escaped = "".join(f"\\x{ord(c):02x}" if COMMANDS.match(c) else c for c in control)
    assert shown.stdout == f"a{escaped}\tbc{escaped}\n\n"
    assert passed.stdout == f"a{control}\tbc{control}\n\n"


def test_no_command_passes_on_what_a_path_holds(small_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / f"model{WINDOW}"
    shutil.copytree(small_bundle, bundle)
    text = tmp_path / f"text{WINDOW}.txt"
    text.write_text("A text that is scored.\n", encoding="utf-8")
    missing = tmp_path / f"none{WINDOW}"
    for words in (
        ("inspect", bundle),
        ("verify", bundle),
        ("doctor", bundle),
        ("score", bundle, text),
        ("score", bundle, missing),
        ("generate", missing),
        ("train", "--corpus", missing, "--out", tmp_path / "run"),
        ("train", "--corpus", text, "--out", tmp_path / "run"),
        ("export", missing, "--out", tmp_path / "out"),
        ("quantize", missing, "--precision", "int8", "--out", tmp_path / "out"),
        ("engine", "list", bundle),
    ):
        result = here(*words, terminal=True)
        assert commands(result.stdout + result.stderr) == [], words


def test_every_command_prints_through_one_function() -> None:
    """Only it knows what a terminal would obey."""
    for file in (
        path
        for package in ("runtime", "train", "export")
        for path in (ROOT / package).rglob("*.py")
    ):
        if file.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("click.echo", "print", "click.secho"), f"{file}:{node}"
