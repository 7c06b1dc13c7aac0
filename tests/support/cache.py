"""What tests export, kept in ``build/test-cache`` under a hash of the code that makes it.

Checkpoints and bundles that many tests read, and the graphs that torch's exporter returns, are
made once and shared by the workers of a run and by later runs. Any change to the code that makes
them starts an empty cache, and the old one is removed. Tests get copies, never the cache itself.
``RILLET_TEST_CACHE=0`` turns it off.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import onnx
import torch

try:
    import fcntl
except ImportError:  # Windows: workers may then build the same entry twice
    fcntl = None  # type: ignore[assignment]

__all__ = ["Cache", "cached_exporter", "open_cache"]

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "test-cache"

_SOURCES = ("runtime", "train", "export", "benchmarks/lib")
_MAKERS = ("conftest.py", "support/cache.py", "support/models.py")
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


_HASHED = ("rillet.", "torch.", "lib.")
"""What holds classes whose code the key covers: `lib` is that of benchmarks."""


class Cache:
    """Files made once, in a folder that holds nothing else.

    Args:
        folder: Where to keep them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, name: str, make: Callable[[Path], object]) -> bytes:
        """The content of a file.

        Args:
            name: The entry's name.
            make: Writes the file to the path that it is given, where there is none yet.
        """
        return self._entry(name, make).read_bytes()

    def folder(self, name: str, make: Callable[[Path], object], target: Path) -> Path:
        """A copy of a folder.

        Args:
            name: The entry's name.
            make: Writes into the folder that it is given, where there is none yet.
            target: The copy; what it holds already stays.

        Returns:
            ``target``.
        """

        def fill(folder: Path) -> None:
            folder.mkdir()
            make(folder)

        return Path(shutil.copytree(self._entry(name, fill), target, dirs_exist_ok=True))

    def _entry(self, name: str, make: Callable[[Path], object]) -> Path:
        """The path of an entry. One process makes it while the others wait."""
        path = self._folder / name
        if not path.exists():
            with _locked(self._folder / f".{name}.lock"):
                if not path.exists():
                    fresh = self._folder / f".{name}.{uuid.uuid4().hex}"
                    make(fresh)
                    fresh.rename(path)
        return path


@contextlib.contextmanager
def open_cache(temporary: Path) -> Iterator[Cache]:
    """The cache of today's sources; those of other sources are removed unless a run uses them.

    Args:
        temporary: Where to keep entries when the cache is turned off.
    """
    if os.environ.get("RILLET_TEST_CACHE") == "0" or fcntl is None:
        yield Cache(temporary)
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    name = code_hash()
    with (PLACE / f"{name}.in-use").open("w") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        _remove_others(name)
        yield Cache(PLACE / name)


def _remove_others(name: str) -> None:
    for mark in PLACE.glob("*.in-use"):
        if mark.stem == name:
            continue
        with mark.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(PLACE / mark.stem, ignore_errors=True)
            mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def code_hash() -> str:
    """A hash of all that decides what a model and its graphs come out as."""
    digest = hashlib.sha256()
    files = [file for folder in _SOURCES for file in sorted((ROOT / folder).rglob("*.py"))]
    for file in (*files, *(ROOT / "tests" / maker for maker in _MAKERS)):
        digest.update(f"{file.relative_to(ROOT)}\0".encode())
        digest.update(file.read_bytes())
    versions = [sys.version, platform.machine(), str(torch.get_num_threads())]
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{library} {importlib.metadata.version(library)}")
    digest.update("\0".join(versions).encode())
    return digest.hexdigest()


def cached_exporter(cache: Cache) -> Callable[..., Any]:
    """``torch.onnx.export`` that remembers its results.

    The exporter takes seconds and depends on nothing but the module and its options. Everything
    that rillet does with its result is done each time.

    Args:
        cache: Where results are kept.
    """
    real = torch.onnx.export

    @functools.wraps(real)
    def export(module: torch.nn.Module, **options: Any) -> Any:
        try:
            key = _fingerprint((module, options))
        except TypeError:  # something in it has no fingerprint
            return real(module, **options)

        def make(path: Path) -> None:
            program = real(module, **options)
            assert program is not None
            path.write_bytes(program.model_proto.SerializeToString())

        content = cache.file(f"{key}.onnx", make)
        return SimpleNamespace(model_proto=onnx.load_model_from_string(content))

    return export


def _fingerprint(value: object) -> str:
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value: object) -> Iterator[bytes]:
    """All of a value that can make a difference.

    Raises:
        TypeError: It holds something whose content is unknown.
    """
    yield type(value).__qualname__.encode()
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        yield repr(value).encode()
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _parts(key)
            yield from _parts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _parts(inner)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, FunctionType):
        yield f"{value.__module__}.{value.__qualname__}".encode()
    elif type(value).__module__.startswith(_HASHED):
        yield from _parts(vars(value))
    elif isinstance(value, torch.Generator):
        return  # its random numbers are for training
    elif isinstance(value, torch.export.dynamic_shapes.Dim):
        yield f"{value.__name__} {value.min} {value.max}".encode()
    else:
        raise TypeError(f"{type(value)} has no fingerprint")
