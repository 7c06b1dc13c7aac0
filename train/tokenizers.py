"""Tokenizers made from a corpus, as Hugging Face ``tokenizers`` files."""

from __future__ import annotations

import json
from typing import Any

from ..runtime.errors import UsageError
from ..runtime.tokenizer import Tokenizer, byte_level_alphabet

__all__ = ["MOST_CHARACTERS", "TOKENIZERS", "make_tokenizer"]

TOKENIZERS = ("auto", "char", "byte")

MOST_CHARACTERS = 256
"""Distinct characters up to which ``auto`` gives each a token of its own."""


def make_tokenizer(text: str, kind: str = "auto") -> Tokenizer:
    """Make a tokenizer for a corpus.

    Args:
        text: The corpus.
        kind: ``char``, a token for each character of the corpus; ``byte``, a token
            for each byte, so that nothing is ever unknown; ``auto``, ``char`` where
            the corpus has at most :data:`MOST_CHARACTERS` distinct ones.

    Raises:
        UsageError: ``kind`` is none of these.
    """
    if kind not in TOKENIZERS:
        raise UsageError(f"tokenizer is {kind!r}; it must be one of {', '.join(TOKENIZERS)}")
    characters = sorted(set(text))
    if kind == "auto":
        kind = "char" if len(characters) <= MOST_CHARACTERS else "byte"
    if kind == "char":
        return Tokenizer(_source(characters, pre_tokenizer=None, decoder={"type": "Fuse"}))
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return Tokenizer(_source(byte_level_alphabet(), byte_level, byte_level))


def _source(
    symbols: list[str], pre_tokenizer: dict[str, Any] | None, decoder: dict[str, Any]
) -> str:
    """A BPE file with one token for each symbol and no merges."""
    file: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {symbol: number for number, symbol in enumerate(symbols)},
            "merges": [],
        },
    }
    return json.dumps(file, ensure_ascii=False, indent=1)
