"""Build the native library beside its package, where there is a C compiler.

It is no Python extension: ctypes loads it, so that one wheel serves every Python of a platform.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

_PACKAGE, _FILE = "rillet.runtime.engines.native", "librillet.native"
_FLAGS = [
    "-std=c11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",  # for single instructions; NaN is looked for by its bits
    "-fno-signed-zeros",
    "-ffp-contract=off",  # int8 gives the same bits on every processor; products fuse by name
    "-fopenmp-simd",
    "-fvisibility=hidden",
    "-g0",
]


class BuildLibrary(build_ext):
    """Names the library for the platform, not for a Python, and links it to no Python."""

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
        built = any(Path(self.bdist_dir or "", "..").parent.rglob(f"{_FILE}.*"))
        platform = super().get_tag()[2] if built else "any"
        return "py3", "none", platform


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
