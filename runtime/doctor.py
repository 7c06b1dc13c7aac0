"""What this machine can run, and why not the rest."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle
from .engines.base import PROVIDERS, Provider
from .engines.cuda.driver import driver_obstacle, find_gpu
from .engines.ort.providers import (
    create_session,
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
        bundle: A bundle to try them with; without one, the smallest of graphs.

    Returns:
        What was found, as a JSON value: the machine, packages, problems with a remedy each,
        for each provider whether it works, or why not, and the same of TensorRT without
        ONNX Runtime.
    """
    problems = [sentence for sentence in (mixed_up_engines(),) if sentence]
    engines = installed_engines()
    providers: dict[str, dict[str, Any]] = {}
    try:
        import onnxruntime
    except ImportError as error:
        problems.append(
            f"no inference engine can be imported ({error}); install one: pip install 'rillet[cpu]'"
        )
    else:
        engines["onnxruntime, as imported"] = str(onnxruntime.__version__)
        providers = {name: _try(name, bundle) for name in PROVIDERS}
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    if bundle is not None and not any(found["works"] for found in providers.values()):
        problems.append(f"no provider runs {bundle}; see `rillet verify {bundle}`")
    return {
        "rillet": _own_version(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": _cores(),
        "packages": versions,
        "engines": engines,
        "providers": providers,
        "tensorrt": _tensorrt(bundle),
        "problems": problems,
    }


def _try(provider: Provider, bundle: Path | None) -> dict[str, Any]:
    try:
        if bundle is None:
            session = create_session(_LEAST_GRAPH, provider, 1)
            result = session.run(None, {"x": np.ones(2, np.float32)})[0]
            if result.tolist() != [2, 2]:
                return {"works": False, "reason": f"it computes 1 + 1 = {result.tolist()}"}
            return {"works": True, "owner": node_owner(session)}
        from .model import load

        model = load(bundle, provider)
        state, token = model.engine.zero_state(), np.zeros(1, np.int64)
        taken = []
        for _ in range(200):
            began = time.perf_counter()
            model.engine.step(token, state)
            taken.append(time.perf_counter() - began)
        step = round(float(np.median(taken)) * 1e6, 1)
        return {"works": True, "owner": model.engine.provider, "step_us": step}
    except RilletError as error:
        return {"works": False, "reason": str(error)}
    except Exception as error:  # onnxruntime's exceptions share no public base
        return {"works": False, "reason": f"{type(error).__name__}: {error}"}


def _tensorrt(bundle: Path | None) -> dict[str, Any]:
    """What TensorRT itself needs: a GPU, the library, cuda-python, and engines that were built."""
    obstacles = []
    found: dict[str, Any] = {"gpu": None, "library": None, "cuda_python": None}
    obstacle = driver_obstacle()
    if obstacle is None:
        gpu = find_gpu()
        found["gpu"] = f"{gpu.name}, compute capability {gpu.capability}, CUDA {gpu.driver}"
    else:
        obstacles.append(obstacle)
    try:
        found["library"] = installed_tensorrt().library
    except EngineError as error:
        obstacles.append(str(error))
    for package in ("cuda-bindings", "cuda-python"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found["cuda_python"] = metadata.version(package)
    if found["cuda_python"] is None:
        obstacles.append("cuda-python is not installed: pip install 'rillet[tensorrt]'")
    if bundle is not None:
        with contextlib.suppress(RilletError):
            records = find_records(Bundle.open(bundle))
            found["engines"] = [record.path.name for record in records]
    return {"works": not obstacles, "reason": "; ".join(obstacles), **found}


def _cores() -> int:
    """Cores that this process may use, which a container may have fewer of than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _own_version() -> str:
    from . import __version__

    return __version__
