"""Number format of the network's matrix products."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

__all__ = ["autocast_dtype", "full_precision", "low_precision"]


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Choose the autocast type for a precision on a device.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto``.
        device: Device that trains.

    Returns:
        ``torch.bfloat16``, or ``None`` for float32. ``auto`` chooses bfloat16 where the
        hardware multiplies it faster: on a CPU with AVX-512 BF16 or AMX instructions, and on
        a GPU that supports it.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if _cpu_has_bfloat16() else None


def low_precision(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Compute matrix products in a 16-bit type; ``None`` changes nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Suspend :func:`low_precision`."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _cpu_has_bfloat16() -> bool:
    # The checks of torch.cpu are private; every Linux kernel lists the processor's flags.
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16"))
