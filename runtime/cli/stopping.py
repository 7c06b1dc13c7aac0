"""How a command ends when a signal has stopped it."""

from __future__ import annotations

import signal

import click

from ..interrupt import Interrupt
from .terminal import tell

__all__ = ["stopped"]


def stopped(interrupt: Interrupt) -> Exception:
    """What to raise: it makes the exit status 130, or 143 after SIGTERM, as shells expect."""
    if interrupt.signal_number == signal.SIGTERM:
        tell("\nStopped.", err=True)
        return click.exceptions.Exit(128 + signal.SIGTERM)
    return click.Abort()
