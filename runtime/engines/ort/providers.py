"""Execution providers: which one runs a model here, and why another one cannot."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from ...errors import EngineError
from ..cuda.driver import driver_obstacle

__all__ = [
    "PROVIDERS",
    "candidates",
    "create_session",
    "installed_engines",
    "mixed_up_engines",
    "node_owner",
    "obstacle",
]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What users call each provider, and what ONNX Runtime does."""

_ENGINE_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
)


def candidates(provider: str, allow_fallback: bool) -> list[str]:
    """The providers to try, best first.

    Args:
        provider: One of :data:`PROVIDERS`, or ``auto``.
        allow_fallback: Whether the CPU will do where the provider cannot run.

    Raises:
        EngineError: There is no such provider.
    """
    if provider == "auto":
        # TensorRT is not tried unasked: it may build an engine for a minute.
        found = "CUDAExecutionProvider" in _onnxruntime().get_available_providers()
        return ["cuda", "cpu"] if found else ["cpu"]
    if provider not in PROVIDERS:
        raise EngineError(
            f"provider {provider!r} is not one that this rillet can run; use "
            f"{', '.join(map(repr, PROVIDERS))} or 'auto'"
        )
    return [provider, "cpu"] if allow_fallback and provider != "cpu" else [provider]


def obstacle(provider: str) -> str | None:
    """Why a provider cannot run here, as far as that can be told before it is tried.

    ONNX Runtime's own list says what was compiled in, not what works; and a GPU provider whose
    libraries or driver are missing goes over to the CPU with no exception.
    """
    if provider == "cpu":
        return None
    ort = _onnxruntime()
    if PROVIDERS[provider] not in ort.get_available_providers():
        what = (
            f"the installed onnxruntime {ort.__version__} was built without "
            f"{PROVIDERS[provider]}; replace it: pip uninstall onnxruntime, then "
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
    provider: str,
    threads: int,
    provider_options: dict[str, dict[str, str]] | None = None,
) -> Any:
    """Load a graph on one provider, and on no other.

    Args:
        model: The graph's path, or its content.
        provider: One of :data:`PROVIDERS`.
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
    wanted = PROVIDERS[provider]
    if provider == "cpu":
        # An arena keeps the most that a call ever took: 6 MB of prefill, and no time is saved.
        options.enable_cpu_mem_arena = False
        return ort.InferenceSession(model, options, providers=[wanted])
    with contextlib.suppress(Exception):
        # Only newer versions know this entry; without it the order of providers must do.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if hasattr(ort, "preload_dlls"):
        # Finds CUDA libraries that pip installed. It prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    names = ["tensorrt", "cuda", "cpu"] if provider == "tensorrt" else [provider, "cpu"]
    chain = [(PROVIDERS[name], (provider_options or {}).get(name, {})) for name in names]
    session = ort.InferenceSession(model, options, providers=chain, enable_fallback=0)
    if session.get_providers()[0] != wanted:
        raise EngineError(
            f"onnxruntime went over to {session.get_providers()[0]} without an error, as it does "
            f"where the libraries of {wanted} are missing or do not fit its version "
            f"({ort.__version__}); its messages on stderr name the library"
        )
    if node_owner(session) == "CPUExecutionProvider":
        raise EngineError(f"{wanted} took none of the graph's nodes")
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
