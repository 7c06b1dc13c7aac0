"""A whole text stored in a memory of contexts at once, without the network."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ...runtime.context_slots import PATTERNS
from ..config.model_config import LONGEST_CONTEXT
from ..data.token_file import Tokens
from .context_memory import ContextMemory
from .context_slots import Slots, slot_type, transitions

__all__ = ["bulk_store"]

_BLOCK = 1 << 16
"""Tokens hashed at a time."""


def bulk_store(
    memory: ContextMemory,
    tokens: Tokens,
    progress: Callable[[int], object] | None = None,
    block: int = _BLOCK,
) -> Tensor:
    """The table of a stream that has read a text from zeros, bit for bit.

    Only hashes are computed, many at once, and slots are changed one after another in plain
    numbers: a few seconds for a million tokens.

    Args:
        memory: The memory, which stays as it is.
        tokens: The text.
        progress: Called with the number of tokens read, after each block.
        block: Tokens hashed at a time; the result is the same.

    Returns:
        The table, ``[slots]``.
    """
    tables = [_Table(memory.size) for _ in memory.contexts]
    # Before its first token, the state of a stream names slot 0 of the whole table.
    tables[0].waiting = (0, 0)
    first_of = torch.arange(len(tables)) * memory.size
    seen = torch.zeros(LONGEST_CONTEXT - 1, dtype=torch.int64)
    for part in tokens.blocks(block):
        seen = torch.cat([seen, part + 1])
        places, checks = memory.visits(memory.hashes(seen.unsqueeze(0)))
        seen = seen[-(LONGEST_CONTEXT - 1) :]
        read = part.tolist()
        for number, table in enumerate(tables):
            own = (places[0, :, number] - first_of[number]).tolist()
            table.read(own, checks[0, :, number].tolist(), read)
        if progress is not None:
            progress(len(read))
    packed = [table.slots().pack(memory.vocab_size) for table in tables]
    return torch.cat(packed).to(slot_type(memory.vocab_size))


class _Table:
    """The slots of one context.

    Args:
        size: How many.

    Attributes:
        waiting: Place and check of the context that the next token follows.
    """

    def __init__(self, size: int) -> None:
        self.waiting: tuple[int, int] | None = None
        self._checks, self._patterns = array("B", bytes(size)), array("B", bytes(size))
        self._first, self._second = array("I", bytes(4 * size)), array("I", bytes(4 * size))
        self._after = transitions().flatten().tolist()

    def read(self, places: list[int], checks: list[int], tokens: list[int]) -> None:
        """Store what followed, as :meth:`.Slots.of` and :meth:`.Slots.followed_by` say.

        Args:
            places: The place of the context after each token, ``[T]``.
            checks: Its check, ``[T]``.
            tokens: The tokens, ``[T]``.
        """
        before = zip(places, checks, strict=True)
        if self.waiting is None:
            self._store(zip(before, tokens[1:], strict=False))
        else:
            self._store(zip([self.waiting, *before], tokens, strict=False))
        self.waiting = places[-1], checks[-1]

    def _store(self, visits: Iterable[tuple[tuple[int, int], int]]) -> None:
        held, patterns, after = self._checks, self._patterns, self._after
        firsts, seconds = self._first, self._second
        for (place, check), token in visits:
            if held[place] == check:
                first, pattern = firsts[place], patterns[place]
            else:
                held[place] = check
                first = pattern = seconds[place] = 0
            if first == token:
                pattern += 2 * PATTERNS
            else:
                if seconds[place] == token:
                    pattern += PATTERNS
                seconds[place] = first
            firsts[place] = token
            patterns[place] = after[pattern]

    def slots(self) -> Slots:
        """What they hold, ``[size]`` each."""
        parts = (self._checks, self._first, self._second, self._patterns)
        return Slots(*(torch.from_numpy(np.array(part, np.int64)) for part in parts))
