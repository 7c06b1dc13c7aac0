"""Compilers for the native library, and how what they build is run on this machine."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.programs import compile_program

__all__ = ["PORTS", "ROOT", "STRICT", "Port", "release_flags", "sources"]

ROOT = Path(__file__).parents[2]

STRICT = ("-Wall", "-Wextra", "-Werror")


def release_flags() -> list[str]:
    """What the library is compiled with everywhere."""
    lines = (ROOT / "native" / "flags.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("-")]


def sources() -> list[str]:
    """The library's files."""
    return sorted(map(str, (ROOT / "native" / "src").glob("*.c")))


@dataclass(frozen=True)
class Port:
    """One way to build the library. A test skips where a tool is missing, and says which."""

    compiler: tuple[str, ...]
    flags: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("-lm",)
    packages: str = ""
    """What Debian and Ubuntu call the packages that it needs."""

    def build(
        self, program: str, out: Path, flags: Sequence[str] | None = None, strict: bool = True
    ) -> Path:
        """Compile a program of ``tests/native`` with the library."""
        self._need(self.compiler[0])
        missing = _obstacle(self.compiler)
        if missing:
            pytest.skip(f"{' '.join(self.compiler)} cannot link ({missing}): {self._advice()}")
        command = [*self.compiler, *(STRICT if strict else ())]
        command += [*(release_flags() if flags is None else flags), *self.flags]
        command += [str(ROOT / "tests" / "native" / program), *sources(), *self.libraries]
        errors = compile_program(command, out)
        assert not errors, errors
        return out

    def run(self, program: Path, *arguments: object) -> str:
        """Run what was built; returns what it prints."""
        if self.runner:
            self._need(self.runner[0])
        command = [*self.runner, str(program), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def _need(self, tool: str) -> None:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: {self._advice()}")

    def _advice(self) -> str:
        return f"apt-get install {self.packages}"


@functools.cache
def _obstacle(compiler: tuple[str, ...]) -> str:
    """Why a compiler cannot make a program, in one line; empty if it can."""
    command = [*compiler, "-x", "c", "-", "-o", "/dev/null"]
    program = '#include <stdio.h>\nint main(void) { return puts(""); }\n'
    result = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    return next(iter(result.stderr.splitlines()), "") if result.returncode else ""


_WASM = Port(
    ("clang", "--target=wasm32-wasi", "--sysroot=/usr"),
    ("-D_WASI_EMULATED_PROCESS_CLOCKS",),
    ("node", "--no-warnings", str(ROOT / "tests" / "native" / "wasi.mjs")),
    ("-lwasi-emulated-process-clocks",),
    "clang lld wasi-libc libclang-rt-dev-wasm32 nodejs",
)

PORTS: dict[str, Port] = {
    "gcc": Port(("gcc",), packages="gcc"),
    "gcc, plain": Port(("gcc",), ("-DRL_PLAIN_ONLY",), packages="gcc"),
    "clang": Port(("clang",), packages="clang"),
    "clang, plain": Port(("clang",), ("-DRL_PLAIN_ONLY",), packages="clang"),
    "aarch64": Port(
        ("aarch64-linux-gnu-gcc",),
        ("-static",),
        ("qemu-aarch64-static",),
        packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static",
    ),
    "WebAssembly": Port(
        _WASM.compiler, ("-msimd128", *_WASM.flags), _WASM.runner, _WASM.libraries, _WASM.packages
    ),
    "32 bits, no vectors": _WASM,
}
"""What the library is tested with. WebAssembly without SIMD stands for the least that C offers."""
