"""What tests export, kept in ``build/test-cache`` under a hash of the code that makes it.

Checkpoints and bundles that many tests read are made once and shared by the workers of a run and by
later runs. A change to code that training or exporting can reach starts an empty cache, and the old
one is removed. The graphs that torch's exporter returns, which take longest, are kept apart: of
them, only a change to the model's or the graphs' own code makes new ones. Programs in C have a
cache of their own as well. Tests get copies, never the cache itself. ``RILLET_TEST_CACHE=0`` turns
all of it off.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import onnx
import torch

from support.code_hash import code_hash

try:
    import fcntl
except ImportError:  # Windows: workers may then build the same entry twice
    fcntl = None  # type: ignore[assignment]

__all__ = ["Cache", "cached_exporter", "lasting_cache", "open_cache"]

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "test-cache"

_BUNDLES_NEED = frozenset({"rillet.train", "rillet.runtime", "rillet.export.api"})
_GRAPHS_NEED = frozenset({"rillet.export.graphs.build"})
_MAKERS = ("support/cache.py", "support/models.py")
"""Files of tests on which entries depend, besides the one that makes an entry."""

_UNUSED = 7 * 86_400.0
"""Seconds after which an entry of a lasting cache that no run has asked for is removed."""

_HASHED = ("rillet.", "torch.", "lib.")
"""What holds classes whose code the key covers: `lib` is that of benchmarks."""


class Cache:
    """Files made once, in a folder that holds nothing else.

    Entries are named for the file that makes them too: changed, it makes new ones.

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
        return self._entry(f"{name}-{_source(make)}", make).read_bytes()

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

        entry = self._entry(f"{name}-{_source(make)}", fill)
        return Path(shutil.copytree(entry, target, dirs_exist_ok=True))

    def _entry(self, name: str, make: Callable[[Path], object]) -> Path:
        """The path of an entry. One process makes it while the others wait."""
        path = self._folder / name
        if not path.exists():
            with _locked(self._folder / f".{name}.lock"):
                if not path.exists():
                    fresh = self._folder / f".{name}.{uuid.uuid4().hex}"
                    make(fresh)
                    fresh.rename(path)
        os.utime(path)
        return path


def _source(make: Callable[[Path], object]) -> str:
    """A short hash of the file in which a function is written."""
    assert isinstance(make, FunctionType)
    return hashlib.sha256(Path(make.__code__.co_filename).read_bytes()).hexdigest()[:16]


@contextlib.contextmanager
def open_cache(temporary: Path) -> Iterator[Cache]:
    """The cache of checkpoints and bundles; that of other sources is removed unless a run uses it.

    Args:
        temporary: Where to keep entries when the cache is turned off.
    """
    if _is_off():
        yield Cache(temporary)
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    name = _makers_hash()
    with (PLACE / f"{name}.in-use").open("w") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        _remove_others(name)
        yield Cache(PLACE / name)


def lasting_cache(kind: str, temporary: Path) -> Cache:
    """A cache that no change of code empties; what no run has asked for lately is removed.

    Args:
        kind: What it keeps; its entries' names hold all that they are made from.
        temporary: Where to keep entries when the cache is turned off.
    """
    if _is_off():
        return Cache(temporary)
    cache = Cache(PLACE / kind)
    for path in (PLACE / kind).iterdir():
        with contextlib.suppress(FileNotFoundError):  # another worker removes it too
            if path.stat().st_mtime < time.time() - _UNUSED:
                path.unlink()
    return cache


def _is_off() -> bool:
    return os.environ.get("RILLET_TEST_CACHE") == "0" or fcntl is None


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


def _makers_hash() -> str:
    """A hash of all that decides what a checkpoint or a bundle comes out as."""
    digest = hashlib.sha256(code_hash(_BUNDLES_NEED).encode())
    for maker in _MAKERS:
        digest.update((ROOT / "tests" / maker).read_bytes())
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
    """A hash of a value, and of the code of everything in it."""
    digest, modules = hashlib.sha256(), set[str]()
    for part in _parts(value, modules):
        digest.update(part)
        digest.update(b"\0")
    digest.update(code_hash(_GRAPHS_NEED.union(modules)).encode())
    return digest.hexdigest()


def _parts(value: object, modules: set[str]) -> Iterator[bytes]:
    """All of a value that can make a difference.

    Args:
        value: The value.
        modules: Collects the modules in which its classes and functions are written.

    Raises:
        TypeError: It holds something whose content is unknown.
    """
    kind = type(value)
    yield kind.__qualname__.encode()
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        yield repr(value).encode()
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _parts(key, modules)
            yield from _parts(inner, modules)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _parts(inner, modules)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, FunctionType):
        modules.add(value.__module__)
        yield f"{value.__module__}.{value.__qualname__}".encode()
    elif isinstance(value, torch.Generator):
        return  # its random numbers are for training
    elif isinstance(value, torch.export.dynamic_shapes.Dim):
        yield f"{value.__name__} {value.min} {value.max}".encode()
    elif kind.__module__.startswith(_HASHED):
        modules.add(kind.__module__)
        yield kind.__module__.encode()
        yield from _parts(vars(value), modules)
    else:
        raise TypeError(f"{kind} has no fingerprint")
