"""What may be chosen about an export."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.errors import UsageError
from .graphs.opset import OPSET, check_opset
from .parity.gate import STEPS

__all__ = ["ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: The ONNX opset of the graphs.
        static_batch: Write one more decoding graph whose batch is fixed to this size, for
            engines that want that.
        last_logits: Let the prefill graph predict after the last token of a call only. Prompts
            are read faster; texts are then scored step by step.
        generate: Write the graph that generates inside itself.
        genai: Write the files that let onnxruntime-genai drive the model.
        onnxruntime_only: Write the decoding graph in a form that is faster on ONNX Runtime and
            that TensorRT cannot read; see :mod:`.scatter_read`.
        parity_steps: Tokens of real text that each graph must agree with PyTorch on.

    Raises:
        UsageError: A value can never work.
    """

    opset: int = OPSET
    static_batch: int | None = None
    last_logits: bool = False
    generate: bool = True
    genai: bool = False
    onnxruntime_only: bool = False
    parity_steps: int = STEPS

    def __post_init__(self) -> None:
        check_opset(self.opset)
        for name in ("static_batch", "parity_steps"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} is {value!r}; it must be a whole number, 1 or above")
