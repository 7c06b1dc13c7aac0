"""Pipes in place of files, and standard streams that are closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rillet.runtime import Model

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX pipes and shells")

RILLET = f"{sys.executable} -m rillet.runtime"


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; ``$1`` and so on are the arguments."""
    command = ["bash", "-c", line, "bash", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_prompt_from_process_substitution(small_bundle: Path, small_model: Model) -> None:
    expected = small_model.generate("In a statement ", max_new_tokens=9, seed=4)
    line = f"{RILLET} generate $1 --file <(printf 'In a statement ') --max-new-tokens 9 --seed 4"
    result = shell(line, small_bundle)
    assert (result.returncode, result.stdout) == (0, f"In a statement {expected}\n"), result.stderr


@pytest.mark.parametrize("source", ["/dev/stdin", "-", "<(cat)"])
def test_a_score_from_standard_input(small_bundle: Path, small_model: Model, source: str) -> None:
    text = "The names in a statement are names."
    line = f"printf '%s' \"$2\" | {RILLET} score $1 {source} --json"
    result = shell(line, small_bundle, text)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["nats"] == pytest.approx(small_model.score(text).nats)


def test_a_folder_is_no_text(small_bundle: Path, tmp_path: Path) -> None:
    result = shell(f"{RILLET} score $1 $2", small_bundle, tmp_path)
    assert result.returncode == 1
    assert "is a folder; give a text file" in result.stderr
    assert "Traceback" not in result.stderr


def test_closed_standard_input_gives_a_sentence(small_bundle: Path) -> None:
    result = shell(f"{RILLET} generate $1 - <&-", small_bundle)
    assert result.returncode == 1
    assert "standard input is closed; give a file" in result.stderr
    assert "rillet itself failed" not in result.stderr


def test_closed_standard_output_gives_a_sentence(small_bundle: Path) -> None:
    result = shell(f"{RILLET} generate $1 The >&-", small_bundle)
    assert result.returncode == 1
    assert "standard output is closed" in result.stderr
    assert "rillet itself failed" not in result.stderr
