"""Models and tokens for timing, where only their shape and order matter."""

from __future__ import annotations

import numpy as np
import torch

from rillet.train import DualCNN, DualCNNConfig, builtin_corpus

from .arrays import TokenArray

__all__ = ["fresh_model", "no_words", "sample_tokens"]


def fresh_model(config: DualCNNConfig) -> DualCNN:
    """An untrained model, its fixed parts fitted to a text, in evaluation mode."""
    tokens = torch.from_numpy(sample_tokens(config.vocab_size))
    return DualCNN(config).fit(tokens, no_words(config.vocab_size)).eval()


def no_words(vocab_size: int) -> list[bytes]:
    """The bytes of tokens that form no words: for a timing, it does not matter which do."""
    return [b" "] * vocab_size


def sample_tokens(vocab_size: int) -> TokenArray:
    """100,000 tokens with the structure of English text, for a vocabulary of any size."""
    text = np.frombuffer(builtin_corpus()[:100_000].encode(), np.uint8)
    return text.astype(np.int64) % vocab_size
