"""What differs between TensorRT 10.3 to 11 and TensorRT-RTX; everything else is the same."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EngineError
from ..cuda.driver import driver_obstacle, find_gpu

__all__ = [
    "LIBRARIES",
    "Progress",
    "TensorrtApi",
    "find_tensorrt",
    "how_to_install",
    "installed_tensorrt",
]

log = logging.getLogger("rillet")

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""The modules that have the API, in the order in which they are tried."""

Progress = Callable[[str, int, int], object]
"""Called with the name of the current phase, its steps done, and its steps in all."""


@dataclass(frozen=True)
class TensorrtApi:
    """A TensorRT library.

    Attributes:
        trt: Its module.
        name: ``tensorrt`` or ``tensorrt_rtx``.
        version: Its version, such as ``10.3.0``.
    """

    trt: Any
    name: str
    version: str

    @property
    def library(self) -> str:
        """Name and version, as in an engine's record."""
        return f"{self.name} {self.version}"

    @property
    def compiles_when_loaded(self) -> bool:
        """Whether engines are built without a GPU, for any GPU, and compiled on loading."""
        return self.name == "tensorrt_rtx"

    def network_flags(self) -> int:
        """Flags of a strongly typed network: precision is what the graph says.

        The value of the flag is 1 in version 10 and 0 in version 11.
        """
        return 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def logger(self) -> Any:
        """Make a logger that passes messages on to ``logging`` and keeps the errors.

        Returns:
            An ``ILogger`` with a list ``errors``.
        """
        trt = self.trt
        errors: list[str] = []
        levels = {
            trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
            trt.ILogger.Severity.ERROR: logging.ERROR,
            trt.ILogger.Severity.WARNING: logging.INFO,
        }

        def record(_: Any, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                errors.append(message)
                level = logging.INFO  # it becomes part of an exception
            log.log(level, "%s: %s", trt.__name__, message)

        # TensorRT's classes are known only at run time, so these are made from them there.
        return type("Log", (trt.ILogger,), {"errors": errors, "log": record})()

    def monitor(self, progress: Progress) -> Any:
        """Make a progress monitor of a build, or ``None`` if the library has none.

        Args:
            progress: Called with the name of the phase, steps done and steps in all.
        """
        trt = self.trt
        totals: dict[str, int] = {}
        if not hasattr(trt, "IProgressMonitor"):
            return None

        def phase_start(_: Any, phase_name: str, parent_phase: str | None, steps: int) -> None:
            totals[phase_name] = steps
            progress(phase_name, 0, steps)

        def step_complete(_: Any, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, totals.get(phase_name, step + 1))
            return True

        def phase_finish(_: Any, phase_name: str) -> None:
            steps = totals.pop(phase_name, 0)
            progress(phase_name, steps, steps)

        methods = {
            "phase_start": phase_start,
            "step_complete": step_complete,
            "phase_finish": phase_finish,
        }
        return type("Monitor", (trt.IProgressMonitor,), methods)()

    def engine_obstacle(self, runtime: Any, data: bytes) -> str | None:
        """Say why a serialised engine cannot be loaded, if the library knows beforehand."""
        if not hasattr(runtime, "get_engine_validity"):
            return None
        validity, diagnostics = runtime.get_engine_validity(data)
        if validity == self.trt.EngineValidity.INVALID:
            return f"{self.library} reports it as invalid here (diagnostics: {diagnostics})"
        return None

    def device_memory(self, engine: Any) -> int:
        """Bytes of the GPU's memory that one context of an engine takes, weights aside."""
        if hasattr(engine, "device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def layers(self, engine: Any) -> list[dict[str, str]]:
        """Name and type of each layer of an engine, in the order of execution."""
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return parse_layers(text)


def parse_layers(text: str) -> list[dict[str, str]]:
    """Name and type of each layer in an engine inspector's report.

    The report also lists inputs and outputs, under a name that differs between 10 and 11.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [
        {"name": layer, "type": ""}
        if isinstance(layer, str)
        else {"name": str(layer.get("Name", "")), "type": str(layer.get("LayerType", ""))}
        for layer in layers
    ]


def find_tensorrt(library: str | None = None, build: bool = False) -> TensorrtApi:
    """Find a TensorRT that can be used here.

    The driver is asked before any of the library's objects is made: without a driver, those
    crash the process.

    Args:
        library: One of :data:`LIBRARIES`; by default the first that is installed.
        build: Whether it is for building, which TensorRT-RTX does without a GPU.

    Raises:
        EngineError: TensorRT is not installed, or there is no GPU that it can use.
    """
    api = installed_tensorrt(library)
    obstacle = driver_obstacle()
    if obstacle is not None and not (build and api.compiles_when_loaded):
        raise EngineError(obstacle)
    return api


def installed_tensorrt(library: str | None = None) -> TensorrtApi:
    """Find a TensorRT that can be imported; it may still be unable to run.

    Raises:
        EngineError: There is none; the message says how to install it on this machine.
    """
    failures = []
    for name in LIBRARIES if library is None else (library,):
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a missing library raises OSError, or anything
            failures.append(f"{name}: {error}")
        else:
            return TensorrtApi(module, name, str(module.__version__))
    raise EngineError(
        f"TensorRT cannot be imported ({'; '.join(failures)}); {how_to_install(library)}"
    )


def how_to_install(library: str | None = None) -> str:
    """Say how to install TensorRT on this machine."""
    if library == "tensorrt_rtx":
        return "install it: pip install tensorrt-rtx"
    if sys.platform == "darwin":
        return "there is no TensorRT for macOS; use provider='cpu'"
    if is_jetson():
        return (
            "JetPack brings it as a system package: sudo apt install python3-libnvinfer; a "
            "virtual environment sees it if it was created with python3 -m venv "
            f"--system-site-packages. Then: {_extra()}"
        )
    return (
        f"its libraries come from NVIDIA's own index: {_extra()} tensorrt-cu{_cuda_major()} "
        "--extra-index-url https://pypi.nvidia.com"
    )


def _extra() -> str:
    """The command that installs the CUDA layer in a version that fits the driver."""
    major = _cuda_major()
    return f"pip install 'rillet[tensorrt]' 'cuda-python=={major}.*'"


def _cuda_major() -> int:
    """The newest CUDA that the driver supports, 12 or 13; 12 if there is no driver."""
    with contextlib.suppress(EngineError):
        return 13 if int(find_gpu().driver.split(".")[0]) >= 13 else 12
    return 12


def is_jetson() -> bool:
    """Whether this machine is a Jetson, whose system includes TensorRT."""
    if platform.machine() != "aarch64":
        return False
    return Path("/etc/nv_tegra_release").exists() or Path("/etc/nv_boot_control.conf").exists()
