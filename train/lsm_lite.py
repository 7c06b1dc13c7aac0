"""A convenience interface: train and generate in one line each."""

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
    """Trains and generates in one line each, with default settings.

    ::

        lite = LSMLite()
        lite.quick_dual_cnn_train("my-notes.txt", steps=400)
        print(lite.dual_cnn_generate("Dear "))

    :meth:`train` and :meth:`generate` do the same with a single CNN over a standard
    reservoir, which is smaller and faster.

    Attributes:
        dual: Pipeline of the dual CNN, once it is set up.
        single: Pipeline of the single CNN, once it is trained.
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
        *,
        resume: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> TrainingResult:
        """Train a dual CNN, setting it up first if a corpus is given.

        Args:
            corpus: The text; omit it if the pipeline is already set up.
            folder: Folder for checkpoints; none are written by default.
            on_progress: Called at each progress report.
            resume: Resume the run whose state is in the folder.
            overwrite: Replace a run that the folder already holds.
            **options: Options of :meth:`setup_dual_cnn_pipeline`; or, without a corpus,
                settings of training.

        Raises:
            UsageError: There is neither a corpus nor a pipeline.
        """
        if corpus is not None:
            self.setup_dual_cnn_pipeline(corpus, **options)
            options = {}
        if self.dual is None:
            raise UsageError("there is nothing to train on; pass a corpus")
        return self.dual.train(folder, on_progress, resume=resume, overwrite=overwrite, **options)

    def dual_cnn_generate(self, prompt: str = "", **options: Any) -> str:
        """Generate with the dual CNN; see :meth:`DualCNNPipeline.generate`.

        Raises:
            UsageError: No dual CNN is trained yet.
        """
        if self.dual is None:
            raise UsageError("no dual CNN is trained yet; call quick_dual_cnn_train first")
        return self.dual.generate(prompt, **options)

    def train(
        self,
        corpus: str | Path | Sequence[str | Path],
        folder: str | Path | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> TrainingResult:
        """Train a single CNN over a standard reservoir on a text."""
        shape = {"architecture": "single_cnn", "reservoir": "standard"}
        self.single = DualCNNPipeline.fit_and_initialize(corpus, **{**shape, **options})
        return self.single.train(folder, on_progress, resume=resume, overwrite=overwrite)

    def generate(self, prompt: str = "", **options: Any) -> str:
        """Generate with the single CNN.

        Raises:
            UsageError: No single CNN is trained yet.
        """
        if self.single is None:
            raise UsageError("no single CNN is trained yet; call train first")
        return self.single.generate(prompt, **options)
