"""What differs between TensorRT 10.3 to 11 and TensorRT-RTX. All else is the same in each."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EngineError
from ..cuda.driver import driver_obstacle, find_gpu

__all__ = ["LIBRARIES", "TensorrtApi", "find_tensorrt", "how_to_install", "installed_tensorrt"]

log = logging.getLogger("rillet")

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""The modules that have the API, the one that is tried first in front."""


@dataclass(frozen=True)
class TensorrtApi:
    """A TensorRT library.

    Attributes:
        trt: Its module.
        name: ``tensorrt`` or ``tensorrt_rtx``.
        version: Such as ``10.3.0``.
    """

    trt: Any
    name: str
    version: str

    @property
    def library(self) -> str:
        """Name and version, as an engine's record has it."""
        return f"{self.name} {self.version}"

    @property
    def compiles_when_loaded(self) -> bool:
        """Whether engines are built without a GPU, for any, and finished where they are loaded."""
        return self.name == "tensorrt_rtx"

    def network_flags(self) -> int:
        """Flags of a strongly typed network: precision is what the graph says, and nothing else.

        The number behind the name is 1 in version 10 and 0 in version 11.
        """
        return 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def logger(self) -> Any:
        """A logger that passes messages on to ``logging``, and keeps the errors.

        Returns:
            An ``ILogger`` with a list ``errors``.
        """
        trt = self.trt
        levels = {
            trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
            trt.ILogger.Severity.ERROR: logging.ERROR,
            trt.ILogger.Severity.WARNING: logging.INFO,
        }

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                level = levels.get(severity, logging.DEBUG)
                if level == logging.ERROR:
                    self.errors.append(message)
                    level = logging.INFO  # it becomes part of an exception
                log.log(level, "%s: %s", trt.__name__, message)

        return Log()

    def monitor(self, progress: Any) -> Any:
        """A progress monitor of a build.

        Args:
            progress: Called with the name of the phase, steps done and steps in all.
        """
        trt = self.trt
        if not hasattr(trt, "IProgressMonitor"):
            return None

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self.totals: dict[str, int] = {}

            def phase_start(self, phase_name: str, parent_phase: str | None, steps: int) -> None:
                self.totals[phase_name] = steps
                progress(phase_name, 0, steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                progress(phase_name, step + 1, self.totals.get(phase_name, step + 1))
                return True

            def phase_finish(self, phase_name: str) -> None:
                steps = self.totals.pop(phase_name, 0)
                progress(phase_name, steps, steps)

        return Monitor()

    def engine_obstacle(self, runtime: Any, data: bytes) -> str | None:
        """Why a serialised engine cannot be loaded, as far as the library tells beforehand."""
        if not hasattr(runtime, "get_engine_validity"):
            return None
        validity, diagnostics = runtime.get_engine_validity(data)
        if validity == self.trt.EngineValidity.INVALID:
            return f"{self.library} calls it invalid here (diagnostics: {diagnostics})"
        return None

    def device_memory(self, engine: Any) -> int:
        """Bytes of the GPU's memory that one context of an engine takes beside weights."""
        if hasattr(engine, "device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def layers(self, engine: Any) -> list[dict[str, str]]:
        """Name and type of each layer of an engine, in the order in which they run."""
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return parse_layers(text)


def parse_layers(text: str) -> list[dict[str, str]]:
    """Name and type of each layer in an engine inspector's report.

    The report lists the inputs and outputs too, under another name in 11 than in 10.
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
    """The TensorRT that is installed.

    Args:
        library: One of :data:`LIBRARIES`; the first that is installed when absent.
        build: Whether it is to build: TensorRT-RTX does so without a GPU.

    Raises:
        EngineError: There is none, or no GPU that it can use: asked before any of its objects is
            made, since without a driver they take the process down.
    """
    api = installed_tensorrt(library)
    obstacle = driver_obstacle()
    if obstacle is not None and not (build and api.compiles_when_loaded):
        raise EngineError(obstacle)
    return api


def installed_tensorrt(library: str | None = None) -> TensorrtApi:
    """The TensorRT that can be imported; whether it can run is not asked.

    Raises:
        EngineError: There is none; says how to install it on this machine.
    """
    failures = []
    for name in LIBRARIES if library is None else (library,):
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a library that is missing is an OSError, or anything
            failures.append(f"{name}: {error}")
        else:
            return TensorrtApi(module, name, str(module.__version__))
    raise EngineError(
        f"TensorRT cannot be imported ({'; '.join(failures)}); {how_to_install(library)}"
    )


def how_to_install(library: str | None = None) -> str:
    """The commands that install TensorRT on this machine, as a sentence."""
    if library == "tensorrt_rtx":
        return "install it: pip install tensorrt-rtx"
    if sys.platform == "darwin":
        return "there is no TensorRT for macOS; use provider='cpu'"
    if is_jetson():
        return (
            "JetPack brings it, as a system package: sudo apt install python3-libnvinfer; a "
            "virtual environment sees it when it was made with python3 -m venv "
            f"--system-site-packages. Then: {_extra()}"
        )
    return (
        f"its libraries come from NVIDIA's own index: {_extra()} tensorrt-cu{_cuda_major()} "
        "--extra-index-url https://pypi.nvidia.com"
    )


def _extra() -> str:
    """The command that installs the CUDA layer in the line that fits the driver."""
    major = _cuda_major()
    return f"pip install 'rillet[tensorrt]' 'cuda-python=={major}.*'"


def _cuda_major() -> int:
    """The newest CUDA that the driver speaks, 12 or 13; 12 where there is no driver to ask."""
    with contextlib.suppress(EngineError):
        return 13 if int(find_gpu().driver.split(".")[0]) >= 13 else 12
    return 12


def is_jetson() -> bool:
    """Whether this machine is a Jetson, which gets TensorRT with its system."""
    if platform.machine() != "aarch64":
        return False
    return Path("/etc/nv_tegra_release").exists() or Path("/etc/nv_boot_control.conf").exists()
