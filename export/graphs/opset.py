"""Which versions of ONNX the graphs may be written in."""

from __future__ import annotations

from ...runtime.errors import UsageError

__all__ = ["IR_VERSION", "NEWEST", "OPSET", "check_opset", "ir_version"]

OPSET = 18
IR_VERSION = 10
"""The newest pair that TensorRT 10.3 and ONNX Runtime 1.23 on Python 3.10 both read."""

NEWEST = 23
"""The newest opset that ONNX Runtime 1.23 reads."""


def check_opset(opset: int) -> None:
    """Refuse an opset that cannot hold the model, or that the engines cannot read.

    Raises:
        UsageError: Says why.
    """
    if opset < OPSET:
        raise UsageError(
            f"opset {opset} cannot hold the model: its graphs reduce over axes that are inputs "
            f"and split into a number of parts, which came with opset {OPSET}; use {OPSET}"
        )
    if opset > NEWEST:
        raise UsageError(
            f"opset {opset} is newer than the {NEWEST} that ONNX Runtime 1.23 reads; use "
            f"{OPSET} to {NEWEST} ({OPSET} where TensorRT 10.3 is to read the graphs)"
        )


def ir_version(opset: int) -> int:
    """The IR version to write with an opset: the oldest that allows it, and at least 10."""
    return IR_VERSION if opset <= 21 else IR_VERSION + 1
