"""Parts of rillet whose libraries are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import RilletError

__all__ = ["MissingPartError", "needing"]


class MissingPartError(RilletError, ModuleNotFoundError):
    """A library is not installed."""


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Say what to install if an import in the body fails.

    Args:
        what: What needs the library, for the message.
        extra: The extra that installs it.

    Raises:
        MissingPartError: The library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPartError(
            f"{what} needs {error.name}, which is not installed; install it with: "
            f"pip install 'rillet[{extra}]'",
            name=error.name,
        ) from error
