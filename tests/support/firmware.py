"""Folders that ``rillet firmware`` wrote: built with a target's compiler, run in its emulator."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from rillet.runtime.firmware.targets import TARGETS
from support.command_line import here

__all__ = ["SelfTest", "build", "firmware_folder", "run_program", "self_test"]


def firmware_folder(bundle: Path, out: Path, target: str, *options: object) -> Path:
    """Have the command write a folder."""
    result = here("firmware", bundle, "--out", out, "--target", target, *options)
    assert result.returncode == 0, result.stderr
    return out


def build(folder: Path, target: str, program: str, *flags: str) -> Path:
    """Build one program, without a warning; skips where the compiler is missing."""
    compiler = (folder / "targets" / f"{target}.txt").read_text().splitlines()[0]
    for tool in (compiler, "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {TARGETS[target].packages}")
    out = f"build/{target}/{program}.elf"
    command = ["make", "-s", f"TARGET={target}", out, *flags]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert not built.stderr, built.stderr
    return folder / out


def run_program(program: Path, target: str) -> bytes:
    """Run it in the emulator, or here; returns what it writes to its serial port."""
    emulator = TARGETS[target].emulator
    if emulator and shutil.which(emulator[0]) is None:
        pytest.skip(f"{emulator[0]} is not installed: apt-get install {TARGETS[target].packages}")
    result = subprocess.run(
        [*emulator, str(program)], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert result.returncode == 0, (result.returncode, result.stdout[-500:], result.stderr)
    return result.stdout


@dataclass(frozen=True)
class SelfTest:
    """What ``selftest.c`` printed."""

    greedy: list[int]
    drawn: str
    resumed: list[int]
    instructions: dict[str, tuple[int, int, int]]
    """Least, typical and most of a token, by how it is chosen."""
    stack: int


def self_test(output: bytes) -> SelfTest:
    """Parse it."""
    text = output.decode()

    def tokens(name: str) -> list[int]:
        found = re.search(rf"^{name}((?: \d+)+)$", text, re.MULTILINE)
        assert found is not None, text
        return [int(token) for token in found[1].split()]

    def figures(name: str) -> tuple[int, int, int]:
        least, typical, most = (
            int(re.findall(rf"^{name} {which} (\d+)$", text, re.MULTILINE)[0])
            for which in ("least", "typical", "most")
        )
        return least, typical, most

    drawn = re.search(r"^drawn (.*)\nend of text$", text, re.MULTILINE | re.DOTALL)
    assert drawn is not None, text
    return SelfTest(
        greedy=tokens("greedy"),
        drawn=drawn[1],
        resumed=tokens("resumed"),
        instructions={name: figures(name) for name in ("greedy", "drawn")},
        stack=int(re.findall(r"^stack (\d+)$", text, re.MULTILINE)[0]),
    )
