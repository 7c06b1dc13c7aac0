"""The C library built for other compilers and processors: it says there what it says here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rillet.export.bundle.weights import weights_bytes
from rillet.train import Checkpoint
from support.models import VARIANTS
from support.ports import PORTS, ROOT

STEPS = 300
NANO = ROOT / "models" / "shakespeare-nano" / "weights.safetensors"
EVERYDAY = ("small", "memory of contexts", "keyed by the suffix", "the least")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if "32 bits" in name else pytest.mark.slow)
        for name in PORTS
        if name != "gcc"
    ],
)
def selftest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], list[str]]:
    """Runs the self-test of one port; returns the lines that it prints."""
    port = PORTS[request.param]
    program = port.build("selftest.c", tmp_path_factory.mktemp("port") / "selftest.wasm")
    return lambda weights: port.run(program, weights, STEPS).splitlines()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """The same of GCC, which every other compiler is held to."""
    program = PORTS["gcc"].build("selftest.c", tmp_path_factory.mktemp("port") / "selftest")
    return lambda weights: PORTS["gcc"].run(program, weights, STEPS).splitlines()


def compare(lines: list[str], expected: list[str]) -> None:
    kernels, tokens, total = lines
    assert kernels
    assert tokens == expected[1]
    assert float(total) == pytest.approx(float(expected[2]), rel=1e-6)


def test_a_shipped_model_says_the_same(
    selftest: Callable[[Path], list[str]], reference: Callable[[Path], list[str]]
) -> None:
    lines = selftest(NANO)
    assert len(set(lines[1].split())) > 10  # it is text, not one letter again and again
    compare(lines, reference(NANO))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in EVERYDAY else pytest.mark.slow)
        for name in ("small", *VARIANTS)
    ],
)
def test_every_model_says_the_same(
    name: str,
    selftest: Callable[[Path], list[str]],
    reference: Callable[[Path], list[str]],
    small: Checkpoint,
    variant_checkpoint: Callable[[str], Checkpoint],
    tmp_path: Path,
) -> None:
    checkpoint = small if name == "small" else variant_checkpoint(name)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_bytes(checkpoint.model))
    compare(selftest(path), reference(path))
