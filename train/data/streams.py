"""Contiguous streams over one text: the rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...runtime.errors import CorpusError
from ...runtime.text_sample import HELD_OUT, TRAINING, TextSample
from ..config.training_config import TrainingConfig
from .token_file import Tokens

__all__ = ["Split", "Streams", "Text", "split"]

_PIECES = 8
"""Validation pieces, spread over the corpus."""

_MIN_PIECE = 16
"""Tokens below which a validation piece is too short to measure."""

_MIN_SAMPLE = 128
"""Held-out tokens below which the text that was trained on makes a better sample."""


@dataclass(frozen=True)
class Text:
    """A text to train on, from which pieces are left out.

    Attributes:
        tokens: The whole text.
        hole: Tokens left out at the end of each part.
        parts: Number of parts, of equal length.
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
        """Read ``length`` tokens from each start, ``[B, length]``; the text wraps around."""
        places = (starts.unsqueeze(1) + torch.arange(length)) % len(self)
        if self.hole:
            places = places + places // self._kept * self.hole
        return self.tokens.take(places)

    def left_out(self) -> Tensor:
        """The pieces left out, ``[parts, hole]``."""
        starts = torch.arange(self.parts) * (self._kept + self.hole) + self._kept
        return self.tokens.windows(starts, self.hole)


@dataclass(frozen=True)
class Split:
    """A corpus split three ways.

    Attributes:
        trained: The text to train on.
        validation: Pieces to measure progress on, ``[pieces, length]``, or ``None``.
        held_out: The text to measure once, at the end.
    """

    trained: Text
    validation: Tensor | None
    held_out: Tokens

    def sample(self, count: int) -> TextSample | None:
        """At most ``count`` tokens of the held-out text, to keep; ``None`` for a count of 0.

        If too little was held out, they come from the end of the text to train on.
        """
        if not count:
            return None
        if len(self.held_out) >= _MIN_SAMPLE:
            return TextSample(HELD_OUT, self.held_out[:count].tensor().numpy())
        return TextSample(TRAINING, self.trained.tokens[-count:].tensor().numpy())


def split(tokens: Tokens, config: TrainingConfig, held_out: Tokens | None = None) -> Split:
    """Hold out the end of a corpus, and set aside validation pieces spread over the rest.

    Args:
        tokens: The corpus.
        config: Supplies the shares.
        held_out: A separate text to hold out instead.
    """
    rest = tokens
    if held_out is None:
        count = int(len(tokens) * config.held_out)
        rest, held_out = tokens[: len(tokens) - count], tokens[len(tokens) - count :]
    hole = min(int(len(rest) * config.validation), config.validation_tokens) // _PIECES
    if hole < _MIN_PIECE:
        return Split(Text(rest), None, held_out)
    text = Text(rest, hole, _PIECES)
    return Split(text, text.left_out(), held_out)


class Streams:
    """Contiguous streams over a text, one for each row of the batch.

    Args:
        text: The text.
        config: Supplies batch and chunk.

    Raises:
        CorpusError: The text is shorter than one chunk per stream.
    """

    def __init__(self, text: Text, config: TrainingConfig) -> None:
        needed = config.batch * config.chunk
        if len(text) < needed:
            streams = f"{config.batch} stream{'s' if config.batch > 1 else ''}"
            raise CorpusError(
                f"the text to train on has {len(text):,} tokens, but {streams} of {config.chunk} "
                f"tokens need {needed:,}; give more text, or lower "
                f"{'batch' if config.batch > 1 else 'chunk'}"
            )
        self.text, self.chunk_length = text, config.chunk
        self.starts = torch.arange(config.batch) * len(text) // config.batch

    def chunk(self, step: int, rows: range) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step for some of the streams, each ``[rows, T]``."""
        starts = self.starts[rows.start : rows.stop] + step * self.chunk_length
        window = self.text.windows(starts, self.chunk_length + 1)
        return window[:, :-1], window[:, 1:]
