"""The C library under libFuzzer, with sanitizers, and under valgrind.

``make fuzz CASES=300000`` tries as many files and programs as that; the tests try some thousands.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rillet.export.bundle.weights import weights_bytes
from rillet.train import DualCNN
from support.models import SMALL, VARIANTS
from support.ports import PORTS, ROOT, STRICT, release_flags, sources

pytestmark = pytest.mark.slow

CASES = max(2000, int(os.environ.get("RILLET_FUZZ_CASES", "0")))

TINY: dict[str, object] = {
    "vocab_size": 5,
    "code_width": 3,
    "reservoir_size": 12,
    "width": 6,
    "attention_window": 4,
    "wave_features": 5,
    "wave_window": 3,
    "hidden": 6,
    "key_width": 4,
    "gate_hidden": 3,
}
"""Changes to the small model: the less a case computes, the more cases there are."""

SANITIZE = "-fsanitize=address,undefined,float-cast-overflow"
# One set of kernels, since compiling them with sanitizers takes most of the time.
FLAGS = ["-O1", "-g1", "-DRL_PLAIN_ONLY", "-Wno-pass-failed", SANITIZE, "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a tiny model of each kind, and nothing for people in them."""
    folder = tmp_path_factory.mktemp("seeds")
    for index, (name, changes) in enumerate({"small": {}, **VARIANTS}.items()):
        torch.manual_seed(index)
        model = DualCNN(SMALL.replace(**{**TINY, **changes}))
        tensors = safetensors.torch.load(weights_bytes(model))
        (folder / name).write_bytes(safetensors.torch.save(tensors))
    return folder


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a target of ``tests/native``; the library is compiled once for all."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed: apt-get install clang libclang-rt-dev")
    folder = tmp_path_factory.mktemp("fuzz")
    compiler = ["clang", *STRICT, *release_flags(), *FLAGS]
    compiled = subprocess.run(
        [*compiler, "-fsanitize=fuzzer-no-link", "-c", *sources()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    objects = sorted(map(str, folder.glob("*.o")))

    def build(name: str) -> Path:
        command = [*compiler, "-fsanitize=fuzzer", str(ROOT / "tests" / "native" / f"{name}.c")]
        command += [*objects, "-lm", "-o", str(folder / name)]
        linked = subprocess.run(command, capture_output=True, text=True, check=False)
        if "cannot find" in linked.stderr or "no such file" in linked.stderr:
            pytest.skip("clang has no libFuzzer: apt-get install libclang-rt-dev")
        assert linked.returncode == 0, linked.stderr
        return folder / name

    return build


def fuzz(program: Path, corpus: Path, *options: str, **environment: str) -> None:
    """Run a fuzzer, which starts from the files of a folder and adds to them."""
    result = subprocess.run(
        [str(program), f"-runs={CASES}", "-seed=1", *options, str(corpus)],
        cwd=corpus.parent,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert f"Done {CASES} runs" in result.stderr


def test_no_file_of_weights_does_harm(
    fuzzer: Callable[[str], Path], seeds: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(seeds, corpus)
    fuzz(fuzzer("fuzz_weights"), corpus, "-max_len=16384", "-len_control=0")


@pytest.mark.parametrize("name", ["small", "keyed by the suffix", "memory of contexts"])
def test_no_state_does_harm(
    name: str, fuzzer: Callable[[str], Path], seeds: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    program = fuzzer("fuzz_state")
    fuzz(program, tmp_path / "corpus", "-max_len=512", RILLET_WEIGHTS=str(seeds / name))


def test_valgrind_finds_nothing(seeds: Path, tmp_path: Path) -> None:
    """Above all no use of what was never set, which the sanitizers do not see."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed: apt-get install valgrind libc6-dbg")
    program = PORTS["gcc, plain"].build("selftest.c", tmp_path / "selftest")
    options = ("--quiet", "--error-exitcode=9", "--leak-check=full")
    for weights in sorted(seeds.iterdir()):
        command = ["valgrind", *options, str(program), str(weights), "40"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{weights.name}: {result.stderr}"
