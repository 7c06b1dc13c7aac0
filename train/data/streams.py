"""The rows of a batch: contiguous streams over one text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...runtime.errors import CorpusError
from ..config.training_config import TrainingConfig
from .token_file import Tokens

__all__ = ["Split", "Streams", "Text", "split"]

_PIECES = 8


@dataclass(frozen=True)
class Text:
    """A text to train on, with pieces left out of it.

    Attributes:
        tokens: The whole of it.
        hole: Tokens left out at the end of each part; the parts are of equal length.
        parts: Number of parts.
    """

    tokens: Tokens
    hole: int = 0
    parts: int = 1

    def __len__(self) -> int:
        return self.parts * self._kept if self.hole else len(self.tokens)

    @property
    def _kept(self) -> int:
        return len(self.tokens) // self.parts - self.hole

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """Tokens ``[B, length]`` from each start; the text begins again where it ends."""
        places = (starts.unsqueeze(1) + torch.arange(length)) % len(self)
        if self.hole:
            places = places + places // self._kept * self.hole
        return self.tokens.take(places)

    def left_out(self) -> Tensor:
        """The pieces that were left out, ``[parts, hole]``."""
        starts = torch.arange(self.parts) * (self._kept + self.hole) + self._kept
        return self.tokens.windows(starts, self.hole)


@dataclass(frozen=True)
class Split:
    """A corpus in three.

    Attributes:
        trained: What is trained on.
        validation: Pieces that progress is measured on, ``[pieces, length]``, or ``None``.
        held_out: What is measured once, at the end.
    """

    trained: Text
    validation: Tensor | None
    held_out: Tokens


def split(tokens: Tokens, config: TrainingConfig, held_out: Tokens | None = None) -> Split:
    """Hold out the end of a corpus, and set aside pieces from all over the rest.

    Args:
        tokens: The corpus.
        config: Gives the shares.
        held_out: A text of its own to hold out instead.
    """
    rest = tokens
    if held_out is None:
        count = int(len(tokens) * config.held_out)
        rest, held_out = tokens[: len(tokens) - count], tokens[len(tokens) - count :]
    hole = min(int(len(rest) * config.validation), config.validation_tokens) // _PIECES
    if hole < 16:  # too little to measure
        return Split(Text(rest), None, held_out)
    text = Text(rest, hole, _PIECES)
    return Split(text, text.left_out(), held_out)


class Streams:
    """As many contiguous streams over a text as the batch has rows.

    Args:
        text: The text.
        config: Gives batch and chunk.

    Raises:
        CorpusError: The text has not one chunk for each stream.
    """

    def __init__(self, text: Text, config: TrainingConfig) -> None:
        needed = config.batch * config.chunk
        if len(text) < needed:
            raise CorpusError(
                f"the text to train on has {len(text):,} tokens, and {config.batch} streams of "
                f"{config.chunk} tokens need {needed:,}; give more text, or a smaller batch"
            )
        self.text, self.chunk_length = text, config.chunk
        self.starts = torch.arange(config.batch) * len(text) // config.batch

    def chunk(self, step: int, rows: range) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step for some of the streams, each ``[rows, T]``."""
        starts = self.starts[rows.start : rows.stop] + step * self.chunk_length
        window = self.text.windows(starts, self.chunk_length + 1)
        return window[:, :-1], window[:, 1:]
