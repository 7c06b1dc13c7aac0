"""The texts that a model of ours was trained and measured on, for others to be given the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rillet.runtime.files import sha256_file
from rillet.train.checkpoint import Checkpoint
from rillet.train.data.corpus import read_corpus
from rillet.train.data.streams import Text
from rillet.train.data.token_file import Tokens
from rillet.train.texts import RunTexts

__all__ = ["Texts", "read_texts"]

_PIECES = 8


@dataclass(frozen=True)
class Texts:
    """The texts of a comparison.

    Attributes:
        trained: The text to train on.
        validation: The pieces to choose by, ``[pieces, length]``.
        held_out: The text to measure once.
        characters: Characters of the held-out text.
        words: The bytes of each token.
        before: The bytes of the text that may be learnt from, validation included.
        after: The bytes of the held-out text.
    """

    trained: Text
    validation: Tensor
    held_out: Tokens
    characters: int
    words: list[bytes]
    before: bytes
    after: bytes


def read_texts(
    checkpoint: Checkpoint, corpus: Path, held_out: Path | None, validation: Path | None
) -> Texts:
    """Read the texts as the checkpoint's own training did.

    Args:
        checkpoint: A model of ours.
        corpus: The text that it was trained on.
        held_out: A separate text to hold out; the end of the corpus by default.
        validation: A separate text to choose by; pieces set aside from the corpus by default.

    Raises:
        SystemExit: The checkpoint was trained on another text, or the corpus is too short.
    """
    if sha256_file(corpus) != checkpoint.training["corpus_sha256"]:
        raise SystemExit(
            f"{corpus} is not the text that the checkpoint was trained on, "
            f"{checkpoint.training['corpus']}; give that one"
        )
    config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
    split = RunTexts.read(str(corpus), config, tokenizer, validation=held_out).split
    pieces = split.validation
    if validation is not None:
        tokens = torch.tensor(tokenizer.encode(read_corpus(str(validation))))
        tokens = tokens[: config.training.validation_tokens]
        pieces = tokens[: len(tokens) // _PIECES * _PIECES].view(_PIECES, -1)
    if pieces is None:
        raise SystemExit(f"{corpus} is too short to validate on; give a --validation text")
    before = read_corpus(str(corpus))
    if held_out is None:
        after = tokenizer.decode(split.held_out.tensor().tolist())
        if not before.endswith(after):
            raise SystemExit(f"the tokenizer does not give back the end of {corpus}")
        before = before[: -len(after)]
    else:
        after = read_corpus(str(held_out))
    return Texts(
        split.trained,
        pieces,
        split.held_out,
        len(after),
        list(tokenizer.token_bytes),
        before.encode(),
        after.encode(),
    )
