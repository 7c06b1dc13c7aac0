"""Which number format the network's matrix products are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

__all__ = ["autocast_dtype", "full_precision", "low_precision"]


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The short type that a precision stands for on a device.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto``.
        device: Where training runs.

    Returns:
        ``torch.bfloat16``, or ``None`` for float32. ``auto`` takes bfloat16 where the
        hardware multiplies it faster: on a CPU with AVX-512 BF16 or AMX instructions, and on
        a GPU that has it.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if _cpu_has_bfloat16() else None


def low_precision(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Matrix products in a short type; as they are where there is none."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Inside of :func:`low_precision`, products as they are again."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _cpu_has_bfloat16() -> bool:
    # torch.cpu's own checks are private; the kernel's list is there on every Linux.
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16"))
