"""Requests to stop: recorded between steps, raised in waits."""

from __future__ import annotations

import os
import signal

import pytest

from rillet.runtime.interrupt import interruptible


def interrupt_this_process() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_request_is_recorded_and_the_second_raises() -> None:
    with interruptible() as interrupt:
        interrupt_this_process()
        assert interrupt.requested
        assert interrupt.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            interrupt_this_process()


def test_a_request_raises_in_a_wait() -> None:
    with (
        interruptible() as interrupt,
        pytest.raises(KeyboardInterrupt),
        interrupt.raise_at_once(),
    ):
        interrupt_this_process()


def test_a_request_just_before_a_wait_is_not_waited_through() -> None:
    """It came after the last check and before the wait began."""
    with interruptible() as interrupt:
        interrupt_this_process()
        with pytest.raises(KeyboardInterrupt), interrupt.raise_at_once():
            pytest.fail("the wait began")
    assert interrupt.requested
