"""The layout of a memory of hashed contexts, for whoever builds one or looks into a state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CHECKS",
    "COUNTS",
    "OTHER_COUNTS",
    "PATTERNS",
    "adapts",
    "check_lookups",
    "check_slots",
    "is_learnt",
    "is_lookup",
    "slot_bytes",
    "with_stored_slots",
]

COUNTS, OTHER_COUNTS = 8, 5
"""How many counts a slot tells apart: of its newest token, from 0, and of its other one."""

PATTERNS = COUNTS * OTHER_COUNTS
"""Pairs of counts, numbered ``OTHER_COUNTS * count + other``."""

CHECKS = 255
"""Different checks: one context in so many is taken for another that has its slot."""

_LOOKUPS = "context_slots"
"""The tensor of what was looked up last, ``[B, n, 6]``: place, packed slot, check, first and second
token, pattern."""

_PREDICTION = ("context_shares", "context_logits")
"""The tensors of what the last lookups predicted."""

_ADAPTED = "adapted"
"""The tensor of the online weights, ``[B, n + 1]``: a bias for each context, a log temperature."""

Values = dict[str, npt.NDArray[Any]]


def slot_bytes(vocab_size: int) -> int:
    """Size of the smallest whole number that holds a packed slot."""
    return 4 if CHECKS * vocab_size * vocab_size * PATTERNS < 1 << 31 else 8


def is_learnt(name: str) -> bool:
    """Whether a tensor holds what a stream has learnt from what it read."""
    return name.startswith("memory_") or name == _ADAPTED


def is_lookup(name: str) -> bool:
    """Whether a tensor holds what was looked up in the memory, which another memory makes void."""
    return name == _LOOKUPS or name in _PREDICTION


def adapts(names: Iterable[str]) -> bool:
    """Whether a state has online weights, which ``learn`` below 1 leaves as they are."""
    return _ADAPTED in names


def with_stored_slots(values: Values, memory: Values) -> Values:
    """A state whose lookups have found the slots of a memory.

    Args:
        values: Tensors of a state; without lookups, they are returned as they are.
        memory: The memory's tensors.
    """
    slots = values.get(_LOOKUPS)
    if slots is None:
        return values
    slots = slots.copy()
    slots[:, :, 1] = np.take_along_axis(memory["memory_slots"], slots[:, :, 0], 1)
    return {**values, _LOOKUPS: slots}


def check_slots(values: Values, vocab_size: int) -> None:
    """Refuse a memory with slots that no token could have left.

    Args:
        values: Tensors of a state; without a memory of contexts, there is nothing to refuse.
        vocab_size: Number of tokens.

    Raises:
        ValueError: There are such.
    """
    slots = values.get("memory_slots")
    if (
        slots is not None
        and not ((slots >= 0) & (slots < CHECKS * vocab_size * vocab_size * PATTERNS)).all()
    ):
        raise ValueError("the memory holds slots that do not exist")


def check_lookups(values: Values, vocab_size: int, slots: int) -> None:
    """Refuse lookups of slots or tokens that do not exist.

    Args:
        values: Tensors of a state; without lookups, there is nothing to refuse.
        vocab_size: Number of tokens.
        slots: Slots of the memory.

    Raises:
        ValueError: There are such.
    """
    found, recent = values.get(_LOOKUPS), values.get("context_tokens")
    if recent is not None and not ((recent >= 0) & (recent <= vocab_size)).all():
        raise ValueError("it has read tokens that do not exist")
    if found is None:
        return
    limits = np.asarray([slots, 1 << 62, CHECKS, vocab_size, vocab_size, PATTERNS])
    if not ((found >= 0) & (found < limits)).all():
        raise ValueError("it has found slots that do not exist")
