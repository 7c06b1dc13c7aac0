"""Answers in the shapes of OpenAI's."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterable
from typing import Any

from ..streams.generation import GeneratedToken
from ..tokenizer import Tokenizer, shown
from .lane import CANCELLED

__all__ = ["Answer", "finish_reason"]


class Answer:
    """What clients get of a request.

    Args:
        model: What the model is called.
        tokenizer: Its tokenizer.
        logprobs: Whether log-probabilities are wanted.
        prompt_tokens: Tokens of all prompts.
        warnings: What the client should know.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        logprobs: bool,
        prompt_tokens: int,
        warnings: list[str],
    ) -> None:
        self._tokenizer, self._logprobs = tokenizer, logprobs
        self._prompt_tokens, self._warnings = prompt_tokens, warnings
        self._written = 0
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        # All but the choices, for pieces of one text: encoded once.
        self._prefix = json.dumps(self._head)[:-1] + ', "choices": ['
        self._offsets: dict[int, int] = {}

    def count(self, tokens: list[GeneratedToken]) -> str:
        """Count some tokens of a text; returns what they show."""
        self._written += len(tokens)
        text = "".join([token.text for token in tokens])
        return text if text.isascii() else "".join([shown(token.text) for token in tokens])

    def chunk(
        self, index: int, text: str, tokens: list[GeneratedToken], reason: str | None
    ) -> bytes:
        """A piece of a text as an event."""
        logprobs = json.dumps(self.logprobs(index, tokens)) if self._logprobs else "null"
        ended = json.dumps(finish_reason(reason))
        # To encode a text alone takes a third of what an object takes.
        return (
            f'data: {self._prefix}{{"index": {index}, "text": {json.dumps(text)}, '
            f'"logprobs": {logprobs}, "finish_reason": {ended}}}]}}\n\n'
        ).encode()

    def last_chunk(self) -> bytes:
        """The figures, as the event before the end."""
        content = json.dumps({**self._head, "choices": [], **self._figures()})
        return f"data: {content}\n\n".encode()

    def whole(self, choices: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """The answer that is not streamed."""
        return {**self._head, "choices": list(choices), **self._figures()}

    def _figures(self) -> dict[str, Any]:
        prompt, written = self._prompt_tokens, self._written
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
        return {"usage": usage, **({"warnings": self._warnings} if self._warnings else {})}

    def logprobs(self, index: int, tokens: Iterable[GeneratedToken]) -> dict[str, Any]:
        """Log-probabilities of the next tokens of a text, as completions show them."""
        shape: dict[str, list[Any]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        decode, offset = self._tokenizer.decode, self._offsets.get(index, 0)
        for token in tokens:
            text = decode([token.token])
            known = not math.isnan(token.logprob)
            shape["tokens"].append(text)
            shape["token_logprobs"].append(token.logprob if known else None)
            top = {decode([number]): logprob for number, logprob in token.top}
            shape["top_logprobs"].append(top if known else None)
            shape["text_offset"].append(offset)
            offset += len(text)
        self._offsets[index] = offset
        return shape


def finish_reason(reason: str | None) -> str | None:
    """Why a text ended, in OpenAI's words."""
    if reason is None:
        return None
    return "length" if reason in ("length", CANCELLED) else "stop"
