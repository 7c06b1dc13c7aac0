"""The ONNX versions that graphs may be written in."""

from __future__ import annotations

from ...runtime.errors import UsageError

__all__ = ["IR_VERSION", "NEWEST", "OPSET", "check_opset", "ir_version"]

OPSET = 18
IR_VERSION = 10
"""The newest pair that TensorRT 10.3 and ONNX Runtime 1.23 on Python 3.10 both read."""

NEWEST = 23
"""The newest opset that ONNX Runtime 1.23 reads."""


def check_opset(opset: int) -> None:
    """Reject an opset that cannot express the model or that engines cannot read.

    Raises:
        UsageError: The opset is too old or too new.
    """
    if opset < OPSET:
        raise UsageError(
            f"opset {opset} cannot express the model, whose graphs need axes as inputs and "
            f"splits into a number of parts, added in opset {OPSET}; use {OPSET}"
        )
    if opset > NEWEST:
        raise UsageError(
            f"opset {opset} is newer than opset {NEWEST}, the newest that ONNX Runtime 1.23 reads; "
            f"use {OPSET} to {NEWEST} ({OPSET} for TensorRT 10.3)"
        )


def ir_version(opset: int) -> int:
    """The IR version to write with an opset: the oldest that supports it, at least 10."""
    return IR_VERSION if opset <= 21 else IR_VERSION + 1
