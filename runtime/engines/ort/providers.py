"""ONNX Runtime's execution providers: what is installed, what works, and sessions on them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

from ...errors import EngineError
from ..base import Provider
from ..cuda.driver import driver_obstacle

__all__ = [
    "ORT_NAMES",
    "create_session",
    "has_cuda",
    "import_onnxruntime",
    "installed_engines",
    "mixed_up_engines",
    "node_owner",
    "obstacle",
]

ORT_NAMES: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
"""What ONNX Runtime calls each provider."""

_CUDA_LIBRARY = "onnxruntime_providers_cuda"

_ENGINE_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        EngineError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            "no inference engine is installed; install one with: pip install 'rillet[cpu]'"
        ) from error
    return onnxruntime


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime was built with CUDA; it may still not work.

    It is only looked for: importing it takes 20 MB and a third of the time to load a model.

    Raises:
        EngineError: It is not installed.
    """
    found = importlib.util.find_spec("onnxruntime")
    if found is None:
        import_onnxruntime()  # says so
    folders = (found and found.submodule_search_locations) or ()
    return any(any(Path(folder).glob(f"capi/*{_CUDA_LIBRARY}*")) for folder in folders)


def obstacle(provider: Provider) -> str | None:
    """Say why a provider cannot run here, as far as can be known before trying; else ``None``.

    ONNX Runtime's own list says what was compiled in, not what works, and a GPU provider whose
    libraries or driver are missing falls back to the CPU without an exception.
    """
    if provider == "cpu":
        return None
    ort = import_onnxruntime()
    if ORT_NAMES[provider] not in ort.get_available_providers():
        reason = (
            f"the installed onnxruntime {ort.__version__} was built without "
            f"{ORT_NAMES[provider]}; replace it: pip uninstall onnxruntime, then "
            "pip install 'rillet[gpu]'"
        )
        return mixed_up_engines() or reason
    return driver_obstacle()


def installed_engines() -> dict[str, str]:
    """Installed packages that bring ONNX Runtime, with their versions."""
    from importlib import metadata  # takes as long as half of our other imports

    versions = {}
    for package in _ENGINE_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def mixed_up_engines() -> str | None:
    """Say which packages share ONNX Runtime's folder; ``None`` if there is just one."""
    packages = installed_engines()
    if len(packages) < 2:
        return None
    return (
        f"{' and '.join(packages)} are both installed in one folder, so the last one wins and "
        "removing either breaks the other; uninstall both, then install one: pip uninstall "
        f"{' '.join(packages)}"
    )


def create_session(
    model: str | bytes,
    provider: Provider,
    threads: int,
    provider_options: dict[str, str] | None = None,
) -> Any:
    """Load a graph on one provider, and on no other.

    Args:
        model: The graph's path, or its content.
        provider: The provider.
        threads: Threads that one call may use.
        provider_options: Options of this provider.

    Raises:
        EngineError: The provider cannot run here.
    """
    reason = obstacle(provider)
    if reason is not None:
        raise EngineError(reason)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    requested = ORT_NAMES[provider]
    if provider == "cpu":
        # An arena keeps the most that any call took: 6 MB of prefill, with no gain in speed.
        options.enable_cpu_mem_arena = False
        return ort.InferenceSession(model, options, providers=[requested])
    with contextlib.suppress(Exception):
        # Only newer versions know this entry; without it, the order of providers must do.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if hasattr(ort, "preload_dlls"):
        # Finds CUDA libraries that pip installed. It prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    chain = [(requested, provider_options or {}), (ORT_NAMES["cpu"], {})]
    session = ort.InferenceSession(model, options, providers=chain, enable_fallback=0)
    if session.get_providers()[0] != requested:
        raise EngineError(
            f"onnxruntime fell back to {session.get_providers()[0]} without an error, as it does "
            f"if the libraries of {requested} are missing or do not fit its version "
            f"({ort.__version__}); its messages on stderr name the library"
        )
    if node_owner(session) == "CPUExecutionProvider":
        raise EngineError(
            f"onnxruntime assigned none of the graph's nodes to {requested}; use another provider"
        )
    return session


def node_owner(session: Any) -> str:
    """The provider that owns most of a graph's nodes."""
    try:
        owners = [
            part.ep_name
            for part in session.get_provider_graph_assignment_info()
            for _ in part.get_nodes()
        ]
    except Exception:  # absent from older versions, and an error if nothing was recorded
        owners = []
    return max(set(owners), key=owners.count) if owners else str(session.get_providers()[0])
