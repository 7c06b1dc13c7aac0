"""The C library under sanitizers: every variant's weights, and thousands of damaged files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rillet.runtime.bundle import WEIGHTS_FILE
from rillet.train import Checkpoint
from support.models import VARIANTS
from support.native import weights_bundle

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CC", "gcc"))
CASES = int(os.environ.get("RILLET_FUZZ_CASES", "400"))

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
FLAGS = ["-O1", "-g", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


@pytest.fixture(scope="module", params=["", "-DRL_PLAIN_ONLY"], ids=["chosen", "plain"])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program, with the library, for the processor's kernels and for the plain ones."""
    program = tmp_path_factory.mktemp("native") / "hostile"
    sources = sorted(map(str, (ROOT / "native" / "src").glob("*.c")))
    command = [str(COMPILER), *STRICT, *FLAGS, *SANITIZE, *filter(None, [request.param])]
    command += [str(ROOT / "tests" / "native" / "hostile.c"), *sources, "-lm", "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr and "asan" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
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
    result = subprocess.run(
        [hostile, path, str(CASES)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert 0 < int(result.stdout) < CASES  # some damage is harmless, most is refused
