"""Slots of hashed contexts: which slot a context has, what it holds, how it changes.

A slot remembers the last two tokens that followed its context, newest first, and how often. It is
one whole number, ``((check * V + first) * V + second) * PATTERNS + pattern``: the check tells
contexts apart that share a slot, and the pattern is a pair of counts. All of it is integer
arithmetic, so every engine computes the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.context_slots import COUNTS, OTHER_COUNTS, PATTERNS, slot_bytes
from ..config.model_config import LONGEST_CONTEXT

__all__ = ["PRIME", "Slots", "counts", "multipliers", "slot_type", "transitions"]

PRIME = 2_147_483_629
"""Hashes are below this prime, which is just under 2^31."""


def slot_type(vocab_size: int) -> torch.dtype:
    """The smallest type that holds a packed slot."""
    return torch.int32 if slot_bytes(vocab_size) == 4 else torch.int64


def counts() -> tuple[Tensor, Tensor]:
    """The counts of the newer and of the other token in each pattern, ``[PATTERNS]``."""
    pattern = torch.arange(PATTERNS)
    return pattern // OTHER_COUNTS, pattern % OTHER_COUNTS


class Slots(NamedTuple):
    """What slots hold, each ``[...]``.

    Attributes:
        check: Which context it is of.
        first: The token that followed last.
        second: The token that followed before that, another one.
        pattern: Their counts; 0 if nothing has followed yet.
    """

    check: Tensor
    first: Tensor
    second: Tensor
    pattern: Tensor

    @classmethod
    def unpack(cls, packed: Tensor, vocab_size: int) -> Slots:
        """Take packed slots ``[...]`` apart."""
        rest = packed // PATTERNS
        return cls(
            rest // (vocab_size * vocab_size),
            rest // vocab_size % vocab_size,
            rest % vocab_size,
            packed % PATTERNS,
        )

    def pack(self, vocab_size: int) -> Tensor:
        """Put slots together again."""
        tokens = (self.check * vocab_size + self.first) * vocab_size + self.second
        return tokens * PATTERNS + self.pattern

    def of(self, check: Tensor) -> Slots:
        """These slots for the contexts with these checks: empty where they are of others."""
        same = (self.check == check).to(check.dtype)
        return Slots(check, self.first * same, self.second * same, self.pattern * same)

    def followed_by(self, token: Tensor, table: Tensor) -> Slots:
        """These slots after another token.

        Args:
            token: The token, ``[...]``.
            table: Result of :func:`transitions`.
        """
        is_first, is_second = self.first == token, self.second == token
        case = torch.where(is_first, 2 * PATTERNS, torch.where(is_second, PATTERNS, 0))
        pattern = F.embedding(self.pattern + case, table).squeeze(-1)
        second = torch.where(is_first, self.second, self.first)
        return Slots(self.check, token.expand_as(self.first), second, pattern)


def transitions() -> Tensor:
    """The pattern after a token, ``[3 PATTERNS, 1]``: a new one, the second, the first.

    The token that follows gains one; the other's count is halved, so that what no longer follows
    fades.
    """
    count, other = counts()
    cases = ((torch.zeros_like(count), count), (other, count), (count, other))
    after = [
        (mine + 1).clamp_max(COUNTS - 1) * OTHER_COUNTS + (theirs + 1) // 2
        for mine, theirs in cases
    ]
    return torch.cat(after).unsqueeze(1)


def multipliers(contexts: tuple[str, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Draw what the tokens of a context are multiplied by before they are summed to a hash.

    Args:
        contexts: ``word``, or a number of tokens, each.
        seed: Seed of the draw.

    Returns:
        Those of the last tokens, and those of the tokens of the word so far, each
        ``[n, LONGEST_CONTEXT]``, newest token first.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(
        1 << 16, 1 << 28, (2, len(contexts), LONGEST_CONTEXT), generator=generator
    )
    places = torch.arange(LONGEST_CONTEXT)
    for index, context in enumerate(contexts):
        # The word's context includes the last token, which may be no part of a word.
        drawn[0, index] *= places < (1 if context == "word" else int(context))
        drawn[1, index] *= context == "word"
    return drawn[0], drawn[1]
