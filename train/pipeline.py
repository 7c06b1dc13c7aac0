"""The pipeline: set up from a text, train, evaluate, generate, save and load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import ConfigError, UsageError
from ..runtime.files import make_folder
from ..runtime.sampling.sampler import SamplingParams
from ..runtime.streams.encoding import unknown_text
from ..runtime.tokenizer import Tokenizer
from .checkpoint import CHECKPOINT_FILE, Checkpoint, load_checkpoint, save_checkpoint
from .config.fields import suggestion
from .config.model_config import DualCNNConfig
from .config.presets import PRESETS
from .config.training_config import TrainingConfig
from .data.corpus import Corpus
from .data.streams import Split, split
from .data.tokenizers import Prepared, prepare
from .fallback import Fallback
from .generate import stream_text
from .loop.distributed import Group
from .loop.evaluation import Evaluation, evaluate
from .loop.progress import TrainingProgress
from .loop.resume import RunState
from .loop.trainer import DualCNNTrainer, TrainingResult
from .model.dual_cnn import DualCNN
from .setup import Parts, SetupProgress, set_up_model
from .waves.read import read_waves
from .waves.wave_buffer import RollingWaveBuffer

__all__ = ["DualCNNPipeline"]


@dataclass
class DualCNNPipeline:
    """Tokenizer and model, ready to train and generate.

    Create a pipeline from a text with :meth:`fit_and_initialize`, or from a run with
    :meth:`load`::

        pipeline = DualCNNPipeline.fit_and_initialize("my-notes.txt", preset="nano")
        pipeline.train(steps=800)
        print(pipeline.generate("Dear ", temperature=0.8, seed=7))
        pipeline.save("run")

    Attributes:
        model: The model; its parts are its attributes.
        tokenizer: Its tokenizer.
        corpus: The text as tokens; ``None`` in a loaded pipeline.
        split: The text split into training, validation and held-out parts; ``None`` in a
            loaded pipeline.
        fallbacks: Parts that could not be set up, and their replacements.
        training: How the model was trained and what was measured, as plain JSON values.
    """

    model: DualCNN
    tokenizer: Tokenizer
    _buffer: RollingWaveBuffer | None = None
    corpus: Prepared | None = None
    split: Split | None = None
    fallbacks: list[Fallback] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit_and_initialize(
        cls,
        corpus: str | Path | Sequence[str | Path] | Corpus | Prepared,
        config: DualCNNConfig | None = None,
        *,
        preset: str = "nano",
        tokenizer: Tokenizer | str | None = None,
        folder: str | Path | None = None,
        validation: str | Path | None = None,
        progress: Callable[[SetupProgress], None] | None = None,
        allow_fallback: bool = False,
        notify: Callable[[str], None] | None = None,
        parts: Parts | None = None,
        **changes: Any,
    ) -> DualCNNPipeline:
        """Set up everything that training needs from a text.

        Args:
            corpus: A text file, a folder, a name that :class:`Corpus` knows, several of
                these, or a corpus that is already opened or prepared.
            config: The configuration; by default, that of ``preset``.
            preset: Name of a configuration.
            tokenizer: A tokenizer, or ``char``, ``byte``, ``bpe`` or ``auto``; by default,
                the configuration's.
            folder: Folder for the tokens of a large corpus; needed above about 64 MB.
            validation: A separate text to hold out, instead of the end of the corpus.
            progress: Called before and after the set-up of each component.
            allow_fallback: Replace a part that cannot be set up with a simpler one, and
                record it, instead of failing.
            notify: Called with a sentence when the set-up deviates from the settings.
            parts: Replacements for parts of the model, by attribute name (``embedder``,
                ``reservoir``, ``read``, ``wave_cnn``, ``readout_cnn``, ``memory``): modules,
                or functions that build one from the configuration.
            **changes: Settings of the model or of its training to change.

        Raises:
            SetupError: A part cannot be set up; the message names it and what to change.
            ConfigError: Settings conflict.
            CorpusError: The text cannot be used.
        """
        if config is None:
            if preset not in PRESETS:
                raise UsageError(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
            config = PRESETS[preset]
        config = config.replace(**changes)
        prepared = _prepare(corpus, config, tokenizer, folder, progress)
        held_out = None
        if validation is not None:
            place = Path(folder) / "validation" if folder is not None else None
            other = prepare(Corpus(validation), prepared.tokenizer, place)
            held_out = other.tokens
            if other.unknown and notify is not None:
                notify(f"of {validation}, {unknown_text(list(other.unknown))}")
        texts = split(prepared.tokens, config.training, held_out)
        config = _fit_batch(config, len(texts.trained), notify)
        config = config.replace(vocab_size=prepared.tokenizer.vocab_size)
        ready = set_up_model(
            config, texts.trained.tokens, parts or {}, progress, allow_fallback, notify
        )
        training = {
            "corpus": _listed(prepared.names),
            "corpus_sha256": prepared.sha256,
            "characters": prepared.characters,
            "trained_tokens": len(texts.trained),
            "parameters": ready.model.parameter_count(),
            "torch": torch.__version__,
            "config": ready.model.config.training.to_dict(),
        }
        if ready.fallbacks:
            training["fallbacks"] = [str(fallback) for fallback in ready.fallbacks]
        return cls(
            ready.model,
            prepared.tokenizer,
            corpus=prepared,
            split=texts,
            fallbacks=ready.fallbacks,
            training=training,
        )

    @classmethod
    def load(cls, run: str | Path) -> DualCNNPipeline:
        """Load a pipeline from the folder of a run, ready to generate.

        Raises:
            BundleError: The checkpoint is missing, damaged, or of an incompatible version.
        """
        checkpoint = load_checkpoint(Path(run))
        return cls(checkpoint.model, checkpoint.tokenizer, training=checkpoint.training)

    @property
    def config(self) -> DualCNNConfig:
        """The model's configuration, which reflects any fallbacks."""
        return self.model.config

    @property
    def buffer(self) -> RollingWaveBuffer:
        """A rolling wave buffer that fits the model, filled by :meth:`read`.

        It is made when first asked for: training does without it, so a memory too large to hold
        beside its waves stops only the inspection.

        Raises:
            ConfigError: The buffer would take more than 1 GB.
        """
        if self._buffer is None:
            self._buffer = RollingWaveBuffer.from_config(self.config)
        return self._buffer

    def checkpoint(self) -> Checkpoint:
        """Collect model, tokenizer and provenance, for saving and exporting."""
        return Checkpoint(self.model.eval(), self.tokenizer, self.training)

    def train(
        self,
        folder: str | Path | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        until: int | None = None,
        group: Group | None = None,
        notify: Callable[[str], None] | None = None,
        **changes: Any,
    ) -> TrainingResult:
        """Train both CNNs on the pipeline's corpus.

        Args:
            folder: Folder for checkpoints; none are written by default.
            on_progress: Called at each progress report.
            resume: Resume the run whose state is in the folder.
            overwrite: Replace a run that the folder already holds.
            until: Stop after this step, as if interrupted.
            group: The processes that train together.
            notify: Called with a sentence when training deviates from its settings.
            **changes: Settings of training to change.

        Returns:
            The outcome of training.

        Raises:
            UsageError: The pipeline was loaded and has no corpus, or the folder holds a run.
            ConfigError: A setting is unknown, or settings conflict.
            TrainingError: Training cannot continue.
        """
        if self.split is None or self.corpus is None:
            raise UsageError(
                "this pipeline was loaded and has no text to train on; create one with "
                "fit_and_initialize"
            )
        config = self.config.training.replace(**_check_known(changes))
        self.model.config = self.config.replace(training=config)
        self.training["config"] = config.to_dict()
        place = None if folder is None else Path(folder)
        if place is not None:
            if (place / CHECKPOINT_FILE).exists() and not (resume or overwrite):
                raise UsageError(
                    f"{place} already holds a checkpoint; choose another folder, or pass "
                    "resume=True to continue it or overwrite=True to replace it"
                )
            make_folder(place)

        def save(model: DualCNN, run: RunState) -> None:
            if place is not None:
                training = {**self.training, "steps": run.step}
                if run.best_step:
                    training["validation_loss"] = run.best_loss
                save_checkpoint(place, Checkpoint(model, self.tokenizer, training))

        about = {"corpus": self.corpus.sha256}
        trainer = DualCNNTrainer(self.model, config, group, place, save, about, notify)
        result = trainer.train(
            self.split.trained,
            self.split.validation,
            on_progress,
            resume=resume,
            until=until,
            characters_per_token=self.corpus.characters / max(1, len(self.corpus.tokens)),
        )
        self.training["steps"] = result.best_step
        self.training["seconds"] = round(trainer.run.seconds, 1)
        if result.validation_loss is not None:
            self.training["validation_loss"] = result.validation_loss
        return result

    def evaluate(self, progress: Callable[[int], None] | None = None) -> Evaluation | None:
        """Measure the held-out text as one stream from zeros, and record the losses.

        Args:
            progress: Called after each chunk with the number of tokens in it.

        Returns:
            The losses; ``None`` if nothing was held out.
        """
        if self.split is None or len(self.split.held_out) < 2:
            return None
        text = self.split.held_out[: self.config.training.held_out_tokens + 1]
        evaluation = evaluate(self.model, text, progress=progress)
        self.training["held_out"] = dataclasses.asdict(evaluation)
        return evaluation

    def stream(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 200,
        learn: str = "read",
        seed_text: str = "",
        **sampling: Any,
    ) -> Iterator[str]:
        """Generate text piece by piece.

        Args:
            prompt: The text to continue.
            max_new_tokens: Number of tokens to generate.
            learn: What the memory stores: ``read`` for the text that is read, ``all`` for the
                generated text as well, or ``none``.
            seed_text: A text to read first, to fill the memory.
            **sampling: Fields of :class:`SamplingParams`.

        Returns:
            An iterator over pieces of text.
        """
        params = SamplingParams(**{"temperature": 0.8, **sampling})
        return stream_text(
            self.model, self.tokenizer, prompt, params, max_new_tokens, learn, seed_text
        )

    def generate(self, prompt: str = "", **options: Any) -> str:
        """Generate a text; takes the arguments of :meth:`stream`."""
        return "".join(self.stream(prompt, **options))

    def read(self, text: str) -> RollingWaveBuffer:
        """Read a text as a new stream, and return the wave buffer with its waves."""
        self.buffer.clear()
        waves, _ = read_waves(self.model, torch.tensor(self.tokenizer.encode(text)))
        for wave in waves:
            self.buffer.append(wave)
        return self.buffer

    def save(self, folder: str | Path) -> Path:
        """Write the checkpoint, for :meth:`load` and for exporting a bundle.

        Returns:
            Path of the checkpoint.
        """
        place = Path(folder)
        make_folder(place)
        return save_checkpoint(place, self.checkpoint())


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _prepare(
    corpus: str | Path | Sequence[str | Path] | Corpus | Prepared,
    config: DualCNNConfig,
    tokenizer: Tokenizer | str | None,
    folder: str | Path | None,
    progress: Callable[[SetupProgress], None] | None,
) -> Prepared:
    """Encode the corpus: the first component, and the slowest for a large corpus."""
    notify = progress or (lambda report: None)
    if isinstance(corpus, Prepared):
        prepared = corpus
    else:
        opened = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
        kind = tokenizer or config.training.tokenizer
        size = config.training.bpe_vocab if kind == "bpe" else None
        place = None if folder is None else Path(folder)

        def read(what: str, done: int, total: int) -> None:
            notify(SetupProgress("tokenizer", 0, fraction=done / max(1, total)))

        notify(SetupProgress("tokenizer", 0))
        prepared = prepare(opened, kind, place, read, vocab_size=size)
    detail = f"vocabulary of {prepared.tokenizer.vocab_size:,}, {len(prepared.tokens):,} tokens"
    notify(SetupProgress("tokenizer", 1, detail=detail))
    return prepared


def _fit_batch(
    config: DualCNNConfig, tokens: int, notify: Callable[[str], None] | None
) -> DualCNNConfig:
    """Lower the batch for a small corpus, so that each stream has at least one chunk."""
    batch, chunk = config.training.batch, config.training.chunk
    rows = max(1, min(batch, tokens // chunk))
    if rows < batch and notify is not None:
        notify(
            f"the corpus has only {rows} streams of {chunk} tokens; training with batch {rows} "
            f"instead of {batch}"
        )
    return config.replace(batch=rows)


def _check_known(changes: dict[str, Any]) -> dict[str, Any]:
    known = {entry.name for entry in dataclasses.fields(TrainingConfig)}
    unknown = sorted(set(changes) - known)
    if unknown:
        meant = suggestion(unknown, known)
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting of training{meant}; choose from "
            f"{', '.join(sorted(known))}"
        )
    return changes
