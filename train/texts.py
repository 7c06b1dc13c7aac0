"""The texts of a run: read, encoded, split, and what a checkpoint records of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..runtime.errors import UsageError
from ..runtime.files import as_path
from ..runtime.streams.encoding import unknown_text
from ..runtime.tokenizer import Tokenizer
from .config.model_config import DualCNNConfig
from .data.corpus import Corpus
from .data.streams import Split, split
from .data.token_file import Tokens
from .data.tokenizers import Prepared, TokenizerLike, prepare
from .model.dual_cnn import DualCNN
from .setup import SetupProgress

__all__ = ["CorpusLike", "RunTexts", "characters_in", "share_or_text"]

CorpusLike = str | Path | Sequence[str | Path] | Corpus | Prepared
"""What can be trained on."""


def characters_in(tokens: Tokens, tokenizer: Tokenizer) -> int:
    """Characters that tokens stand for: those of the text that the tokenizer does not lack."""
    # Every byte of UTF-8 but the first of a character begins with the bits 10.
    begun = [sum(byte & 0xC0 != 0x80 for byte in data) for data in tokenizer.token_bytes]
    each = torch.tensor(begun)
    return sum(int(each[block].sum()) for block in tokens.blocks())


def share_or_text(
    validation: str | Path | float | None, changes: dict[str, Any]
) -> tuple[str | Path | None, dict[str, Any]]:
    """Tell a separate text from a share of the corpus, which is a setting of that name."""
    if isinstance(validation, int | float | np.number):
        return None, {**changes, "validation": validation}
    return validation, changes


@dataclass(frozen=True)
class RunTexts:
    """What a run trains on, validates on and holds out.

    Attributes:
        prepared: The corpus, encoded.
        apart: The separate text to hold out, if there is one.
        split: Both, cut into the parts of the run.
    """

    prepared: Prepared
    apart: Prepared | None
    split: Split

    @classmethod
    def read(
        cls,
        corpus: CorpusLike,
        config: DualCNNConfig,
        tokenizer: TokenizerLike | None,
        *,
        folder: str | Path | None = None,
        validation: str | Path | None = None,
        progress: Callable[[SetupProgress], None] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> RunTexts:
        """Read and encode the texts: the first component of a set-up, and the slowest.

        Args:
            corpus: The text to train on.
            config: Supplies the kind of tokenizer, and the shares that are held out.
            tokenizer: As for :func:`prepare`; the configuration's kind by default.
            folder: Folder for the tokens of a large corpus.
            validation: A separate text to hold out.
            progress: Called before, while and after the corpus is read.
            notify: Called with what the user should know about the texts.

        Raises:
            CorpusError: A text cannot be used.
            UsageError: A text is both trained on and held out.
        """
        place = None if folder is None else as_path(folder)
        if not isinstance(corpus, Corpus | Prepared):
            corpus = Corpus(corpus, spool=place)
        prepared = _prepare(corpus, config, tokenizer, place, progress)
        notes = _notes(corpus, prepared)
        apart = None
        if validation is not None:
            apart = _held_apart(validation, corpus, prepared, place)
            if apart.unknown:
                notes.append(f"of {validation}, {unknown_text(list(apart.unknown))}")
        if notify is not None:
            for note in notes:
                notify(note)
        held_out = None if apart is None else apart.tokens
        return cls(prepared, apart, split(prepared.tokens, config.training, held_out))

    def fit_batch(
        self, config: DualCNNConfig, notify: Callable[[str], None] | None
    ) -> DualCNNConfig:
        """Lower the batch for a small corpus, so that each stream has at least one chunk."""
        batch, chunk = config.training.batch, config.training.chunk
        rows = max(1, min(batch, len(self.split.trained) // chunk))
        if rows < batch and notify is not None:
            notify(
                f"the corpus has only {rows} stream{'s' if rows > 1 else ''} of {chunk} tokens; "
                f"training with batch {rows} instead of {batch}"
            )
        return config.replace(batch=rows)

    def record(self, model: DualCNN) -> dict[str, Any]:
        """What a checkpoint tells of its training."""
        names = self.prepared.names
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return {
            "corpus": ", ".join(names[:5]) + more,
            "corpus_sha256": self.prepared.sha256,
            "characters": self.prepared.characters,
            "trained_tokens": len(self.split.trained),
            "parameters": model.parameter_count(),
            "torch": torch.__version__,
            "config": model.config.training.to_dict(),
        }


def _prepare(
    corpus: Corpus | Prepared,
    config: DualCNNConfig,
    tokenizer: TokenizerLike | None,
    place: Path | None,
    progress: Callable[[SetupProgress], None] | None,
) -> Prepared:
    notify = progress or (lambda report: None)
    if isinstance(corpus, Prepared):
        prepared = corpus
    else:
        kind = tokenizer or config.training.tokenizer
        size = config.training.bpe_vocab if kind == "bpe" else None

        def read(what: str, done: int, total: int) -> None:
            notify(SetupProgress("tokenizer", 0, fraction=done / max(1, total)))

        notify(SetupProgress("tokenizer", 0))
        prepared = prepare(corpus, kind, place, read, vocab_size=size)
    detail = f"vocabulary of {prepared.tokenizer.vocab_size:,}, {len(prepared.tokens):,} tokens"
    notify(SetupProgress("tokenizer", 1, detail=detail))
    return prepared


def _notes(corpus: Corpus | Prepared, prepared: Prepared) -> list[str]:
    """What the user should know about the text that is trained on."""
    notes = list(corpus.notes) if isinstance(corpus, Corpus) else []
    if prepared.zeros:
        notes.append(
            f"the text has {prepared.zeros:,} NUL characters (U+0000), which are trained on like "
            "any other; remove them with: tr -d '\\000' < IN > OUT"
        )
    if prepared.unknown:
        notes.append(f"of the corpus, {unknown_text(list(prepared.unknown))}")
    return notes


def _held_apart(
    validation: str | Path, corpus: Corpus | Prepared, prepared: Prepared, place: Path | None
) -> Prepared:
    """Encode the separate text to hold out."""
    place = None if place is None else place / "validation"
    apart = Corpus(validation, spool=place)
    other = None
    both = corpus.shared(apart) if isinstance(corpus, Corpus) else None
    if not both:
        other = prepare(apart, prepared.tokenizer, place)
        both = str(validation) if other.sha256 == prepared.sha256 else None
    if both or other is None:
        raise UsageError(
            f"{both} is both trained on and held out, so its loss would say nothing; give "
            "another text to hold out"
        )
    return other
