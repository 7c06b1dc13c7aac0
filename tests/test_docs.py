"""What README and docs show, run as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = [
    (file.name, index, code)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("name", "index", "code"), BLOCKS, ids=lambda value: str(value)[:20])
def test_python_blocks_run(
    name: str, index: int, code: str, small_bundle: Path, small_run: Path, text: str, tmp_path: Path
) -> None:
    (tmp_path / "my-model").symlink_to(small_bundle)
    (tmp_path / "my-run").symlink_to(small_run)
    (tmp_path / "my-notes.txt").write_text(text[:2_400])
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_there_are_blocks() -> None:
    assert {name for name, _, _ in BLOCKS} >= {"README.md", "bundle.md", "training.md"}


def test_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


COMMANDS = sorted(
    {
        line.removeprefix("rillet ")
        for file in (ROOT / "README.md", ROOT / "models" / "README.md")
        for block in re.findall(r"```sh\n(.*?)```", file.read_text(), re.DOTALL)
        for line in block.splitlines()
        if re.match(r"rillet (generate|verify) models/", line)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_on_shipped_models_run(command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "rillet.runtime.cli", *shlex.split(command)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 2


STEPS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_own_text_becomes_a_generator_as_the_readme_says(text: str, tmp_path: Path) -> None:
    """Train, export, verify, generate: the README's lines in turn, with fewer steps of training."""
    commands = [
        line.removeprefix("rillet ")
        for block in STEPS
        for line in block.splitlines()
        if line.startswith("rillet ") and "models/" not in line
    ]
    assert [command.split()[0] for command in commands] == [
        "train", "export", "verify", "generate", "verify", "generate",
    ]  # fmt: skip
    (tmp_path / "my-notes.txt").write_text(text[:6_000], encoding="utf-8")
    for command in commands:
        words = shlex.split(command)
        if words[0] == "train":
            words += ["--steps", "4"]
        result = subprocess.run(
            [Path(sys.executable).parent / "rillet", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"rillet {command}\n{result.stderr}"
        assert result.stdout
