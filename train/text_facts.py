"""What of a text decides how a model is trained on it."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from .config.presets import PRESETS
from .data.corpus import Corpus
from .data.tokenizers import MAX_CHARACTERS, make_tokenizer

__all__ = ["TextFacts", "compression_ratio", "dropout_share", "shape_for"]

_LARGE = 4_000_000
"""Bytes from which a text of few characters is worth tokens of its own."""

_TUNED_ON = 1_000_000
"""Bytes of the text that the presets' dropout was tuned on."""


@dataclasses.dataclass(frozen=True)
class TextFacts:
    """What a choice depends on.

    Attributes:
        tokenizer: The kind of tokenizer.
        why: Why this one.
        vocab: Size of its vocabulary.
        tokens: Tokens of the text, estimated for a learned vocabulary.
        size: Bytes of the text.
    """

    tokenizer: str
    why: str
    vocab: int
    tokens: int
    size: int

    @classmethod
    def of(cls, corpus: Corpus, changes: Mapping[str, Any]) -> TextFacts:
        """Read a text.

        Args:
            corpus: The text.
            changes: Settings of the user.
        """
        facts = corpus.scan()
        symbols, kind = len(facts.symbols), changes.get("tokenizer", "auto")
        why = "as you set" if kind != "auto" else f"the text has {symbols:,} distinct characters"
        if kind == "auto" and corpus.any_bytes:
            kind, why = "byte", "as asked for; bytes can represent any text"
        if kind == "auto" and symbols > MAX_CHARACTERS:
            why += f", more than {MAX_CHARACTERS}; bytes can represent any text"
        if kind == "auto" and symbols <= MAX_CHARACTERS and corpus.size >= _LARGE:
            kind = "bpe"
            why = f"the text is over {_LARGE / 1e6:.0f} MB, enough for a vocabulary of its own"
        if kind == "auto":
            kind = "char" if symbols <= MAX_CHARACTERS else "byte"
        if kind == "char":
            return cls(kind, why, symbols, facts.characters, corpus.size)
        if kind == "byte":
            return cls(kind, why, 256, corpus.size, corpus.size)
        vocab = int(changes.get("bpe_vocab", PRESETS["nano"].training.bpe_vocab))
        sample = _beginning(corpus)
        tokenizer = make_tokenizer(sample, "bpe", vocab)
        length = len(sample.encode("utf-8", "replace")) / max(1, len(tokenizer.encode(sample)))
        why += f"; a token has about {length:.1f} bytes"
        return cls(kind, why, vocab, int(corpus.size / length), corpus.size)


def shape_for(text: TextFacts, changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings that follow from the text alone, and why."""
    tokens = text.tokens
    chunk = int(changes.get("chunk", 256 if tokens >= 50_000 else 64))
    batch = int(changes.get("batch", max(1, min(32, tokens // (4 * chunk)))))
    given = " and ".join(name for name in ("chunk", "batch") if name in changes)
    reasons = [
        f"tokenizer={text.tokenizer}: {text.why}",
        f"chunk={chunk}, batch={batch}: {given + ' as you set; ' if given else ''}{tokens:,} "
        f"tokens give each stream {tokens // max(1, batch):,}",
    ]
    shape = {"tokenizer": text.tokenizer, "vocab_size": text.vocab, "chunk": chunk, "batch": batch}
    return shape, reasons


def dropout_share(size: int) -> float:
    """How much of the presets' dropout a text of so many bytes wants: the larger, the less."""
    return float(min(1.0, (_TUNED_ON / max(1, size)) ** 0.5))


def _beginning(corpus: Corpus) -> str:
    return "".join(islice(corpus.blocks(), 1))[:500_000]


def compression_ratio(corpus: Corpus) -> float:
    """How well the beginning of the text compresses: 2 to 3 for prose, 5 and more for logs."""
    sample = _beginning(corpus)
    # Numbered by frequency, since an alphabet of two or three bytes a letter would compress better.
    frequent = Counter(sample).most_common()
    numbers = {ord(character): number for number, (character, _) in enumerate(frequent)}
    data = sample.translate(numbers).encode("utf-8", "surrogatepass")
    return len(data) / max(1, len(zlib.compress(data, 6)))
