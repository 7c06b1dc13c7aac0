"""Errors that a user can act on.

Each message says what was wrong, with the value seen, and what to do about it.
The command line prints the message and leaves with ``exit_code``; a library
user catches :class:`RilletError`.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ConfigError",
    "CorpusError",
    "EngineError",
    "ParityError",
    "RilletError",
    "StateError",
    "StorageError",
    "UsageError",
    "brief",
]


class RilletError(Exception):
    """Base of all errors that rillet raises on purpose."""

    exit_code = 1


class UsageError(RilletError, ValueError):
    """An argument or option has a value that can never work."""

    exit_code = 2


class ConfigError(UsageError):
    """A model or training configuration has conflicts."""


class CorpusError(RilletError):
    """A text to train on, or to read, cannot be used."""


class BundleError(RilletError):
    """A bundle or checkpoint is missing, damaged, or not ours."""


class StateError(RilletError):
    """A saved stream is missing, damaged, or of another model."""


class StorageError(RilletError, OSError):
    """A file cannot be written, as on a full disk; what was there is kept."""


class EngineError(RilletError):
    """An inference engine is missing or failed."""


class ParityError(RilletError):
    """An exported graph does not compute what the PyTorch model computes."""


def brief(error: object) -> str:
    """What another library says, cut where it quotes half a file."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


_LONGEST = 300
