"""The convenience front: one line each does the whole job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..runtime.errors import UsageError
from .loop.progress import TrainingProgress
from .loop.trainer import TrainingResult
from .pipeline import DualCNNPipeline

__all__ = ["LSMLite"]


class LSMLite:
    """From a text to a generator in one line, without a thought about the parts.

    ::

        lite = LSMLite()
        lite.quick_dual_cnn_train("my-notes.txt", steps=400)
        print(lite.dual_cnn_generate("Dear "))

    :meth:`train` and :meth:`generate` do the same with a single CNN over a standard
    reservoir, which is smaller and faster.

    Attributes:
        dual: The pipeline of the dual CNN, once it is set up.
        single: The pipeline of the single CNN, once it is trained.
    """

    def __init__(self) -> None:
        self.dual: DualCNNPipeline | None = None
        self.single: DualCNNPipeline | None = None

    def setup_dual_cnn_pipeline(
        self, corpus: str | Path | Sequence[str | Path], **options: Any
    ) -> DualCNNPipeline:
        """Set up a dual CNN on a text; see :meth:`DualCNNPipeline.fit_and_initialize`."""
        self.dual = DualCNNPipeline.fit_and_initialize(corpus, **options)
        return self.dual

    def quick_dual_cnn_train(
        self,
        corpus: str | Path | Sequence[str | Path] | None = None,
        folder: str | Path | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        **options: Any,
    ) -> TrainingResult:
        """Set up a dual CNN, unless that was done before, and train it.

        Args:
            corpus: The text; none when the pipeline is set up.
            folder: Where checkpoints are kept; nowhere when absent.
            on_progress: Called at each progress report.
            **options: As for :meth:`setup_dual_cnn_pipeline`; settings of training when the
                pipeline is set up.

        Raises:
            UsageError: There is neither a text nor a pipeline.
        """
        if corpus is not None:
            return self.setup_dual_cnn_pipeline(corpus, **options).train(folder, on_progress)
        if self.dual is None:
            raise UsageError("there is nothing to train on; give a corpus")
        return self.dual.train(folder, on_progress, **options)

    def dual_cnn_generate(self, prompt: str = "", **options: Any) -> str:
        """Generate with the dual CNN; see :meth:`DualCNNPipeline.generate`.

        Raises:
            UsageError: Nothing was trained.
        """
        if self.dual is None:
            raise UsageError("no dual CNN was trained; call quick_dual_cnn_train first")
        return self.dual.generate(prompt, **options)

    def train(
        self,
        corpus: str | Path | Sequence[str | Path],
        folder: str | Path | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        **options: Any,
    ) -> TrainingResult:
        """Train a single CNN over a standard reservoir on a text."""
        shape = {"architecture": "single_cnn", "reservoir": "standard"}
        self.single = DualCNNPipeline.fit_and_initialize(corpus, **{**shape, **options})
        return self.single.train(folder, on_progress)

    def generate(self, prompt: str = "", **options: Any) -> str:
        """Generate with the single CNN.

        Raises:
            UsageError: Nothing was trained.
        """
        if self.single is None:
            raise UsageError("no single CNN was trained; call train first")
        return self.single.generate(prompt, **options)
