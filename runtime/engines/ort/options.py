"""Options of ONNX Runtime's CUDA provider."""

from __future__ import annotations

__all__ = ["cuda_options"]


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
