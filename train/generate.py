"""Generating with the PyTorch model, as the runtime does with its graphs."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..runtime.errors import UsageError
from ..runtime.sampling.sampler import Sampler, SamplingParams
from ..runtime.streams.stream import LEARN_MODES
from ..runtime.tokenizer import Tokenizer
from .model.dual_cnn import DualCNN

__all__ = ["stream_text"]


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
        prompt: The text to continue; when there is nothing to read, the stream begins after a
            line break.
        params: How to sample.
        max_new_tokens: Tokens to generate.
        learn: What the memory stores: what is ``read`` and not what is written, ``all``, or
            ``none``.
        seed_text: A text to read first, so that the memory begins with it.

    Yields:
        Pieces of text, none of them empty.

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
    # A long prompt goes in by pieces: reading takes memory for every position of a piece.
    for start in range(0, len(tokens), 512):
        piece = torch.tensor([tokens[start : start + 512]], device=device)
        logits, state = model(piece, state, torch.full((1,), float(learn != "none"), device=device))
    written = torch.full((1,), float(learn == "all"), device=device)
    for _ in range(max_new_tokens):
        token = sampler.draw(logits[0, -1].cpu().numpy())
        text = decoder.push(token)
        if text:
            yield text
        logits, state = model(torch.tensor([[token]], device=device), state, written)
