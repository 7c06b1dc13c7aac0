"""Test programs in C, compiled once: the sanitizers take half a minute over the library.

``build/test-cache`` keeps them under a hash of the command, the compiler, and all sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.cache import ROOT, lasting_cache

__all__ = ["COMPILER", "compile_program", "compile_sanitized"]

COMPILER = shutil.which(os.environ.get("CC", "cc"))
"""The machine's own compiler; ``None`` if there is none."""

_SANITIZED = ("-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class _CompileError(Exception):
    """The compiler found an error; holds its messages."""


def compile_program(command: Sequence[str], out: Path) -> str:
    """Compile and link a program, or copy what the same command made from the same sources.

    Args:
        command: The compiler and its arguments, all but ``-o``.
        out: The program to write.

    Returns:
        What the compiler said if there was an error; else nothing.
    """

    def make(path: Path) -> None:
        done = subprocess.run(
            [*command, "-o", str(path)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise _CompileError(done.stderr)

    digest = hashlib.sha256()
    for part in _parts(command):
        digest.update(hashlib.sha256(part).digest())
    with tempfile.TemporaryDirectory() as temporary:
        cache = lasting_cache("programs", Path(temporary))
        try:
            content = cache.file(digest.hexdigest(), make)
        except _CompileError as refused:
            return str(refused)
    out.write_bytes(content)
    out.chmod(0o755)
    return ""


def compile_sanitized(out: Path, *arguments: str) -> Path:
    """Compile a program with the sanitizers of addresses and of undefined behaviour.

    Skips where the compiler has none.

    Args:
        out: The program to write.
        *arguments: Further flags, sources and libraries.
    """
    errors = compile_program([str(COMPILER), *_SANITIZED, *arguments, "-lm"], out)
    if "cannot find" in errors and "asan" in errors:
        pytest.skip("the compiler has no sanitizers")
    assert not errors, errors
    return out


def _parts(command: Sequence[str]) -> Iterator[bytes]:
    """All that decides what a compiler makes."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False)
    yield version.stdout
    for argument in command:
        yield argument.encode()
        if Path(argument).is_file():
            yield Path(argument).read_bytes()
    for folder in ("native", "tests/native"):
        for header in sorted((ROOT / folder).rglob("*.h")):
            yield header.read_bytes()
