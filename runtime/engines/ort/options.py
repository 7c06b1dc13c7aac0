"""Options of ONNX Runtime's GPU providers, and the key of what its TensorRT provider builds."""

from __future__ import annotations

import ctypes
from pathlib import Path

from ...files import sha256_file
from ...state_table import StateTensor
from ..cuda.driver import Gpu, find_gpu
from ..engine_key import EngineKey, this_platform
from .providers import import_onnxruntime

__all__ = ["cuda_options", "profile_shapes", "provider_key", "tensorrt_options"]


def cuda_options(graphs: bool) -> dict[str, str]:
    """Options of the CUDA provider.

    Args:
        graphs: Whether to capture each step as a CUDA graph.
    """
    return {
        "device_id": "0",
        # TF32 keeps ten bits of mantissa: not within the tolerance of float32.
        "use_tf32": "0",
        # The default times every algorithm at the first call, and may choose differently each time.
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1" if graphs else "0",
    }


def tensorrt_options(
    table: list[StateTensor], precision: str, folder: Path, largest_batch: int
) -> dict[str, str]:
    """Options of the TensorRT provider for the decoding graph.

    The profile spans every number of rows that a lane can have: a shape outside of it would
    rebuild the engine in the middle of a stream.

    Args:
        table: The state table.
        precision: The bundle's precision.
        folder: Where engines and timings are cached; its name says what they were built for.
        largest_batch: The most rows of a step.
    """
    options = {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": "decode",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        # The provider's networks are weakly typed: what the graph holds must be allowed too.
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
        "trt_int8_enable": "1" if precision == "int8" else "0",
    }
    for name, batch in (("min", 1), ("opt", 1), ("max", largest_batch)):
        options[f"trt_profile_{name}_shapes"] = profile_shapes(table, batch)
    return options


def profile_shapes(table: list[StateTensor], batch: int) -> str:
    """Shapes of all inputs of a step with this many rows, in the TensorRT provider's notation."""
    shapes = {"input_ids": (batch, 1), "learn": (batch,)}
    shapes |= {row.past: (batch, *row.shape) for row in table}
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def provider_key(path: Path, precision: str, gpu: Gpu | None = None) -> EngineKey:
    """The key of what ONNX Runtime's TensorRT provider builds from a graph.

    Args:
        path: The graph's file.
        precision: The bundle's precision.
        gpu: The GPU; the machine's first by default.
    """
    gpu = gpu or find_gpu()
    return EngineKey(
        graph=path.stem,
        graph_sha256=sha256_file(path),
        precision=precision,
        library=f"onnxruntime-{import_onnxruntime().__version__}-tensorrt {_libnvinfer()}",
        gpu=gpu.name,
        capability=gpu.capability,
        driver=gpu.driver,
        platform=this_platform(),
    )


def _libnvinfer() -> str:
    """Version of the TensorRT library that ONNX Runtime would load, such as ``10.3.0``."""
    for name in ("libnvinfer.so.10", "nvinfer_10.dll"):
        try:
            number = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return "unknown"
