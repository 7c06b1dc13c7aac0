"""Silence for onnxruntime's quantisers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_quantizer"]


@contextmanager
def quiet_quantizer() -> Iterator[None]:
    """Silence the advice of a quantiser, and restore the logging that it reconfigures on import."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
