"""Generate text with the PyTorch model, as the runtime does with the exported graphs."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..runtime.errors import UsageError
from ..runtime.sampling.sampler import Sampler, SamplingParams
from ..runtime.streams.stream import LEARN_MODES
from ..runtime.tokenizer import Tokenizer
from .model.dual_cnn import DualCNN

__all__ = ["stream_text"]

_PIECE = 512
"""Prompt tokens read at a time: prefill needs memory for every position."""


@torch.no_grad()
def stream_text(
    model: DualCNN,
    tokenizer: Tokenizer,
    prompt: str,
    params: SamplingParams,
    max_new_tokens: int = 200,
    learn: str = "read",
    seed_text: str = "",
) -> Iterator[str]:
    """Read a prompt and generate text piece by piece.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt: The text to continue; if there is nothing to read, the stream starts after a
            line break.
        params: Sampling parameters.
        max_new_tokens: Number of tokens to generate.
        learn: What the memory stores: ``read`` for the text that is read but not the text that
            is generated, ``all`` for both, or ``none``.
        seed_text: A text to read first, to fill the memory.

    Yields:
        Nonempty pieces of text.

    Raises:
        UsageError: ``learn`` is none of these.
    """
    if learn not in LEARN_MODES:
        raise UsageError(f"learn is {learn!r}; it must be one of {', '.join(LEARN_MODES)}")
    model.eval()
    tokens = tokenizer.encode(seed_text + prompt) or tokenizer.encode("\n") or [0]
    device = model.embedder.codes.device
    sampler, decoder = Sampler(params), tokenizer.decoder()
    state = model.zero_state()
    for start in range(0, len(tokens), _PIECE):
        piece = torch.tensor([tokens[start : start + _PIECE]], device=device)
        logits, state = model(piece, state, torch.full((1,), float(learn != "none"), device=device))
    written = torch.full((1,), float(learn == "all"), device=device)
    for _ in range(max_new_tokens):
        token = sampler.draw(logits[0, -1].cpu().numpy())
        text = decoder.push(token)
        if text:
            yield text
        logits, state = model(torch.tensor([[token]], device=device), state, written)
