"""The C library under sanitizers: every variant's weights, and thousands of damaged files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rillet.runtime import load
from rillet.runtime.bundle import WEIGHTS_FILE
from rillet.train import Checkpoint
from rillet.train.data.tokenizers import make_tokenizer
from support.models import VARIANTS
from support.native import native_bundle, needs_native, weights_bundle
from support.ports import STRICT
from support.programs import COMPILER, compile_sanitized
from support.rillet_run import needs_compiler
from support.rillet_run import program as rillet_run_program

ROOT = Path(__file__).parents[2]
CASES = int(os.environ.get("RILLET_FUZZ_CASES", "400"))

FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


def build(program: Path, sources: list[str], define: str = "") -> None:
    """Compile a test program with the sanitizers."""
    compile_sanitized(program, *STRICT, *FLAGS, *filter(None, [define]), *sources)


def output_of(*command: object) -> str:
    """Run a test program, which must succeed, and return what it prints."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def with_library(main: str) -> list[str]:
    """The sources of a test program, and all of the library's."""
    library = sorted(map(str, (ROOT / "native" / "src").glob("*.c")))
    return [str(ROOT / "tests" / "native" / main), *library]


@pytest.fixture(
    scope="module",
    params=["", pytest.param("-DRL_PLAIN_ONLY", marks=pytest.mark.slow)],
    ids=["chosen", "plain"],
)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program, with the library, for the processor's kernels and for the plain ones."""
    program = tmp_path_factory.mktemp("native") / "hostile"
    build(program, with_library("hostile.c"), request.param)
    return program


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if "contexts" in name or name == "small" else pytest.mark.slow)
        for name in ("small", *VARIANTS)
    ],
)
def test_hostile_weights_do_no_harm(
    name: str,
    precision: str,
    hostile: Path,
    small: Checkpoint,
    variant_checkpoint: Callable[[str], Checkpoint],
    tmp_path: Path,
) -> None:
    checkpoint = small if name == "small" else variant_checkpoint(name)
    path = weights_bundle(checkpoint, tmp_path, precision).path / WEIGHTS_FILE
    # Some damage is harmless, most is refused.
    assert 0 < int(output_of(hostile, path, CASES)) < CASES


@pytest.fixture(scope="module")
def misuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program of wrong calls, with the library."""
    program = tmp_path_factory.mktemp("native") / "misuse"
    # As the library is built: a comparison with NaN is whatever the compiler likes.
    flags = ["-ffinite-math-only", "-fno-signed-zeros"]
    build(program, [*with_library("misuse.c"), *flags], "-DRL_PLAIN_ONLY")
    return program


@pytest.mark.parametrize("name", ["small", "memory of contexts"])
def test_wrong_calls_are_refused_and_change_nothing(
    name: str,
    misuse: Path,
    small: Checkpoint,
    variant_checkpoint: Callable[[str], Checkpoint],
    tmp_path: Path,
) -> None:
    checkpoint = small if name == "small" else variant_checkpoint(name)
    weights = weights_bundle(checkpoint, tmp_path, "fp32").path / WEIGHTS_FILE
    assert output_of(misuse, weights) == ""


@pytest.fixture(scope="module")
def hostile_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program for tokenizers, with the parts of the library that it uses."""
    program = tmp_path_factory.mktemp("native") / "hostile_text"
    parts = ("decode", "encode", "json", "sort", "stops", "tokenizer", "tokens", "words")
    sources = [str(ROOT / "native" / "src" / f"{part}.c") for part in parts]
    build(program, [str(ROOT / "tests" / "native" / "hostile_text.c"), *sources])
    return program


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_hostile_tokenizers_do_no_harm(
    kind: str, hostile_text: Path, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    size = 300 if kind == "bpe" else None
    path.write_text(make_tokenizer(text[:20_000], kind, size).source, encoding="utf-8")
    assert 0 < int(output_of(hostile_text, path, 4 * CASES)) < 4 * CASES


@pytest.fixture(scope="module")
def hostile_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program for saved streams; it does not check their checksum."""
    program = tmp_path_factory.mktemp("native") / "hostile_saved"
    parts = ("decode", "json", "saved", "sha256", "state", "tensors")  # the rest as it is built
    sources = [str(ROOT / "native" / "src" / f"{part}.c") for part in parts]
    sources += [str(rillet_run_program().parent / "librillet.a")]
    main = str(ROOT / "tests" / "native" / "hostile_saved.c")
    build(program, [main, *sources], "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION")
    return program


@needs_native
@needs_compiler
@pytest.mark.parametrize("name", ["small", "memory of contexts"])
def test_hostile_saved_streams_do_no_harm(
    name: str,
    hostile_saved: Path,
    small: Checkpoint,
    variant_checkpoint: Callable[[str], Checkpoint],
    tmp_path: Path,
) -> None:
    checkpoint = small if name == "small" else variant_checkpoint(name)
    model = load(native_bundle(checkpoint, tmp_path / "bundle"), "native")
    session = model.session()
    session.feed("A stream that")
    session.generate(seed=1, max_new_tokens=20, stop=["zz", "é"])
    session.save(tmp_path / "saved")
    weights = tmp_path / "bundle" / "weights.safetensors"
    identity = model.identity.values()
    kept = output_of(hostile_saved, weights, tmp_path / "saved", 4 * CASES, *identity)
    assert 0 < int(kept) < 4 * CASES
