"""Bundles as models of the command-line tool `llm`, which finds the plugin by its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rillet.runtime

pytest.importorskip("llm", reason="llm is not installed")

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"
GREEDY = ("-o", "temperature", "0", "-o", "max_new_tokens", "40")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `llm` keeps for its user."""
    return tmp_path / "llm"


def llm(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run `llm`; returns what it printed, or its complaint."""
    command = [sys.executable, "-m", "llm", *arguments]
    env = {**os.environ, "LLM_USER_PATH": str(folder)}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL
    )
    assert result.returncode == status, result.stderr
    return result.stderr if status else result.stdout


def test_a_bundle_becomes_a_model(folder: Path) -> None:
    assert llm(folder, "rillet", "add", str(NANO)) == "rillet/shakespeare-nano\n"
    assert llm(folder, "rillet", "add", str(NANO), "--name", "bard") == "rillet/bard\n"
    assert "RilletModel: rillet/bard" in llm(folder, "models")
    expected = rillet.runtime.load(NANO).generate("ROMEO:", temperature=0, max_new_tokens=40)
    assert llm(folder, "-m", "rillet/bard", "ROMEO:", *GREEDY) == expected + "\n"
    assert llm(folder, "-m", "rillet/bard", "ROMEO:", *GREEDY, "--no-stream") == expected + "\n"
    (logged, _) = json.loads(llm(folder, "logs", "--json", "-n", "2"))
    assert logged["response"] == expected
    llm(folder, "rillet", "remove", "bard")
    assert "rillet/bard" not in llm(folder, "models")
    assert NANO.is_dir()


def test_a_conversation_goes_on_where_it_was(folder: Path) -> None:
    llm(folder, "rillet", "add", str(NANO))
    first = llm(folder, "-m", "rillet/shakespeare-nano", "ROMEO:", *GREEDY).removesuffix("\n")
    second = llm(folder, "-c", "\nJULIET:", *GREEDY).removesuffix("\n")
    model = rillet.runtime.load(NANO)
    read = f"ROMEO:{first}\nJULIET:"
    assert second == model.generate(read, temperature=0, max_new_tokens=40)


def test_what_is_wrong_is_said(folder: Path) -> None:
    assert "is not a folder" in llm(folder, "rillet", "add", "no-such-model", status=1)
    assert "there is no model bard" in llm(folder, "rillet", "remove", "bard", status=1)
    llm(folder, "rillet", "add", str(NANO))
    wrong = ("-m", "rillet/shakespeare-nano", "ROMEO:", "-o", "temperature", "-1")
    assert "temperature is -1.0; it must be 0" in llm(folder, *wrong, status=1)


def test_a_damaged_list_is_said_and_kept(folder: Path) -> None:
    llm(folder, "rillet", "add", str(NANO))
    (file,) = folder.rglob("rillet.json")
    for content in ("{", "[]"):
        file.write_text(content)
        assert "is no list of bundles" in llm(folder, "models", status=1)
        assert file.read_text() == content
