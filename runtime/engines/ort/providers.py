"""Execution providers: which one runs a model here, and why another one cannot."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from ...errors import EngineError
from ..base import Provider
from ..cuda.driver import driver_obstacle

__all__ = [
    "ORT_NAMES",
    "create_session",
    "has_cuda",
    "installed_engines",
    "mixed_up_engines",
    "node_owner",
    "obstacle",
]

ORT_NAMES: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What ONNX Runtime calls each provider."""

_ENGINE_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
)


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime was built with CUDA; whether it works is not asked."""
    return ORT_NAMES["cuda"] in _onnxruntime().get_available_providers()


def obstacle(provider: Provider) -> str | None:
    """Why a provider cannot run here, as far as that can be told before it is tried.

    ONNX Runtime's own list says what was compiled in, not what works; and a GPU provider whose
    libraries or driver are missing goes over to the CPU with no exception.
    """
    if provider == "cpu":
        return None
    ort = _onnxruntime()
    if ORT_NAMES[provider] not in ort.get_available_providers():
        what = (
            f"the installed onnxruntime {ort.__version__} was built without "
            f"{ORT_NAMES[provider]}; replace it: pip uninstall onnxruntime, then "
            "pip install 'rillet[gpu]'"
        )
        return mixed_up_engines() or what
    return driver_obstacle()


def installed_engines() -> dict[str, str]:
    """Installed packages that bring ONNX Runtime, with their versions."""
    from importlib import metadata  # takes as long as half of our other imports

    found = {}
    for package in _ENGINE_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def mixed_up_engines() -> str | None:
    """A sentence where several packages share ONNX Runtime's folder; ``None`` where all is well."""
    found = installed_engines()
    if len(found) < 2:
        return None
    names = " and ".join(found)
    return (
        f"{names} are both installed, and they share one folder, so that the last one wins and "
        f"removing either breaks the other; uninstall both, then install one: pip uninstall "
        f"{' '.join(found)}"
    )


def create_session(
    model: str | bytes,
    provider: Provider,
    threads: int,
    provider_options: dict[Provider, dict[str, str]] | None = None,
) -> Any:
    """Load a graph on one provider, and on no other.

    Args:
        model: The graph's path, or its content.
        provider: The provider.
        threads: Threads that one call may use.
        provider_options: Options of ONNX Runtime's providers, by what users call them.

    Raises:
        EngineError: The provider cannot run here.
    """
    reason = obstacle(provider)
    if reason is not None:
        raise EngineError(reason)
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    requested = ORT_NAMES[provider]
    if provider == "cpu":
        # An arena keeps the most that a call ever took: 6 MB of prefill, and no time is saved.
        options.enable_cpu_mem_arena = False
        return ort.InferenceSession(model, options, providers=[requested])
    with contextlib.suppress(Exception):
        # Only newer versions know this entry; without it the order of providers must do.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if hasattr(ort, "preload_dlls"):
        # Finds CUDA libraries that pip installed. It prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    names: list[Provider] = ["tensorrt", "cuda"] if provider == "tensorrt" else [provider]
    names.append("cpu")
    chain = [(ORT_NAMES[name], (provider_options or {}).get(name, {})) for name in names]
    session = ort.InferenceSession(model, options, providers=chain, enable_fallback=0)
    if session.get_providers()[0] != requested:
        raise EngineError(
            f"onnxruntime went over to {session.get_providers()[0]} without an error, as it does "
            f"where the libraries of {requested} are missing or do not fit its version "
            f"({ort.__version__}); its messages on stderr name the library"
        )
    if node_owner(session) == "CPUExecutionProvider":
        raise EngineError(f"{requested} took none of the graph's nodes")
    return session


def node_owner(session: Any) -> str:
    """The provider that owns most of a graph's nodes."""
    try:
        owners = [part.ep_name for part in session.get_provider_graph_assignment_info()
                  for _ in part.get_nodes()]  # fmt: skip
    except Exception:  # absent from older versions, and an error where nothing was recorded
        owners = []
    return max(set(owners), key=owners.count) if owners else str(session.get_providers()[0])


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            "no inference engine is installed; install one with: pip install 'rillet[cpu]'"
        ) from error
    return onnxruntime
