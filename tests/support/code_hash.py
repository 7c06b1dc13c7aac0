"""A hash of the code that some modules can reach, so that a change elsewhere leaves it alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Iterator

import torch

from check_architecture import PROJECT, ROOT, Module, project_imports, read_modules

__all__ = ["code_hash", "reached"]

_PACKAGES = ("runtime", "train", "export", "integrations")
_LIBRARIES = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnx-ir",
    "safetensors",
    "tokenizers",
)


@functools.cache
def code_hash(starts: frozenset[str]) -> str:
    """A hash of all code that these modules can reach by imports, and of what runs it.

    Args:
        starts: Full names. Of modules that are not rillet's, only those of benchmarks count, as
            ``lib.NAME``: they stand for all code.
    """
    names = {name.removeprefix(f"{PROJECT}.") for name in starts if name.startswith(f"{PROJECT}.")}
    modules = _modules()
    files = [modules[name].path for name in sorted(reached(names))]
    if any(name.startswith("lib.") for name in starts):
        files = [module.path for module in modules.values()]
        files += [path.relative_to(ROOT) for path in sorted((ROOT / "benchmarks/lib").glob("*.py"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file}\0".encode())
        digest.update((ROOT / file).read_bytes())
    digest.update("\0".join(_versions()).encode())
    return digest.hexdigest()


def reached(names: Iterable[str]) -> set[str]:
    """The project's modules that some can reach, themselves included.

    A package's ``__init__`` only renames what is inside, so it counts only where it is imported.
    """
    modules, found = _modules(), set[str]()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name not in modules:
            continue
        found.add(name)
        waiting += _imports(name)
    return found


@functools.cache
def _modules() -> dict[str, Module]:
    return read_modules(ROOT, _PACKAGES)


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    modules = _modules()
    return tuple(project_imports(modules[name], modules))


def _versions() -> Iterator[str]:
    yield from (sys.version, platform.machine(), str(torch.get_num_threads()))
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{library} {importlib.metadata.version(library)}"
