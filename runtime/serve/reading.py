"""Reading for a stream, piece by piece: prompts, and the predictions of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np

from ..loaded import LoadedModel
from ..streams.encoding import TextSize, encode_pieces, unknown_text
from ..streams.generation import GeneratedToken
from ..streams.session import Session
from .errors import RequestError
from .limits import Limits

__all__ = ["check_length", "encode", "read", "read_with_predictions"]

_PIECE = 128
"""Tokens that are read before others have their turn."""

_SLICE = 16_384
"""Characters that are encoded before the tokens are counted: a text that is too long ends there."""


def encode(model: LoadedModel, text: str, limits: Limits) -> tuple[list[int], str | None]:
    """A text's tokens, and a warning if it has characters that the model lacks.

    Raises:
        RequestError: It is too long.
        UsageError: It is no text.
    """
    size, tokens = TextSize(), list[int]()
    pieces = (text[start : start + _SLICE] for start in range(0, len(text), _SLICE))
    for chunk in encode_pieces(model.tokenizer, pieces, size):
        tokens += chunk
        check_length(tokens, limits)
    return tokens, unknown_text(list(size.unknown)) if size.unknown else None


def check_length(tokens: Sequence[int], limits: Limits) -> None:
    """Refuse a text that is too long.

    Raises:
        RequestError: It is.
    """
    if len(tokens) > limits.prompt_tokens:
        raise RequestError(
            f"the text has at least {len(tokens):,} tokens; this server reads at most "
            f"{limits.prompt_tokens:,} at a time: feed a stream piece by piece",
            413,
            code="too_long",
        )


def read(
    session: Session, tokens: Sequence[int], on_read: Callable[[int], object]
) -> Generator[None, None, None]:
    """Read tokens in pieces: all of them, or none if it fails or is closed.

    Args:
        session: The stream.
        tokens: The tokens.
        on_read: Called with the number of tokens of each piece.
    """
    with _all_or_nothing(session) if len(tokens) > _PIECE else nullcontext():
        for start in range(0, len(tokens), _PIECE):
            piece = tokens[start : start + _PIECE]
            session.feed_tokens(piece)
            on_read(len(piece))
            if start + _PIECE < len(tokens):
                yield


def read_with_predictions(
    session: Session, tokens: Sequence[int], top: int, on_read: Callable[[int], object]
) -> Generator[None, None, list[GeneratedToken]]:
    """Read tokens one by one, and note how likely each was: all of them, or none, as :func:`read`.

    Returns:
        The tokens, each with its log-probability; that of a new stream's first is NaN, and has no
        alternatives.
    """
    noted = []
    with _all_or_nothing(session):
        for place, token in enumerate(tokens):
            logits, text = session.logits, session.model.tokenizer.decode([token])
            if logits is None:
                noted.append(GeneratedToken(token, text, float("nan")))
            else:
                best = np.argsort(-logits, kind="stable")[:top].tolist()
                likely = tuple((number, float(logits[number])) for number in best)
                noted.append(GeneratedToken(token, text, float(logits[token]), likely))
            session.feed_tokens([token])
            on_read(1)
            if place % _PIECE == 0:
                yield
    return noted


@contextmanager
def _all_or_nothing(session: Session) -> Iterator[None]:
    """Bring a stream back to where it was if what is done with it fails, or is closed."""
    mark = session.checkpoint()
    try:
        yield
    except BaseException:
        session.rollback(mark)
        raise
