"""Build a tokenizer from a corpus, and encode a corpus.

Tokenizers are Hugging Face ``tokenizers`` files. The encoders here return exactly the tokens
that :meth:`Tokenizer.encode` returns.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from ...runtime.errors import CorpusError, RilletError, UsageError, brief
from ...runtime.files import as_path, sha256_bytes, write_atomic
from ...runtime.tokenizer import Tokenizer, byte_level_alphabet, escaped_bytes, text_bytes
from .corpus import Corpus, Progress
from .token_file import Tokens, open_tokens, read_header, token_dtype, write_header, write_tokens

__all__ = [
    "MAX_CHARACTERS",
    "MAX_IN_MEMORY",
    "MAX_TOKENS",
    "TOKENIZERS",
    "VOCAB_SIZE",
    "Prepared",
    "TokenizerLike",
    "encode_blocks",
    "make_tokenizer",
    "prepare",
]

TOKENIZERS = ("auto", "char", "byte", "bpe")

MAX_CHARACTERS = 256
"""Number of distinct characters up to which ``auto`` chooses ``char``."""

VOCAB_SIZE = 1_024
"""Default vocabulary size of a ``bpe`` tokenizer."""

MAX_TOKENS = 65_536
"""Maximum vocabulary size of a ``bpe`` tokenizer."""

MAX_IN_MEMORY = 64 << 20
"""Size of a corpus in bytes up to which :func:`prepare` works without a folder."""

_PIECE = 1 << 14
"""Characters that BPE encodes at a time."""

_WORDS = re.compile(r"(?s).*\S(?=[ \n])")

Json = dict[str, Any] | None

TokenizerLike = Tokenizer | tokenizers.Tokenizer | Path | str
"""A tokenizer, one of Hugging Face's, the path of a ``tokenizer.json``, or the kind to build."""

_BYTES = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": False,
}


def make_tokenizer(
    text: str | Iterable[str], kind: str = "auto", vocab_size: int | None = None
) -> Tokenizer:
    """Build a tokenizer for a corpus.

    Args:
        text: The corpus, whole or in pieces; it is read once, in order.
        kind: ``char``, one token per character of the corpus; ``byte``, one token per byte,
            which can represent any text; ``bpe``, bytes plus the most frequent byte
            sequences; or ``auto``, which chooses ``char`` if the corpus has at most
            :data:`MAX_CHARACTERS` distinct characters, and ``byte`` otherwise.
        vocab_size: Vocabulary size for ``bpe``, :data:`VOCAB_SIZE` by default. The result is
            smaller if too few pairs occur twice.

    Raises:
        CorpusError: The text has bytes that are not UTF-8, and ``kind`` is ``char`` or ``bpe``.
        UsageError: ``kind`` is unknown, or ``vocab_size`` does not fit it.
    """
    size = _check(kind, vocab_size)
    pieces = [text] if isinstance(text, str) else text
    if size is not None:
        return _train_bpe(pieces, size)
    symbols: set[str] = set()
    if kind != "byte":
        for piece in pieces:
            symbols.update(piece)
    any_bytes = bool(escaped_bytes("".join(symbols)))
    if kind == "char":
        _check_text("".join(sorted(symbols)))
    if kind == "char" or (kind == "auto" and len(symbols) <= MAX_CHARACTERS and not any_bytes):
        return Tokenizer(_source(sorted(symbols), None, {"type": "Fuse"}))
    return Tokenizer(_source(byte_level_alphabet(), _BYTES, _BYTES))


def encode_blocks(
    tokenizer: Tokenizer, blocks: Iterable[str]
) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """Encode a text that arrives in pieces, yielding arrays of any length, in order.

    For tokenizers built here, the tokens do not depend on where the text is cut, with one
    exception: BPE cuts after 16,384 characters without a space or newline.
    """
    if table := _lookup(tokenizer):
        encoding, dtype, numbers = table
        for block in blocks:
            is_bytes = encoding == "utf-8"
            data = text_bytes(block) if is_bytes else block.encode(encoding, "ignore")
            tokens = numbers[np.frombuffer(data, dtype)]
            known = tokens >= 0
            yield tokens if known.all() else tokens[known]
        return
    inner, pieces = tokenizers.Tokenizer.from_str(tokenizer.source), _words(blocks)
    while batch := list(islice(pieces, 32)):
        for encoded in inner.encode_batch(batch, add_special_tokens=False):
            yield np.asarray(encoded.ids, np.int64)


@dataclass(frozen=True)
class Prepared:
    """A corpus as tokens.

    Attributes:
        tokenizer: The tokenizer that encoded it.
        tokens: The whole corpus.
        characters: Length of the text in characters.
        sha256: SHA-256 of the text.
        names: Names of its texts.
        unknown: Characters that the tokenizer lacks; they were left out.
        zeros: How many characters are U+0000.
    """

    tokenizer: Tokenizer
    tokens: Tokens
    characters: int
    sha256: str
    names: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    zeros: int = 0


def prepare(
    corpus: Corpus,
    tokenizer: TokenizerLike = "auto",
    folder: str | Path | None = None,
    progress: Progress | None = None,
    vocab_size: int | None = None,
) -> Prepared:
    """Encode a corpus, or reuse the tokens of an earlier call.

    The tokens, their header and ``tokenizer.json`` are stored in ``folder``. A later call
    reuses them if the files have the same sizes and times, or else the same text.

    Args:
        corpus: The text.
        tokenizer: A tokenizer, the path of its file, or the kind to build.
        folder: Folder for the tokens, created if missing; ``None`` keeps them in memory.
        progress: Called as the text is read and encoded.
        vocab_size: As for :func:`make_tokenizer`.

    Raises:
        CorpusError: The corpus or the folder cannot be used.
        UsageError: The corpus is too large for memory, or the tokenizer's settings are wrong.
        BundleError: The tokenizer cannot be streamed, or its file cannot be read.
    """
    folder, tokenizer = None if folder is None else as_path(folder), _known(tokenizer)
    if tokenizer == "byte" or (isinstance(tokenizer, Tokenizer) and tokenizer.reads_any_bytes):
        corpus = corpus.as_bytes()
    if isinstance(tokenizer, str):
        request = {"kind": tokenizer, "vocab_size": _check(tokenizer, vocab_size)}
    else:
        request = {"kind": sha256_bytes(tokenizer.source.encode()), "vocab_size": None}
    about: dict[str, Any] = {"request": request, "stamp": corpus.stamp()}
    if folder is not None and (prepared := _reuse(corpus, folder, about, progress)):
        return prepared
    if folder is None and corpus.size > MAX_IN_MEMORY:
        raise UsageError(
            f"the corpus has {corpus.size:,} bytes, more than the {MAX_IN_MEMORY:,} that are kept "
            "in memory; give a folder for its tokens"
        )
    if isinstance(tokenizer, str):
        known = tokenizer in ("auto", "char")
        text = [corpus.scan(progress).symbols] if known else corpus.blocks(progress)
        tokenizer = make_tokenizer(text, tokenizer, vocab_size)
    blocks, size = _encode(corpus, tokenizer, about, progress), tokenizer.vocab_size
    if folder is None:
        parts = [block.astype(token_dtype(size)) for block in blocks]
        return _prepared(tokenizer, Tokens(np.concatenate(parts)), about)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.source.encode())
    return _prepared(tokenizer, write_tokens(folder / "corpus.tokens", blocks, size, about), about)


def _known(tokenizer: TokenizerLike) -> Tokenizer | str:
    """A tokenizer, or the kind to build, from what a caller gave."""
    if isinstance(tokenizer, Tokenizer) or tokenizer in TOKENIZERS:
        return tokenizer
    if isinstance(tokenizer, tokenizers.Tokenizer):
        return Tokenizer(tokenizer.to_str())
    if isinstance(tokenizer, Path):
        return Tokenizer.load(tokenizer)
    raise UsageError(
        f"tokenizer is {brief(repr(tokenizer))}; give one of {', '.join(TOKENIZERS)}, the "
        "pathlib.Path of a tokenizer.json, or a tokenizer of rillet or of Hugging Face's tokenizers"
    )


def _encode(
    corpus: Corpus, tokenizer: Tokenizer, about: dict[str, Any], progress: Progress | None
) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """Yield the tokens, then complete ``about``."""
    yield from encode_blocks(tokenizer, corpus.blocks(progress, "encoding"))
    unknown = tokenizer.unknown(corpus.symbols)
    if len(unknown) == len(corpus.symbols):
        raise CorpusError(
            f"the tokenizer has none of the corpus's {len(unknown)} characters, such as "
            f"{unknown[0]!r}; use a tokenizer built for this corpus"
        )
    about["tokenizer_sha256"] = sha256_bytes(tokenizer.source.encode())
    about["sha256"], about["characters"] = corpus.sha256, corpus.characters
    about["names"], about["unknown"] = corpus.names, unknown
    about["zeros"] = corpus.scan().zeros


def _prepared(tokenizer: Tokenizer, tokens: Tokens, about: dict[str, Any]) -> Prepared:
    texts = about["characters"], about["sha256"], tuple(about["names"]), tuple(about["unknown"])
    return Prepared(tokenizer, tokens, *texts, zeros=about.get("zeros", 0))


def _reuse(
    corpus: Corpus, folder: Path, expected: dict[str, Any], progress: Progress | None
) -> Prepared | None:
    """Load the tokens that an earlier call left in a folder, if they match and are intact."""
    path = folder / "corpus.tokens"
    try:
        header = read_header(path)
        about = header.about
        if about["request"] != expected["request"]:
            return None
        same = about["stamp"] == expected["stamp"]
        if not same:  # read again: the corpus may have been scanned before its files changed
            deque(corpus.blocks(progress), maxlen=0)
        if not same and about["sha256"] != corpus.sha256:
            return None
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        if about["tokenizer_sha256"] != sha256_bytes(tokenizer.source.encode()):
            return None
        prepared = _prepared(tokenizer, open_tokens(path), about)
    except (RilletError, KeyError, TypeError):
        return None  # the caller rebuilds it
    if not same:
        about.update(stamp=expected["stamp"], names=corpus.names)
        write_header(path, header)
    return prepared


def _check(kind: str, vocab_size: int | None) -> int | None:
    """Check the options, and return the vocabulary size of ``bpe``; ``None`` for other kinds."""
    if kind not in TOKENIZERS:
        raise UsageError(f"tokenizer is {kind!r}; it must be one of {', '.join(TOKENIZERS)}")
    if kind == "bpe":
        size = VOCAB_SIZE if vocab_size is None else vocab_size
        if not 256 < size <= MAX_TOKENS:
            raise UsageError(f"vocab_size is {size:,}; it must be between 257 and {MAX_TOKENS:,}")
        return size
    if vocab_size is not None:
        raise UsageError(
            f"vocab_size is {vocab_size:,} but tokenizer is {kind!r}; only 'bpe' takes a size"
        )
    return None


def _train_bpe(pieces: Iterable[str], vocab_size: int) -> Tokenizer:
    trained, alphabet = tokenizers.Tokenizer(models.BPE()), byte_level_alphabet()
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(_words(pieces), trainer)
    model = json.loads(trained.to_str())["model"]
    # The library numbers bytes by code point; renumber them in the order of `byte` tokens.
    learned = sorted(set(model["vocab"]).difference(alphabet), key=model["vocab"].__getitem__)
    merges = [" ".join(pair) for pair in model["merges"]]
    return Tokenizer(_source(alphabet + learned, {**_BYTES, "use_regex": True}, _BYTES, merges))


def _check_text(text: str) -> None:
    if escaped := escaped_bytes(text):
        raise CorpusError(
            f"the text has the byte {escaped[0]:#04x}, which is not UTF-8; only the tokenizer "
            "'byte' reads it"
        )


def _words(blocks: Iterable[str]) -> Iterator[str]:
    """Cut the text before white space, which no BPE token spans."""
    held = ""
    for block in blocks:
        _check_text(block)
        held += block.encode("utf-8", "ignore").decode()  # a lone surrogate has no token
        while len(held) > _PIECE:
            match = _WORDS.match(held, 0, _PIECE)
            cut = match.end() if match else _PIECE
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _lookup(tokenizer: Tokenizer) -> tuple[str, str, npt.NDArray[np.int32]] | None:
    """Encoding, unit type, and the token of each unit or -1; ``None`` if no table suffices."""
    file, alphabet = json.loads(tokenizer.source), byte_level_alphabet()
    vocab, before = file["model"].get("vocab"), file.get("pre_tokenizer")
    symbols = sorted(vocab, key=vocab.__getitem__) if isinstance(vocab, dict) else []
    if file != json.loads(_source(symbols, before, file.get("decoder"))):
        return None
    numbers = np.full(sys.maxunicode + 1, -1, np.int32)
    if before == _BYTES and set(symbols) == set(alphabet):
        numbers[[alphabet.index(symbol) for symbol in symbols]] = np.arange(len(symbols))
        return "utf-8", "u1", numbers
    if before is None and all(len(symbol) == 1 for symbol in symbols):
        numbers[[ord(symbol) for symbol in symbols]] = np.arange(len(symbols))
        return "utf-32-le", "<u4", numbers
    return None


def _source(symbols: list[str], before: Json, decoder: Json, merges: Sequence[str] = ()) -> str:
    """Build a tokenizer file of type BPE from its symbols and merges."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {symbol: number for number, symbol in enumerate(symbols)},
        "merges": list(merges),
    }
    file: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    return json.dumps(file, ensure_ascii=False, indent=1)
