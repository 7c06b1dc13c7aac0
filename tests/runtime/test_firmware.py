"""``rillet firmware``: the folder builds, and says on every target what Python says here."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rillet.runtime import load
from rillet.runtime.firmware.targets import TARGETS
from rillet.runtime.model import Model
from rillet.runtime.tokenizer import Tokenizer
from rillet.train import Checkpoint, make_tokenizer
from support.command_line import here
from support.firmware import build, firmware_folder, run_program, self_test
from support.models import SMALL, train_small
from support.native import native_bundle, needs_native
from support.rillet_run import needs_compiler

pytestmark = [needs_native, needs_compiler]

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models" / "shakespeare-nano-int8"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NANO, provider="native")


@pytest.fixture(scope="module")
def prompt() -> str:
    """What the self-test reads first: see weights.h."""
    golden = load(NANO, provider="native").bundle.manifest["golden"]
    tokenizer = Tokenizer.load(NANO / "tokenizer.json")
    return tokenizer.decode(golden["prompt"][:32])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with its whole memory, for any target."""
    return firmware_folder(NANO, tmp_path_factory.mktemp("firmware") / "nano", "generic")


def expect_what_python_says(output: bytes, model: Model, prompt: str) -> None:
    found = self_test(output)

    def greedy(count: int) -> list[int]:
        tokens = session.tokens(temperature=0, max_new_tokens=count)
        return [generated.token for generated in tokens]

    session = model.session()
    session.feed(prompt)
    assert found.greedy == greedy(100)
    session = model.session()
    session.feed(prompt)
    assert found.drawn == session.generate(seed=7, max_new_tokens=100)
    session = model.session()
    session.feed(prompt)
    session.generate(seed=3, max_new_tokens=100)
    assert found.resumed == greedy(50)


def test_the_program_writes_the_text_that_python_writes(folder: Path) -> None:
    mine = run_program(build(folder, "generic", "firmware"), "generic")
    theirs = here("generate", NANO, "\n", "--seed", 1, "--provider", "native")
    assert "\n" + mine.decode() == theirs.stdout  # which repeats the prompt


def test_a_computer_says_what_python_says(folder: Path, model: Model, prompt: str) -> None:
    output = run_program(build(folder, "generic", "selftest"), "generic")
    expect_what_python_says(output, model, prompt)


@pytest.mark.parametrize(
    "target",
    [
        "cortex-m7",
        pytest.param("cortex-m33", marks=pytest.mark.slow),
        pytest.param("cortex-m55", marks=pytest.mark.slow),
        pytest.param("riscv32", marks=pytest.mark.slow),
    ],
)
def test_a_microcontroller_says_what_python_says(
    target: str, folder: Path, model: Model, prompt: str
) -> None:
    """In an emulator: greedy tokens, drawn text, and a stream that goes on after a reset."""
    output = run_program(build(folder, target, "selftest"), target)
    expect_what_python_says(output, model, prompt)
    found = self_test(output)
    for least, typical, most in found.instructions.values():
        assert 0 < least <= typical <= most
        assert most <= 1.1 * typical
    assert 0 < found.stack < 4096  # what the linker script gives it


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m7", "cortex-m33", "cortex-m55"])
def test_the_smallest_kind_needs_what_the_documentation_says(target: str, tmp_path: Path) -> None:
    folder = firmware_folder(NANO, tmp_path / "nano", target, "--memory", 10_800)
    program = build(folder, target, "firmware")
    lines = subprocess.run(
        [str(shutil.which("arm-none-eabi-nm")), str(program)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    places = {name: int(place, 16) for place, _, name in (line.split() for line in lines)}
    assert places["stack_end"] - places["data_begin"] <= 96 << 10
    constants = places["data_end"] - places["data_begin"]
    flash = (places["data_image"] & 0xFFFFFF) + constants
    assert flash <= 312_000
    assert not {"malloc", "_malloc_r", "printf", "_printf_float", "_dtoa_r", "fopen"} & set(places)


def _cutter(folder: Path) -> Path:
    """Build the program that cuts the power, in place of the board and of main.c."""
    source = (ROOT / "tests" / "native" / "firmware_cut.c").read_text()
    (folder / "main.c").write_text(source)
    return build(folder, "generic", "firmware", "BOARD=")


def test_a_power_cut_leaves_the_older_stream(tmp_path: Path) -> None:
    program = _cutter(firmware_folder(NANO, tmp_path / "nano", "generic", "--memory", 600))
    result = subprocess.run(
        [program, tmp_path / "state"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    # The header's page decides: half of it is enough, and so is all of it.
    assert re.fullmatch(r"\d{3} cuts, 3 after which the new stream is there\n", result.stdout)


def test_python_reads_what_a_device_saves(model: Model, prompt: str, tmp_path: Path) -> None:
    program = _cutter(firmware_folder(NANO, tmp_path / "nano", "generic"))
    subprocess.run([program, tmp_path / "state", "once"], check=True)
    restored = model.restore(tmp_path / "state")
    session = model.session()
    session.feed(prompt)
    session.generate(seed=5, max_new_tokens=40)
    assert restored.position == session.position
    found = restored.state
    for name, value in session.state.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert restored.logits is not None
    np.testing.assert_array_equal(restored.logits, session.logits)
    assert restored.generate(seed=1, max_new_tokens=50) == session.generate(
        seed=1, max_new_tokens=50
    )


@pytest.mark.parametrize("kind", ["kernel memory", "float32 contexts", "byte pairs"])
def test_other_models_say_what_python_says(
    kind: str,
    small: Checkpoint,
    variant_checkpoint: Callable[[str], Checkpoint],
    text: str,
    tmp_path: Path,
) -> None:
    pairs = make_tokenizer(text[:30_000], "bpe", 330)
    checkpoint = {
        "kernel memory": lambda: small,
        "float32 contexts": lambda: variant_checkpoint("memory of contexts"),
        "byte pairs": lambda: train_small(SMALL, text[:30_000], 12, pairs),
    }[kind]()
    bundle = native_bundle(checkpoint, tmp_path / "bundle")
    folder = firmware_folder(bundle, tmp_path / "firmware", "generic")
    mine = run_program(build(folder, "generic", "firmware"), "generic")
    theirs = here("generate", bundle, "\n", "--seed", 1, "--provider", "native")
    assert "\n" + mine.decode() == theirs.stdout  # which repeats the prompt


def test_cmake_builds_the_folder(folder: Path, tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed: apt-get install cmake")
    out = tmp_path / "cmake"
    toolchain = folder / "toolchain.cmake"
    for step in (["-S", folder, "-B", out, "--toolchain", toolchain], ["--build", out]):
        done = subprocess.run([cmake, *step], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    mine = run_program(out / "firmware.elf", "generic")
    assert mine == run_program(build(folder, "generic", "firmware"), "generic")


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "main.c").write_text("mine")
    result = here("firmware", NANO, "--out", out)
    assert result.returncode == 2
    assert "is not an empty folder" in result.stderr
    assert (out / "main.c").read_text() == "mine"


@pytest.mark.parametrize("slots", [5, 100_000])
def test_a_memory_has_a_slot_for_each_context_and_no_more_than_the_model_s(
    slots: int, tmp_path: Path
) -> None:
    result = here("firmware", NANO, "--out", tmp_path / "out", "--memory", slots)
    assert result.returncode == 2
    assert f"--memory is {slots}, and {NANO} can have 6 to 65,532" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_taught_memory_is_refused(
    variant_checkpoint: Callable[[str], Checkpoint], text: str, tmp_path: Path
) -> None:
    lesson = tmp_path / "lesson.txt"
    lesson.write_text(text[:5_000], encoding="utf-8")
    bundle = native_bundle(variant_checkpoint("memory of contexts"), tmp_path / "taught", lesson)
    result = here("firmware", bundle, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "export the model again without --teach" in result.stderr


@pytest.mark.parametrize("target", list(TARGETS))
def test_every_target_has_a_folder(target: str, tmp_path: Path) -> None:
    folder = firmware_folder(NANO, tmp_path / "out", target, "--memory", 60)
    assert TARGETS[target].title in (folder / "README.md").read_text()
    for name in re.findall(r"`([\w./-]+\.(?:c|h|ini|txt|cpp|ino|cmake))`", _read(folder)):
        assert (folder / name).exists(), name


def _read(folder: Path) -> str:
    return (folder / "README.md").read_text()
