"""Build the native library beside its package, where there is a C compiler.

It is no Python extension: ctypes loads it, so that one wheel serves every Python of a platform. CC
chooses the compiler; one for another processor gives that processor's wheel:

    CC=aarch64-linux-gnu-gcc python scripts/build_dist.py
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

_PACKAGE, _FILE = "rillet.runtime.engines.native", "librillet.native"
_LINES = Path("native/flags.txt").read_text(encoding="utf-8").splitlines()
_FLAGS = [*(line for line in _LINES if line.startswith("-")), "-g0"]


_MACHINES = {62: "x86_64", 183: "aarch64"}
"""What the header of a library says of its processor, and what a wheel calls that."""

_OLDEST = (2, 17)
"""The glibc that package indexes ask for at least."""


class BuildLibrary(build_ext):
    """Names the library for the platform, not for a Python, and links it to no Python."""

    def build_extensions(self) -> None:
        """Compile with our flags and the user's, not with those that this Python was built with."""
        if sys.platform == "linux":
            compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
            flags, link = (shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDFLAGS"))
            self.compiler.set_executables(
                compiler_so=[*compiler, *flags, "-fPIC"],
                linker_so=[*compiler, *flags, "-shared", *link],
            )
        super().build_extensions()

    def get_ext_filename(self, ext_name: str) -> str:
        """The path of the library in the package."""
        suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
        return str(Path(*ext_name.split(".")[:-1], _FILE + suffix))

    def get_libraries(self, ext: Any) -> list[str]:
        """What it is linked to: the mathematics of C, and nothing else."""
        return [] if sys.platform == "win32" else ["m"]


class BuildWheel(bdist_wheel):
    """A wheel for every Python 3 of this platform, or of all if no library was built."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag."""
        built = next(Path(self.bdist_dir or "", "..").parent.rglob(f"{_FILE}.*"), None)
        platform = super().get_tag()[2] if built is not None else "any"
        if built is not None and sys.platform == "linux":
            platform = _linux_tag(built.read_bytes()) or platform
        return "py3", "none", platform


def _linux_tag(library: bytes) -> str | None:
    """The oldest platform that has what a library needs: its processor, and its glibc's version."""
    machine = _MACHINES.get(int.from_bytes(library[18:20], "little"))
    needed = [(int(a), int(b)) for a, b in re.findall(rb"GLIBC_(\d+)\.(\d+)", library)]
    if machine is None or not needed:
        return None
    major, minor = max(*needed, _OLDEST)
    return f"manylinux_{major}_{minor}_{machine}"


setup(
    ext_modules=[
        Extension(
            f"{_PACKAGE}.librillet",
            sources=sorted(str(path) for path in Path("native/src").glob("*.c")),
            include_dirs=["native/include"],
            depends=sorted(str(path) for path in Path("native").rglob("*.h")),
            extra_compile_args=_FLAGS,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": BuildWheel},
)
