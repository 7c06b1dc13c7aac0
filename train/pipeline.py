"""The pipeline: set up from a text, train, evaluate, generate, save and load."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import ConfigError, UsageError
from ..runtime.files import as_path, make_folder, sha256_bytes
from ..runtime.sampling.params import SamplingParams
from ..runtime.text_sample import HELD_OUT, TextSample
from ..runtime.tokenizer import Tokenizer
from .checkpoint import CHECKPOINT_FILE, Checkpoint, load_checkpoint, save_checkpoint
from .config.fields import suggestion
from .config.model_config import DualCNNConfig
from .config.presets import PRESETS
from .config.training_config import TrainingConfig
from .continuing import (
    check_continued,
    continued_config,
    continued_model,
    earlier_record,
    held_out_record,
)
from .data.streams import Split
from .data.tokenizers import Prepared, TokenizerLike
from .fallback import Fallback
from .generate import stream_text
from .loop.distributed import Group
from .loop.evaluation import Evaluation, evaluate
from .loop.progress import TrainingProgress
from .loop.resume import RunState
from .loop.time_limit import TimeLimit
from .loop.trainer import DualCNNTrainer, TrainingResult
from .model.dual_cnn import DualCNN
from .own_parts import Parts
from .setup import SetupProgress, set_up_model
from .texts import CorpusLike, RunTexts, characters_in, share_or_text
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
        loaded_sample: The text sample of the checkpoint that the pipeline was loaded from.
    """

    model: DualCNN
    tokenizer: Tokenizer
    _buffer: RollingWaveBuffer | None = None
    corpus: Prepared | None = None
    split: Split | None = None
    fallbacks: list[Fallback] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    loaded_sample: TextSample | None = None

    @classmethod
    def fit_and_initialize(
        cls,
        corpus: CorpusLike,
        config: DualCNNConfig | None = None,
        *,
        preset: str = "nano",
        tokenizer: TokenizerLike | None = None,
        folder: str | Path | None = None,
        validation: str | Path | float | None = None,
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
            tokenizer: A :class:`~rillet.runtime.Tokenizer`, one of Hugging Face's
                ``tokenizers``, the path of a ``tokenizer.json``, or ``char``, ``byte``, ``bpe``
                or ``auto``; by default, the configuration's.
            folder: Folder for the tokens of a large corpus; needed above about 64 MB.
            validation: A separate text to hold out, instead of the end of the corpus; or, as a
                number, the setting of that name: the share that validation measures.
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
        validation, changes = share_or_text(validation, changes)
        config = config.replace(**changes)
        texts = RunTexts.read(
            corpus,
            config,
            tokenizer,
            folder=folder,
            validation=validation,
            progress=progress,
            notify=notify,
        )
        known = texts.prepared.tokenizer
        config = texts.fit_batch(config, notify).replace(vocab_size=known.vocab_size)
        tokens = texts.split.trained.tokens
        ready = set_up_model(config, tokens, parts or {}, progress, allow_fallback, notify)
        ready.model.fit_words(known.token_bytes)
        training = texts.record(ready.model) | held_out_record(texts.split, texts.apart, None)
        if ready.fallbacks:
            training["fallbacks"] = [str(fallback) for fallback in ready.fallbacks]
        return cls(
            ready.model,
            known,
            corpus=texts.prepared,
            split=texts.split,
            fallbacks=ready.fallbacks,
            training=training,
        )

    @classmethod
    def continue_from(
        cls,
        run: Checkpoint | str | Path,
        corpus: CorpusLike,
        config: DualCNNConfig | None = None,
        *,
        folder: str | Path | None = None,
        validation: str | Path | float | None = None,
        progress: Callable[[SetupProgress], None] | None = None,
        notify: Callable[[str], None] | None = None,
        parts: Parts | None = None,
        **changes: Any,
    ) -> DualCNNPipeline:
        """Set up a new run that trains the model of another one further.

        Model, tokenizer, token codes and memory keys are those of the run. The optimizer and the
        learning rate's schedule start anew, at a tenth of the first run's rate, so ``steps``
        counts the new steps. The run itself is not touched, and the record of the new run tells of
        it.

        Args:
            run: A checkpoint, or the folder of the run to continue.
            corpus: The text to train on, the same or another, as for :meth:`fit_and_initialize`.
            config: The configuration; by default, that of the run with the lower rate.
            folder: Folder for the tokens of a large corpus; needed above about 64 MB.
            validation: A separate text to hold out, instead of the end of the corpus; or, as a
                number, the setting of that name: the share that validation measures.
            progress: Called before and after the corpus is read.
            notify: Called with a sentence when the set-up deviates from the settings.
            parts: The parts of your own that the run was trained with.
            **changes: Settings of training, or of dropout, to change.

        Raises:
            BundleError: The checkpoint is missing, damaged, or of an incompatible version.
            ConfigError: Settings conflict, or differ from those that the weights depend on.
            CorpusError: The text cannot be used, or the tokenizer has none of its characters.
            UsageError: The corpus was prepared with another tokenizer, or the run was trained with
                other parts.
        """
        checkpoint = run if isinstance(run, Checkpoint) else load_checkpoint(run, parts)
        validation, changes = share_or_text(validation, changes)
        config = (config or continued_config(checkpoint)).replace(**changes)
        check_continued(checkpoint, config)  # refused before the text is read
        texts = RunTexts.read(
            corpus,
            config,
            checkpoint.tokenizer,
            folder=folder,
            validation=validation,
            progress=progress,
            notify=notify,
        )
        if texts.prepared.tokenizer.source != checkpoint.tokenizer.source:
            raise UsageError(
                "the corpus was prepared with another tokenizer than that of the run to continue; "
                "pass the text instead"
            )
        model = continued_model(checkpoint, texts.fit_batch(config, notify), parts)
        earlier = earlier_record(checkpoint)
        training = texts.record(model) | held_out_record(texts.split, texts.apart, earlier)
        if "fallbacks" in earlier:  # the model still has the simpler parts
            training["fallbacks"] = earlier["fallbacks"]
        return cls(
            model,
            checkpoint.tokenizer,
            corpus=texts.prepared,
            split=texts.split,
            training={**training, "continued_from": earlier},
        )

    @classmethod
    def load(cls, run: str | Path, *, parts: Parts | None = None) -> DualCNNPipeline:
        """Load a pipeline from the folder of a run, ready to generate.

        Args:
            run: The run's folder.
            parts: The parts of your own that the run was trained with.

        Raises:
            BundleError: The checkpoint is missing, damaged, or of an incompatible version.
            UsageError: The run was trained with other parts.
        """
        checkpoint = load_checkpoint(run, parts)
        return cls(
            checkpoint.model,
            checkpoint.tokenizer,
            training=checkpoint.training,
            loaded_sample=checkpoint.text_sample,
        )

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
        return Checkpoint(self.model.eval(), self.tokenizer, self.training, self.text_sample)

    @property
    def text_sample(self) -> TextSample | None:
        """The piece of text that the checkpoint keeps; ``held_out_sample`` sets its length."""
        if self.split is None:
            return self.loaded_sample
        return self.split.sample(self.config.training.held_out_sample)

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
        limit: TimeLimit | None = None,
        on_sample: Callable[[int, str], None] | None = None,
        sample_every: int = 0,
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
            limit: Time for the run, which corrects the number of steps.
            on_sample: Called with the step and a text that the averaged weights write; the seed
                decides which, and the result of training does not depend on it.
            sample_every: Steps between these texts; 0 writes none.
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
                "continue_from, or with fit_and_initialize"
            )
        config = self.config.training.replace(**_check_known(changes))
        place = None if folder is None else as_path(folder)
        held = place is not None and (place / CHECKPOINT_FILE).exists()
        if held and not (resume or overwrite):
            raise UsageError(
                f"{place} already holds a checkpoint; choose another folder, or pass "
                "resume=True to continue it or overwrite=True to replace it"
            )
        before, self.training = self.training, self._new_record(config, resume)

        def save(model: DualCNN, run: RunState) -> None:
            if place is not None:
                training = {**self.training, "steps": run.step}
                if run.best_step:
                    training["validation_loss"] = run.best_loss
                sample = self.text_sample
                save_checkpoint(place, Checkpoint(model, self.tokenizer, training, sample))

        def sample_text(step: int, model: DualCNN) -> None:
            if on_sample is not None and (group is None or group.leads):
                params = SamplingParams(temperature=0.8, seed=config.seed)
                on_sample(step, "".join(stream_text(model, self.tokenizer, "", params)))

        about = {
            "corpus": self.corpus.sha256,
            "tokenizer": sha256_bytes(self.tokenizer.source.encode()),
            "held-out text": self.split.held_out.sha256(),
            "run to continue": self.training.get("continued_from", {}).get("weights_sha256"),
        }
        tokens = self.corpus.tokens
        shape, self.model.config = self.config, self.config.replace(training=config)
        trainer = None
        try:
            trainer = DualCNNTrainer(self.model, config, group, place, save, about, notify)
            return trainer.train(
                self.split.trained,
                self.split.validation,
                on_progress,
                resume=resume,
                until=until,
                characters_per_token=max(1, characters_in(tokens, self.tokenizer)) / len(tokens),
                limit=limit,
                on_sample=sample_text,
                sample_every=sample_every,
            )
        finally:
            if trainer is None or not trainer.run.step:
                self.model.config, self.training = shape, before
            else:
                self._record(trainer)

    def _new_record(self, config: TrainingConfig, resume: bool) -> dict[str, Any]:
        """The record of a run that begins: one that continues this pipeline's last run, if any."""
        kept = {name: value for name, value in self.training.items() if name not in _OF_A_RUN}
        if not resume and "steps" in self.training:
            kept["continued_from"] = earlier_record(self.checkpoint())
        return {**kept, "config": config.to_dict()}

    def _record(self, trainer: DualCNNTrainer) -> None:
        """Record a run, however it ended."""
        run = trainer.run
        self.model.config = self.config.replace(training=trainer.config)
        self.training["config"] = trainer.config.to_dict()
        self.training["steps"] = run.best_step or run.step
        self.training["seconds"] = round(run.seconds, 1)
        if run.best is not None:
            self.training["validation_loss"] = run.best_loss

    def evaluate(
        self, progress: Callable[[int], None] | None = None, ends: float | None = None
    ) -> Evaluation | None:
        """Measure the held-out text as one stream from zeros, and record the losses.

        A loaded pipeline measures the piece that its checkpoint keeps, and records nothing.

        Args:
            progress: Called after each chunk with the number of tokens in it.
            ends: When to stop, in the seconds of :func:`time.monotonic`.

        Returns:
            The losses; ``None`` if nothing was held out.

        Raises:
            UsageError: The pipeline was loaded, and its checkpoint keeps no held-out text.
        """
        if self.split is None:
            sample = self.loaded_sample
            if sample is None or sample.kind != HELD_OUT or len(sample.tokens) < 2:
                raise UsageError(
                    "this pipeline was loaded and its checkpoint keeps no held-out text; measure a "
                    "text of yours: rillet.train.evaluate(pipeline.model, torch.tensor("
                    "pipeline.tokenizer.encode(text)))"
                )
            kept = torch.from_numpy(sample.tokens)
            return evaluate(self.model, kept, progress=progress, ends=ends)
        if len(self.split.held_out) < 2:
            return None
        text = self.split.held_out[: self.config.training.held_out_tokens + 1]
        evaluation = evaluate(self.model, text, progress=progress, ends=ends)
        characters = max(1, characters_in(text[1 : evaluation.tokens + 1], self.tokenizer))
        bits = evaluation.loss * evaluation.tokens / math.log(2) / characters
        self.training["held_out"] = {**dataclasses.asdict(evaluation), "bits_per_character": bits}
        return evaluation

    def stream(
        self,
        prompt: str = "",
        *,
        learn: str = "read",
        seed_text: str = "",
        **sampling: Any,
    ) -> Iterator[str]:
        """Generate text piece by piece.

        Args:
            prompt: The text to continue.
            learn: What the memory stores: ``read`` for the text that is read, ``all`` for the
                generated text as well, or ``none``.
            seed_text: A text to read first, to fill the memory.
            **sampling: Fields of :class:`SamplingParams`; they mean what they mean to a bundle.

        Returns:
            An iterator over pieces of text.
        """
        params = SamplingParams(**sampling)
        return stream_text(self.model, self.tokenizer, prompt, params, learn, seed_text)

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
        place = as_path(folder)
        make_folder(place)
        return save_checkpoint(place, self.checkpoint())


_OF_A_RUN = ("steps", "seconds", "validation_loss", "held_out")
"""What one run has recorded, and the next has not."""

_OF_TEXTS = {"tokenizer", "bpe_vocab", "held_out", "validation", "validation_tokens"}
"""Settings by which the texts were encoded and split."""


def _check_known(changes: dict[str, Any]) -> dict[str, Any]:
    if late := sorted(_OF_TEXTS.intersection(changes)):
        raise ConfigError(
            f"{', '.join(late)}: too late, since the texts are encoded and split by now; set it in "
            "fit_and_initialize"
        )
    known = {entry.name for entry in dataclasses.fields(TrainingConfig)} - _OF_TEXTS
    unknown = sorted(set(changes) - known)
    if unknown:
        meant = suggestion(unknown, known)
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting of training{meant}; choose from "
            f"{', '.join(sorted(known))}"
        )
    return changes
