"""What this machine can run, and why not the rest."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle
from .engines.base import EXPERIMENTAL, Provider
from .engines.cuda.driver import driver_obstacle, find_gpu
from .engines.native.library import load_library
from .engines.ort.providers import (
    create_session,
    import_onnxruntime,
    installed_engines,
    mixed_up_engines,
    node_owner,
)
from .engines.tensorrt.api import installed_tensorrt
from .engines.tensorrt.records import find_records
from .errors import EngineError, RilletError

__all__ = ["diagnose"]

_PACKAGES = ("numpy", "tokenizers", "safetensors", "click", "torch", "onnx")

# y = x + x, for two numbers: opset 18, IR version 10. The least that a provider can run.
_LEAST_GRAPH = (
    b'\x08\n:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12'
    b"\x04\n\x02\x08\x02b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\x12"
)


def diagnose(bundle: Path | None = None) -> dict[str, Any]:
    """Look at what is installed, and try each execution provider with a real step.

    Args:
        bundle: A bundle to try them with; by default, a graph of one addition.

    Returns:
        A JSON value: the machine; packages; problems, each with a remedy; for each provider
        whether it works, or why not, and whether it is experimental; and what TensorRT needs.
    """
    problems = [sentence for sentence in (mixed_up_engines(),) if sentence]
    engines = installed_engines()
    tensorrt = _try_tensorrt(bundle)
    providers: dict[Provider, dict[str, Any]] = {"native": _try_provider("native", bundle)}
    try:
        version = import_onnxruntime().__version__
    except EngineError as error:
        if not providers["native"]["works"]:
            problems.append(
                f"no inference engine can be imported ({error.__cause__}); install one: pip "
                "install 'rillet[cpu]'"
            )
    else:
        engines["onnxruntime, as imported"] = str(version)
        providers |= {name: _try_provider(name, bundle) for name in ("cpu", "cuda")}
    providers["tensorrt"] = tensorrt if bundle is None else _try_provider("tensorrt", bundle)
    if bundle is not None and not any(report["works"] for report in providers.values()):
        command = f"rillet verify {shlex.quote(str(bundle))}"
        problems.append(f"no provider runs {bundle}; see `{command}`")
    return {
        "rillet": _own_version(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": _cores(),
        "packages": _versions(_PACKAGES),
        "engines": engines,
        "providers": {
            name: {**report, "experimental": name in EXPERIMENTAL}
            for name, report in providers.items()
        },
        "tensorrt": tensorrt,
        "problems": problems,
    }


def _try_provider(provider: Provider, bundle: Path | None) -> dict[str, Any]:
    try:
        if bundle is not None:
            return _step(provider, bundle)
        return _load() if provider == "native" else _add(provider)
    except RilletError as error:
        return {"works": False, "reason": str(error)}
    except Exception as error:  # onnxruntime's exceptions share no public base
        return {"works": False, "reason": f"{type(error).__name__}: {error}"}


def _load() -> dict[str, Any]:
    """Load the native library, which needs a bundle to compute anything."""
    load_library()
    return {"works": True, "owner": "native"}


def _add(provider: Provider) -> dict[str, Any]:
    """Try a provider with one addition."""
    session = create_session(_LEAST_GRAPH, provider, 1)
    result = session.run(None, {"x": np.ones(2, np.float32)})[0]
    if result.tolist() != [2, 2]:
        return {"works": False, "reason": f"it computes 1 + 1 = {result.tolist()}"}
    return {"works": True, "owner": node_owner(session)}


def _step(provider: Provider, bundle: Path) -> dict[str, Any]:
    """Try a provider with 200 steps of a bundle, and time them."""
    from .model import load

    engine = load(bundle, provider).engine
    state, token = engine.zero_state(), np.zeros(1, np.int64)
    seconds = []
    for _ in range(200):
        began = time.perf_counter()
        engine.step(token, state)
        seconds.append(time.perf_counter() - began)
    step_us = round(float(np.median(seconds)) * 1e6, 1)
    return {"works": True, "owner": engine.provider, "step_us": step_us}


def _try_tensorrt(bundle: Path | None) -> dict[str, Any]:
    """Look for what TensorRT needs: a GPU, the library, cuda-python and built engines."""
    obstacles = []
    parts: dict[str, Any] = {"gpu": None, "library": None, "cuda_python": None}
    obstacle = driver_obstacle()
    if obstacle is None:
        gpu = find_gpu()
        parts["gpu"] = f"{gpu.name}, compute capability {gpu.capability}, CUDA {gpu.driver}"
    else:
        obstacles.append(obstacle)
    try:
        parts["library"] = installed_tensorrt().library
    except EngineError as error:
        obstacles.append(str(error))
    versions = _versions(("cuda-python", "cuda-bindings"))
    if versions:
        parts["cuda_python"] = next(iter(versions.values()))
    else:
        obstacles.append("cuda-python is not installed: pip install 'rillet[tensorrt]'")
    if bundle is not None:
        with contextlib.suppress(RilletError):
            records = find_records(Bundle.open(bundle))
            parts["engines"] = [record.path.name for record in records]
    return {"works": not obstacles, "reason": "; ".join(obstacles), **parts}


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed ones among some packages, with their versions."""
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _cores() -> int:
    """Cores that this process may use: in a container, perhaps fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _own_version() -> str:
    from . import __version__

    return __version__
