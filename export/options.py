"""The options of an export."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..runtime.errors import UsageError
from .graphs.opset import OPSET, check_opset
from .parity.gate import STEPS

__all__ = ["ExportOptions", "check_count"]


@dataclass(frozen=True)
class ExportOptions:
    """How to export a checkpoint.

    Attributes:
        opset: ONNX opset of the graphs.
        static_batch: Also write a decoding graph whose batch is fixed to this size, for engines
            that need static shapes.
        last_logits: Let the prefill graph predict only after the last token of a call. Prompts
            are read faster; texts are then scored step by step.
        generate: Write the graph that generates text inside itself.
        genai: Write the files that onnxruntime-genai needs.
        onnxruntime_only: Write the decoding graph in a form that is faster on ONNX Runtime and
            that TensorRT cannot read; see :mod:`.scatter_read`.
        parity_steps: Tokens of real text on which each graph must agree with PyTorch.
        text_sample: Let the bundle carry the checkpoint's sample of the run's text, on which its
            precision can be lowered. Otherwise, nothing of that text is in the bundle.

    Raises:
        UsageError: A value is out of range.
    """

    opset: int = OPSET
    static_batch: int | None = None
    last_logits: bool = False
    generate: bool = True
    genai: bool = False
    onnxruntime_only: bool = False
    parity_steps: int = STEPS
    text_sample: bool = True

    def __post_init__(self) -> None:
        check_opset(self.opset)
        if self.static_batch is not None:
            check_count("static_batch", self.static_batch, 1)
        check_count("parity_steps", self.parity_steps, 1)

    def arguments(self) -> list[str]:
        """The options of ``rillet export`` that differ from the defaults."""
        arguments = []
        for field in dataclasses.fields(self):
            value, option = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if value == field.default:
                continue
            if value is False:
                option = option.replace("--", "--no-")
            arguments += [option] if isinstance(value, bool) else [option, str(value)]
        return arguments


def check_count(name: str, value: object, least: int) -> None:
    """Check that an option is a whole number of at least ``least``.

    Raises:
        UsageError: It is something else.
    """
    if type(value) is not int or value < least:
        raise UsageError(f"{name} is {value!r}; it must be a whole number, {least} or above")
