"""Generate text with the PyTorch model, as the runtime does with the exported graphs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..runtime.errors import UsageError
from ..runtime.sampling.params import SamplingParams
from ..runtime.streams.encoding import encode_pieces
from ..runtime.streams.generation import Generation
from ..runtime.streams.history import TokenHistory
from ..runtime.streams.stream import LEARN_MODES
from ..runtime.tokenizer import Tokenizer, shown
from .model.dual_cnn import DualCNN

__all__ = ["start_token", "stream_text"]

_PIECE = 512
"""Prompt tokens read at a time: prefill needs memory for every position."""


def start_token(tokenizer: Tokenizer) -> int:
    """The token to begin a text with when there is no prompt: a line break if there is one."""
    return (tokenizer.encode("\n") or tokenizer.encode(" ") or [0])[0]


@torch.no_grad()
def stream_text(
    model: DualCNN,
    tokenizer: Tokenizer,
    prompt: str,
    params: SamplingParams,
    learn: str = "read",
    seed_text: str = "",
) -> Iterator[str]:
    """Read a prompt and generate text piece by piece: the text that a bundle of the model writes.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt: The text to continue; if there is nothing to read, the stream starts after a
            line break.
        params: Sampling parameters.
        learn: What the memory stores: ``read`` for the text that is read but not the text that
            is generated, ``all`` for both, or ``none``.
        seed_text: A text to read first, to fill the memory.

    Yields:
        Nonempty pieces of text.

    Raises:
        UsageError: ``learn`` is none of these, or the options do not fit the model.
    """
    if learn not in LEARN_MODES:
        raise UsageError(f"learn is {learn!r}; it must be one of {', '.join(LEARN_MODES)}")
    model.eval()
    device = model.embedder.codes.device
    state, history = model.zero_state(), TokenHistory(tokenizer.vocab_size)
    logits: Tensor | None = None

    def read(tokens: list[int], stored: float) -> Tensor:
        nonlocal state
        rows = torch.tensor([tokens], device=device)
        predicted: Tensor
        predicted, state = model(rows, state, torch.full((1,), stored, device=device))
        history.extend(tokens)
        return predicted[0, -1].cpu()

    stored = float(learn != "none")
    for tokens in encode_pieces(tokenizer, [seed_text + prompt]):
        for start in range(0, len(tokens), _PIECE):
            logits = read(tokens[start : start + _PIECE], stored)
    recent, decoder = history.recent, tokenizer.decoder(exact=True)
    before = b"".join(tokenizer.token_bytes[token] for token in recent)
    generation = Generation(params, tokenizer, history.seen, before, recent)
    if logits is None:
        logits = read([start_token(tokenizer)], stored)
    # As in a stream of the runtime, online weights do not follow what is written.
    stored = (0.5 if model.config.adapts else 1.0) if learn == "all" else 0.0
    while generation.finish_reason is None:
        draw = generation.draw(logits.numpy())
        text = generation.accept(draw, decoder.push(draw.token)).text
        if text:
            yield shown(text)
        logits = read([draw.token], stored)
