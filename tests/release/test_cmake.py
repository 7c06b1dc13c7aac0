"""The C library, installed by CMake and found by another project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.ports import ROOT

PROGRAM = r"""
#include <rillet.h>
#include <stdio.h>

int main(void) {
    size_t bytes;
    char message[RILLET_MESSAGE];
    rillet_status status = rillet_model_size("", 0, &bytes, message);
    printf("%s\n", status == RILLET_DAMAGED ? message : "an empty file is a model");
    return 0;
}
"""

PROJECT = """
cmake_minimum_required(VERSION 3.16)
project(outside LANGUAGES C)
find_package(rillet 0.1 REQUIRED)
add_executable(outside main.c)
target_link_libraries(outside PRIVATE rillet::rillet)
"""

ANSWER = "the file is shorter than its header\n"


def command(*parts: object, **environment: str) -> str:
    result = subprocess.run(
        list(map(str, parts)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A project that knows nothing of this repository."""
    if shutil.which("cmake") is None or shutil.which("cc") is None:
        pytest.skip("there is no CMake, or no C compiler: apt-get install cmake gcc")
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "main.c").write_text(PROGRAM)
    (folder / "CMakeLists.txt").write_text(PROJECT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["ON", "OFF"])
def test_another_project_finds_the_library(outside: Path, tmp_path: Path, shared: str) -> None:
    build, prefix = tmp_path / "build", tmp_path / "installed"
    command("cmake", "-S", ROOT / "native", "-B", build, f"-DBUILD_SHARED_LIBS={shared}")
    command("cmake", "--build", build, "--parallel", 2)
    command("cmake", "--install", build, "--prefix", prefix)

    command("cmake", "-S", outside, "-B", outside / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    command("cmake", "--build", outside / "build")
    assert command(outside / "build" / "outside") == ANSWER

    if shutil.which("pkg-config") is None:
        return
    (file,) = prefix.rglob("rillet.pc")
    settings = {"PKG_CONFIG_PATH": str(file.parent)}
    flags = command("pkg-config", "--cflags", "--libs", "rillet", **settings).split()
    command("cc", outside / "main.c", "-o", outside / "program", *flags)
    path = {"LD_LIBRARY_PATH": str(file.parents[1])}
    assert command(outside / "program", **path) == ANSWER
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert command("pkg-config", "--modversion", "rillet", **settings) == f"{version}\n"
