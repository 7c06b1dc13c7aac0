"""The options of an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import UsageError
from ..runtime.sampling.params import SamplingParams
from ..train.budget import parse_size
from ..train.data.text_sources import recorded_names
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
        teach: Texts that the memory reads, in the forms of ``rillet train --corpus``: streams of
            the bundle begin with what it has learnt. For a memory of contexts.
        memory_size: Size of a memory of contexts, such as ``1MiB``, or in bytes; as the model was
            trained by default.
        temperature: Default temperature of the bundle; 0.8 by default.
        top_p: Default top-p of the bundle; 1 by default, which keeps all tokens.
        min_p: Default min-p of the bundle; 0 by default, which keeps all tokens.
        native_only: Write no graphs, but weights for the native engine alone: a bundle of a
            quarter of the size.

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
    teach: str | Path | Sequence[str | Path] = ()
    memory_size: str | int | None = None
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    native_only: bool = False

    def __post_init__(self) -> None:
        check_opset(self.opset)
        if self.static_batch is not None:
            check_count("static_batch", self.static_batch, 1)
        check_count("parity_steps", self.parity_steps, 1)
        self._check_native_only()
        _ = self.memory_bytes  # raises if it is no size
        SamplingParams(**self.sampling)  # raises if a value can never work
        if self.genai and self.texts:
            raise UsageError(
                "onnxruntime-genai begins every stream at zeros, and a taught bundle's begin with "
                "what it was taught; leave out --genai or --teach"
            )

    def _check_native_only(self) -> None:
        graphs = {
            "--static-batch": self.static_batch is not None,
            "--last-logits": self.last_logits,
            "--genai": self.genai,
            "--onnxruntime-only": self.onnxruntime_only,
        }
        for option in (option for option, given in graphs.items() if self.native_only and given):
            raise UsageError(
                f"{option} is about graphs, and --native-only writes none; leave one of them out"
            )

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to teach, by name."""
        if isinstance(self.teach, str | Path):
            return (str(self.teach),)
        return tuple(map(str, self.teach))

    @property
    def memory_bytes(self) -> int | None:
        """Size of the memory in bytes; ``None`` for the size that the model was trained with."""
        if isinstance(self.memory_size, str):
            return parse_size(self.memory_size)
        if self.memory_size is not None:
            check_count("memory_size", self.memory_size, 1)
        return self.memory_size

    @property
    def sampling(self) -> dict[str, Any]:
        """The default sampling that was chosen, by the names of ``generation_config.json``."""
        chosen = {"temperature": self.temperature, "top_p": self.top_p, "min_p": self.min_p}
        return {name: value for name, value in chosen.items() if value is not None}

    def arguments(self) -> list[str]:
        """The options of ``rillet export`` that differ from the defaults."""
        arguments = []
        for field in dataclasses.fields(self):
            value, option = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if value == field.default:
                continue
            if field.name == "teach":
                arguments += [
                    word for name in recorded_names(self.texts) for word in (option, name)
                ]
                continue
            if field.name == "memory_size" and isinstance(value, int):
                value = f"{value}B"
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
