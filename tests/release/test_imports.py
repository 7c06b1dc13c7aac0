"""What may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "tqdm"):
            raise AssertionError("imported " + name)

sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_runtime_never_imports_torch_or_onnx(small_bundle: Path) -> None:
    """Importing it, every module of it, and generating with it."""
    modules = [f"rillet.runtime.{file.stem}" for file in (ROOT / "runtime").glob("[!_]*.py")]
    code = "import importlib\n"
    code += "".join(f"importlib.import_module({name!r})\n" for name in modules)
    code += (
        "import rillet.runtime\n"
        "print(rillet.runtime.load(sys.argv[1]).generate('The', max_new_tokens=5, seed=1))\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)\n"
    )
    result = run(code, str(small_bundle))
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) > 3


def test_the_block_itself_works() -> None:
    assert "imported torch" in run("import torch").stderr


def test_generate_needs_no_torch(small_bundle: Path) -> None:
    code = "from rillet.runtime.cli import main; main(sys.argv[1:])"
    for arguments in (
        ["generate", str(small_bundle), "The", "--max-new-tokens", "5"],
        ["verify", str(small_bundle)],
        ["--help"],
    ):
        result = run(code, *arguments)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("runtime", {"runtime"}), ("train", {"train", "runtime"})],
)
def test_imports_never_run_back(package: str, allowed: set[str]) -> None:
    """export -> train -> runtime, read off the source."""
    for file in (ROOT / package).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                name = node.module or ""
                parts = ["rillet", package][: 3 - node.level] if node.level else []
                full = ".".join([*parts, name])
            elif isinstance(node, ast.Import):
                full = node.names[0].name
            else:
                continue
            if full.startswith("rillet."):
                assert full.split(".")[1] in allowed, f"{file.name} imports {full}"
            if package == "train":
                assert full.split(".")[0] not in ("onnx", "onnxruntime", "onnxscript"), file.name


def test_public_names_exist() -> None:
    import importlib

    for package in ("runtime", "train", "export"):
        for file in (ROOT / package).glob("*.py"):
            stem = "" if file.stem == "__init__" else f".{file.stem}"
            module = importlib.import_module(f"rillet.{package}{stem}")
            for name in getattr(module, "__all__", []):
                assert hasattr(module, name), f"{module.__name__}.{name}"
