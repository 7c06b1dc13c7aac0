"""Options of ONNX Runtime's GPU providers."""

from __future__ import annotations

from pathlib import Path

from ...state_table import StateTensor

__all__ = ["cuda_options", "tensorrt_options"]


def cuda_options(graphs: bool) -> dict[str, str]:
    """Options of the CUDA provider.

    Args:
        graphs: Whether to capture each step as a CUDA graph.
    """
    return {
        "device_id": "0",
        # Ten bits of mantissa are what TF32 keeps: not within the tolerance of float32.
        "use_tf32": "0",
        # The default times every algorithm at the first call, and may choose otherwise each time.
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1" if graphs else "0",
    }


def tensorrt_options(
    state: list[StateTensor], precision: str, folder: Path, largest_batch: int
) -> dict[str, str]:
    """Options of the TensorRT provider for the decoding graph.

    Engines and timings are kept in a folder whose name says what they were made for. The
    profile spans every number of rows that a lane can have: a shape outside of it would have the
    engine built again in the middle of a stream.

    Args:
        state: The state table.
        precision: The bundle's precision.
        folder: Where the caches are.
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
        options[f"trt_profile_{name}_shapes"] = profile_shapes(state, batch)
    return options


def profile_shapes(state: list[StateTensor], batch: int) -> str:
    """Shapes of every input of a step with this many rows, as the TensorRT provider reads them."""
    shapes = {"input_ids": (batch, 1), "learn": (batch,)}
    shapes |= {row.past: (batch, *row.shape) for row in state}
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
