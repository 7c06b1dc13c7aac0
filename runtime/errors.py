"""Errors that a user can act on.

Each message says what was wrong, shows the value, and says what to do. The command line prints the
message and exits with ``exit_code``; in Python, catch :class:`RilletError`.
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

_MAX_LENGTH = 300


class RilletError(Exception):
    """Base class of every error that rillet raises deliberately."""

    exit_code = 1


class UsageError(RilletError, ValueError):
    """An argument or option has an invalid value."""

    exit_code = 2


class ConfigError(UsageError):
    """The settings of a model or training configuration contradict each other."""


class CorpusError(RilletError):
    """A training corpus or an input text cannot be used."""


class BundleError(RilletError):
    """A bundle or checkpoint is missing, damaged, or not written by rillet."""


class StateError(RilletError):
    """A saved stream is missing, damaged, or from another model."""


class OtherModelError(StateError):
    """A saved stream is whole, and from another model."""


class StorageError(RilletError, OSError):
    """A file cannot be written, for example on a full disk; the old file is kept."""


class EngineError(RilletError):
    """An inference engine is missing or failed."""


class ParityError(RilletError):
    """An exported graph does not compute what the PyTorch model computes."""


def brief(error: object) -> str:
    """Another library's message, shortened in case it quotes half a file."""
    text = str(error)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]} ..."
