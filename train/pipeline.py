"""One call from a text to a ready pipeline; then train, generate, save, load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..runtime.errors import ConfigError, UsageError
from ..runtime.files import make_folder
from ..runtime.sampling.sampler import SamplingParams
from ..runtime.streams.encoding import unknown_text
from ..runtime.tokenizer import Tokenizer
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .config.model_config import DualCNNConfig
from .data.corpus import Corpus
from .data.streams import Split, split
from .data.tokenizers import Prepared, prepare
from .fallback import Fallback
from .generate import stream_text
from .loop.distributed import Group
from .loop.evaluate import Evaluation, evaluate
from .loop.progress import TrainingProgress
from .loop.resume import RunState
from .loop.trainer import DualCNNTrainer, TrainingResult
from .model.dual_cnn import DualCNN
from .setup import SetupProgress, set_up_model
from .waves.read import read_waves
from .waves.wave_buffer import RollingWaveBuffer

__all__ = ["DualCNNPipeline"]


@dataclass
class DualCNNPipeline:
    """Tokenizer, reservoir, buffer and both CNNs, ready to train and to generate.

    Made by :meth:`fit_and_initialize` from a text, or by :meth:`load` from a run::

        pipeline = DualCNNPipeline.fit_and_initialize("my-notes.txt", preset="nano")
        pipeline.train(steps=800)
        print(pipeline.generate("Dear ", temperature=0.8, seed=7))
        pipeline.save("run")

    Attributes:
        model: The model; its parts are its attributes.
        tokenizer: Its tokenizer.
        buffer: A rolling wave buffer of the model's sizes, filled by :meth:`read`.
        corpus: The text as tokens; ``None`` for a pipeline that was loaded.
        split: The same in three: trained on, looked at, held out.
        fallbacks: Parts that could not be set up, and what took their place.
        training: How the model was trained and what was measured, plain JSON values.
    """

    model: DualCNN
    tokenizer: Tokenizer
    buffer: RollingWaveBuffer
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
        parts: dict[str, nn.Module | Callable[[DualCNNConfig], nn.Module | None]] | None = None,
        **changes: Any,
    ) -> DualCNNPipeline:
        """Set up everything that training needs, from a text.

        Args:
            corpus: A text file, a folder, a name that :class:`Corpus` knows, several of
                these, or a corpus that was opened or prepared before.
            config: The configuration; the preset when absent.
            preset: A configuration by size.
            tokenizer: A tokenizer, or ``char``, ``byte``, ``bpe`` or ``auto``; the
                configuration's when absent.
            folder: Where a large corpus is kept as tokens; needed above some 64 MB.
            validation: A text of its own to hold out, instead of the corpus's end.
            progress: Called as each component gets ready.
            allow_fallback: Go on with something simpler where a part cannot be set up, and
                record it; otherwise that is an error.
            notify: Called with a sentence for each fallback.
            parts: Parts to take instead, by the name of the model's attribute
                (``embedder``, ``reservoir``, ``wave_cnn``, ``readout_cnn``, ``memory``):
                modules, or functions from the configuration to one.
            **changes: Settings to change, of the model or of its training.

        Raises:
            SetupError: A part cannot be set up; names it and what to change.
            ConfigError: The configuration has conflicts.
            CorpusError: The text cannot be used.
        """
        from .config.presets import PRESETS

        if config is None:
            if preset not in PRESETS:
                raise UsageError(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
            config = PRESETS[preset]
        config = config.replace(**changes)
        prepared = _prepare(corpus, config, tokenizer, folder, progress)
        held_out = None
        if validation is not None:
            own = Path(folder) / "validation" if folder is not None else None
            other = prepare(Corpus(validation), prepared.tokenizer, own)
            held_out = other.tokens
            if other.unknown and notify is not None:
                notify(f"of {validation}, {unknown_text(list(other.unknown))}")
        texts = split(prepared.tokens, config.training, held_out)
        config = _fit_batch(config, len(texts.trained), notify)
        config = config.replace(vocab_size=prepared.tokenizer.vocab_size)
        made = set_up_model(
            config, texts.trained.tokens, parts or {}, progress, allow_fallback, notify
        )
        training = {
            "corpus": ", ".join(prepared.names[:5]),
            "corpus_sha256": prepared.sha256,
            "characters": prepared.characters,
            "trained_tokens": len(texts.trained),
            "parameters": made.model.parameter_count(),
            "torch": torch.__version__,
            "config": made.model.config.training.to_dict(),
        }
        if made.fallbacks:
            training["fallbacks"] = [str(fallback) for fallback in made.fallbacks]
        return cls(
            made.model, prepared.tokenizer, made.buffer, prepared, texts, made.fallbacks, training
        )

    @classmethod
    def load(cls, run: str | Path) -> DualCNNPipeline:
        """Load a pipeline from a run's folder, ready to generate.

        Raises:
            BundleError: There is no checkpoint, or it is damaged or of a newer format.
        """
        checkpoint = load_checkpoint(Path(run))
        buffer = RollingWaveBuffer.from_config(checkpoint.model.config)
        return cls(checkpoint.model, checkpoint.tokenizer, buffer, training=checkpoint.training)

    @property
    def config(self) -> DualCNNConfig:
        """The configuration, fallbacks included."""
        return self.model.config

    def checkpoint(self) -> Checkpoint:
        """Model, tokenizer and provenance, as they are saved and exported."""
        return Checkpoint(self.model.eval(), self.tokenizer, self.training)

    def train(
        self,
        folder: str | Path | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        *,
        resume: bool = False,
        until: int | None = None,
        group: Group | None = None,
        notify: Callable[[str], None] | None = None,
        **changes: Any,
    ) -> TrainingResult:
        """Train both CNNs on the pipeline's corpus.

        Args:
            folder: Where checkpoints are kept; nowhere when absent.
            on_progress: Called at each progress report.
            resume: Go on from the state in the folder.
            until: Stop after this step, as if interrupted.
            group: The processes that train together.
            notify: Called with a sentence when something is done otherwise than asked for.
            **changes: Settings of training to change.

        Raises:
            UsageError: The pipeline was loaded and has no corpus.
            TrainingError: Training cannot go on.
        """
        if self.split is None or self.corpus is None:
            raise UsageError(
                "this pipeline was loaded and has no text to train on; make one with "
                "fit_and_initialize"
            )
        config = dataclasses.replace(self.config.training, **_known(changes)).validate()
        self.model.config = self.config.replace(training=config)
        self.training["config"] = config.to_dict()
        place = None if folder is None else Path(folder)
        if place is not None:
            make_folder(place)

        def save(model: DualCNN, run: RunState) -> None:
            if place is not None:
                about = {**self.training, "steps": run.step}
                if run.best_step:
                    about["validation_loss"] = run.best_loss
                save_checkpoint(place, Checkpoint(model, self.tokenizer, about))

        trainer = DualCNNTrainer(
            self.model, config, group, place, save,
            {"corpus": self.corpus.sha256}, notify,
        )  # fmt: skip
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
        """Losses on the held-out text, read as one stream from zeros, and their record.

        Args:
            progress: Called with the number of tokens read.

        Returns:
            The losses; ``None`` where nothing was held out.
        """
        if self.split is None or len(self.split.held_out) < 2:
            return None
        text = self.split.held_out[: self.config.training.held_out_tokens + 1]
        found = evaluate(self.model, text, progress=progress)
        self.training["held_out"] = dataclasses.asdict(found)
        return found

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
            max_new_tokens: Tokens to generate.
            learn: What the memory stores: what is ``read``, ``all``, or ``none``.
            seed_text: A text to read first, so that the memory begins with it.
            **sampling: Fields of :class:`SamplingParams`.

        Returns:
            An iterator over pieces of text.
        """
        params = SamplingParams(**{"temperature": 0.8, **sampling})
        return stream_text(
            self.model, self.tokenizer, prompt, params, max_new_tokens, learn, seed_text
        )

    def generate(self, prompt: str = "", **options: Any) -> str:
        """Generate a text; the arguments are those of :meth:`stream`."""
        return "".join(self.stream(prompt, **options))

    def read(self, text: str) -> RollingWaveBuffer:
        """Read a text from the start of a stream into the wave buffer, to look at its waves."""
        self.buffer.clear()
        waves, _ = read_waves(self.model, torch.tensor(self.tokenizer.encode(text)))
        for wave in waves:
            self.buffer.append(wave)
        return self.buffer

    def save(self, folder: str | Path) -> Path:
        """Write the checkpoint, from which a pipeline is loaded and a bundle exported."""
        place = Path(folder)
        make_folder(place)
        return save_checkpoint(place, self.checkpoint())


def _prepare(
    corpus: str | Path | Sequence[str | Path] | Corpus | Prepared,
    config: DualCNNConfig,
    tokenizer: Tokenizer | str | None,
    folder: str | Path | None,
    progress: Callable[[SetupProgress], None] | None,
) -> Prepared:
    """The corpus as tokens: the first component, and on a large corpus the longest."""
    tell = progress or (lambda report: None)
    if isinstance(corpus, Prepared):
        prepared = corpus
    else:
        opened = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
        kind = tokenizer or config.training.tokenizer
        size = config.training.bpe_vocab if kind == "bpe" else None
        place = None if folder is None else Path(folder)

        def read(what: str, done: int, total: int) -> None:
            tell(SetupProgress("tokenizer", 0, fraction=done / max(1, total)))

        tell(SetupProgress("tokenizer", 0))
        prepared = prepare(opened, kind, place, read, vocab_size=size)
    made = f"{prepared.tokenizer.vocab_size:,} tokens of {len(prepared.tokens):,}"
    tell(SetupProgress("tokenizer", 1, detail=made))
    return prepared


def _fit_batch(
    config: DualCNNConfig, tokens: int, notify: Callable[[str], None] | None
) -> DualCNNConfig:
    """A smaller batch for a small corpus, so that each stream has a chunk to itself."""
    wanted, chunk = config.training.batch, config.training.chunk
    rows = max(1, min(wanted, tokens // chunk))
    if rows < wanted and notify is not None:
        notify(
            f"the corpus has room for {rows} streams of {chunk} tokens; training with batch "
            f"{rows} instead of {wanted}"
        )
    return config.replace(batch=rows)


def _known(changes: dict[str, Any]) -> dict[str, Any]:
    from .config.training_config import TrainingConfig

    known = {entry.name for entry in dataclasses.fields(TrainingConfig)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting of training; there are "
            f"{', '.join(sorted(known))}"
        )
    return changes
