"""Where engines that were built for this machine are kept, and what each was built for."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle import Bundle, checksum
from ..errors import EngineError
from ..files import sha256_bytes, sha256_file
from .cuda.driver import Gpu, find_gpu

__all__ = ["EngineKey", "cache_folder", "engine_folders", "provider_key"]


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from and for.

    Attributes:
        graph: Name of the graph, such as ``decode``.
        graph_sha256: Hash of its file.
        precision: Precision of the bundle; it lives in the graph.
        library: What built it, with its version, such as ``tensorrt 10.3.0``.
        gpu: Name of the GPU; ``any`` where the library compiles for it when it loads.
        capability: Compute capability of the GPU.
        driver: CUDA version of the driver.
        platform: Operating system and processor.
        batches: The numbers of rows that it steps.
        lengths: Least, best and most tokens of a call.
        version_compatible: Whether later versions of the library run it too.
        hardware_compatible: Whether other GPUs, from compute capability 8.0 on, run it too.
    """

    graph: str
    graph_sha256: str
    precision: str
    library: str
    gpu: str
    capability: str
    driver: str
    platform: str
    batches: tuple[int, ...] = (1,)
    lengths: tuple[int, ...] = (1, 1, 1)
    version_compatible: bool = False
    hardware_compatible: bool = False

    @property
    def digest(self) -> str:
        """A short name for all of it: equal only where everything is."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return sha256_bytes(text.encode())[:16]

    def to_dict(self) -> dict[str, Any]:
        """Everything as a JSON value."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, value: Any) -> EngineKey:
        """Read what :meth:`to_dict` gave.

        Raises:
            EngineError: It is something else.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if not isinstance(value, dict) or set(value) != set(fields):
            raise EngineError(
                "the record of the engine does not have the fields that rillet writes"
            )
        made: dict[str, Any] = {}
        for name, entry in value.items():
            kind = type(fields[name].default) if name in _WITH_DEFAULTS else str
            if kind is tuple:
                sound = isinstance(entry, list) and all(
                    type(size) is int and size > 0 for size in entry
                )
                made[name] = tuple(entry) if sound else None
            else:
                sound, made[name] = type(entry) is kind, entry
            if not sound:
                raise EngineError(f"the record of the engine has {name} = {entry!r}")
        return cls(**made)

    def misfit(self, here: EngineKey) -> str | None:
        """Why an engine with this key cannot be used for what another key asks; ``None`` if it can.

        Args:
            here: What is wanted: the graph as it is now, and this machine.
        """
        reasons = []
        if self.graph_sha256 != here.graph_sha256:
            reasons.append("another graph (the bundle was exported anew since)")
        if self.precision != here.precision:
            reasons.append(f"precision {self.precision}, and the bundle is {here.precision}")
        if self.library != here.library and not self._runs_on(here.library):
            reasons.append(f"{self.library}, and this machine has {here.library}")
        if not self._fits_gpu(here):
            reasons.append(
                f"{self.gpu} (compute capability {self.capability}), and this machine has "
                f"{here.gpu} ({here.capability})"
            )
        if self.platform != here.platform:
            reasons.append(f"{self.platform}, and this machine is {here.platform}")
        return "; ".join(reasons) or None

    def _runs_on(self, library: str) -> bool:
        """Whether a version-compatible engine runs on a later version of the same major."""
        (name, version), (other, newer) = self.library.split(" "), library.split(" ")
        mine, theirs = _numbers(version), _numbers(newer)
        return (
            self.version_compatible and name == other and mine[:1] == theirs[:1] and mine <= theirs
        )

    def _fits_gpu(self, here: EngineKey) -> bool:
        if self.gpu == "any" or (self.gpu, self.capability) == (here.gpu, here.capability):
            return True
        ampere = (8, 0)
        return (
            self.hardware_compatible
            and _numbers(self.capability) >= ampere
            and _numbers(here.capability) >= ampere
        )


_WITH_DEFAULTS = ("batches", "lengths", "version_compatible", "hardware_compatible")


def engine_folders(bundle: Bundle) -> list[Path]:
    """Where engines of a bundle may lie: beside it, and in the user's cache."""
    path = bundle.path.resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    own = f"{path.name}-{checksum(bundle.manifest)[:16]}"
    return [
        path.with_name(path.name + ".engines"),
        Path(cache).expanduser() / "rillet" / "engines" / own,
    ]


def cache_folder(bundle: Bundle) -> Path:
    """Where to keep what is built for a bundle; the folder exists.

    Beside the bundle and not inside: a bundle that is copied from another machine, or comes from
    a stranger, brings no engine with it. Where nothing can be written there, in the user's cache.

    Raises:
        EngineError: Nothing can be written in either.
    """
    failures = []
    for folder in engine_folders(bundle):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failures.append(f"{folder}: {error.strerror or error}")
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        failures.append(f"{folder}: it cannot be written in")
    raise EngineError(
        f"there is no folder to keep engines of {bundle.path} in ({'; '.join(failures)}); make one "
        "of them writable, or set XDG_CACHE_HOME"
    )


def provider_key(path: Path, precision: str, gpu: Gpu | None = None) -> EngineKey:
    """The key of what ONNX Runtime's TensorRT provider builds from a graph.

    Args:
        path: The graph's file.
        precision: The bundle's precision.
        gpu: The GPU; the machine's first when absent.
    """
    import onnxruntime

    gpu = gpu or find_gpu()
    return EngineKey(
        graph=path.stem,
        graph_sha256=sha256_file(path),
        precision=precision,
        library=f"onnxruntime-{onnxruntime.__version__}-tensorrt {_libnvinfer()}",
        gpu=gpu.name,
        capability=gpu.capability,
        driver=gpu.driver,
        platform=this_platform(),
    )


def this_platform() -> str:
    """Operating system and processor, such as ``linux-aarch64``."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def _libnvinfer() -> str:
    """Version of the TensorRT library that ONNX Runtime would load, such as ``10.3.0``."""
    for name in ("libnvinfer.so.10", "nvinfer_10.dll"):
        try:
            number = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    """A dotted version as numbers; what is not a number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
