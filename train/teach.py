"""What a text teaches a memory of contexts, for streams to begin with."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..runtime.context_slots import slot_bytes
from ..runtime.errors import UsageError
from ..runtime.streams.encoding import UnknownCharacterWarning, unknown_text
from ..runtime.text_sample import TextSample
from .checkpoint import Checkpoint
from .config.model_config import LARGEST_MEMORY, DualCNNConfig
from .data.corpus import Corpus
from .data.token_file import Tokens
from .data.tokenizers import Prepared, prepare
from .model.bulk_store import bulk_store
from .model.context_memory import ContextMemory
from .model.dual_cnn import DualCNN

__all__ = ["Taught", "memory_slots", "resized", "teach"]

_WINDOW = 256
_WINDOWS = 16
"""Pieces of the sample that are looked for, and their tokens."""


@dataclass(frozen=True)
class Taught:
    """What a text taught.

    Attributes:
        table: The memory's table, ``[slots]``.
        text: Names of the texts.
        sha256: SHA-256 of the whole text as UTF-8.
        tokens: How many tokens were read.
        part: Which part of the text was read; empty for all of it.
        has_sample: Whether the checkpoint's sample is part of what was read, so that a loss on it
            would say nothing.
    """

    table: Tensor
    text: str
    sha256: str
    tokens: int
    part: str
    has_sample: bool


def teach(
    checkpoint: Checkpoint,
    sources: str | Path | Sequence[str | Path],
    folder: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> Taught:
    """Read a text into the memory's table, as one stream from zeros; no network is run.

    Of the corpus that the model was trained on, what training held out is not read, so that it can
    still be measured on.

    Args:
        checkpoint: The model, with a memory of contexts of the size to fill.
        sources: The text, as for training: see :class:`.data.corpus.Corpus`.
        folder: Folder for the tokens of a large text; ``None`` keeps them in memory.
        progress: Called with the number of tokens read.

    Raises:
        CorpusError: The text cannot be used.
        UsageError: The model has no memory of contexts.
    """
    memory = _memory(checkpoint)
    corpus = Corpus(sources, spool=folder)
    prepared = prepare(corpus, checkpoint.tokenizer, None if folder is None else folder / "tokens")
    for note in corpus.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    if prepared.unknown:
        note = unknown_text(list(prepared.unknown))
        warnings.warn(note, UnknownCharacterWarning, stacklevel=2)
    held_out = _held_out(checkpoint.training, prepared)
    tokens = prepared.tokens[: len(prepared.tokens) - held_out]
    more = f" and {len(prepared.names) - 5} more" if len(prepared.names) > 5 else ""
    return Taught(
        bulk_store(memory, tokens, progress),
        ", ".join(prepared.names[:5]) + more,
        prepared.sha256,
        len(tokens),
        "all but what training held out" if held_out else "",
        checkpoint.text_sample is not None and _contains(tokens, checkpoint.text_sample),
    )


def memory_slots(config: DualCNNConfig, size: int) -> int:
    """The slots of a memory of contexts of about so many bytes.

    Raises:
        UsageError: The model has no memory of contexts, or none of that size.
    """
    _check_kind(config)
    each, contexts = slot_bytes(config.vocab_size), len(config.context_list)
    least, most = 16 * contexts * each, LARGEST_MEMORY
    if not least <= size <= most:
        raise UsageError(
            f"the memory's size is {size:,} bytes; for {contexts} contexts it must be {least:,} to "
            f"{most:,}: try 1MiB"
        )
    return size // each


def resized(checkpoint: Checkpoint, slots: int) -> Checkpoint:
    """The same weights with a memory of another size, on which no parameter depends.

    Args:
        checkpoint: A model with a memory of contexts.
        slots: Slots of all contexts together.

    Raises:
        UsageError: The model has no memory of contexts, or it cannot have so many slots.
    """
    _check_kind(checkpoint.model.config)
    if slots == checkpoint.model.config.memory:
        return checkpoint
    model = DualCNN(checkpoint.model.config.replace(memory=slots))
    model.load_state_dict(checkpoint.model.state_dict())
    return dataclasses.replace(checkpoint, model=model.eval())


def _memory(checkpoint: Checkpoint) -> ContextMemory:
    _check_kind(checkpoint.model.config)
    memory = checkpoint.model.memory
    assert isinstance(memory, ContextMemory)
    return memory


def _check_kind(config: DualCNNConfig) -> None:
    """Refuse a model whose memory is none of contexts."""
    if not config.memory:
        raise UsageError(
            "the model has no memory, so there is nothing to teach or to resize; train one "
            "without --set memory=0"
        )
    if config.memory_key != "contexts":
        raise UsageError(
            f"the model's memory is keyed by the {config.memory_key} "
            f"(memory_key={config.memory_key}), and only one of contexts can be taught or resized "
            "at export; train without --set memory_key, or let sessions learn the text with "
            "--learn-from"
        )


def _held_out(training: dict[str, Any], prepared: Prepared) -> int:
    """Tokens at the end of a text that training held out: none of another text than its own."""
    # With a separate validation text, the whole corpus was trained on.
    if training.get("corpus_sha256") != prepared.sha256 or "validation_sha256" in training:
        return 0
    return int(len(prepared.tokens) * float(training.get("config", {}).get("held_out", 0)))


def _contains(tokens: Tokens, sample: TextSample) -> bool:
    """Whether a good part of a sample is in a text, word for word."""
    kept = sample.tokens.astype("<u4")
    starts = np.linspace(0, max(0, len(kept) - _WINDOW), _WINDOWS).astype(int).tolist()
    wanted = {kept[start : start + _WINDOW].tobytes() for start in starts}
    needed = -(-len(wanted) // 4)
    found: set[bytes] = set()
    for block in tokens.blocks():
        data = block.numpy().astype("<u4").tobytes()
        found |= {piece for piece in wanted - found if piece in data}
    return len(found) >= needed
