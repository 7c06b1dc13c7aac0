"""The examples in C and C++ write what Python writes with the same seed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rillet.runtime import load
from support.native import needs_native
from support.rillet_run import needs_compiler, program

pytestmark = [needs_native, needs_compiler]

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "shakespeare-nano"
STRICT = ["-Wall", "-Wextra", "-Werror"]


def build(compiler: str, standard: str, source: str, folder: Path) -> Path:
    """Compile an example as its first lines say."""
    path = shutil.which(compiler)
    if path is None:
        pytest.skip(f"there is no {compiler}")
    library = program().parent / "librillet.a"
    result = folder / "example"
    command = [path, f"-std={standard}", *STRICT, "-I", ROOT / "native" / "include"]
    command += [ROOT / "examples" / source, library, "-lm", "-o", result]
    subprocess.run(list(map(str, command)), check=True)
    return result


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run an example."""
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_example_in_c_streams_text(tmp_path: Path) -> None:
    example = build(os.environ.get("CC", "cc"), "c11", "c/stream.c", tmp_path)
    result = run(example, BUNDLE, "ROMEO:", 120)
    expected = load(BUNDLE, "native").generate("ROMEO:", seed=1, max_new_tokens=120)
    assert (result.returncode, result.stdout) == (0, expected + "\n")


def test_the_example_in_cpp_forks_a_stream(tmp_path: Path) -> None:
    example = build(os.environ.get("CXX", "c++"), "c++17", "cpp/fork.cpp", tmp_path)
    result = run(example, BUNDLE, "ROMEO:", 50, 3)
    model = load(BUNDLE, "native")
    texts = [model.generate("ROMEO:", seed=seed, max_new_tokens=50) for seed in range(3)]
    assert (result.returncode, result.stdout) == (0, "".join(f"{text}\n---\n" for text in texts))


def test_the_examples_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "tokenizer.json").write_text("{}")
    for compiler, standard, source, more in (
        (os.environ.get("CC", "cc"), "c11", "c/stream.c", []),
        (os.environ.get("CXX", "c++"), "c++17", "cpp/fork.cpp", [1]),
    ):
        example = build(compiler, standard, source, tmp_path)
        assert run(example).returncode == 2
        result = run(example, tmp_path, "a", 1, *more)
        assert (result.returncode, result.stderr) == (1, "the file is shorter than its header\n")
