"""What the server takes on at most."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from using up what others need.

    Attributes:
        rows: Texts that a model writes at a time.
        waiting: Texts that wait for a row; more are refused.
        choices: Texts of one request.
        prompt_tokens: Tokens of a prompt, or of another text that is read.
        max_tokens: Tokens of a text.
        body_bytes: Bytes of a request's body.
        seconds: Seconds that a request may take; its texts end then.
        streams: Streams that are open in memory.
        saved_streams: Streams that are saved in a folder.
        idle_seconds: Seconds after which an idle stream leaves the memory, if it is saved.
    """

    rows: int = 256
    waiting: int = 256
    choices: int = 64
    prompt_tokens: int = 65_536
    max_tokens: int = 4_096
    body_bytes: int = 1 << 20
    seconds: float = 600.0
    streams: int = 1_024
    saved_streams: int = 100_000
    idle_seconds: float = 300.0
