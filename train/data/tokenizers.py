"""Tokenizers made from a corpus, and a corpus made into tokens.

Tokenizers are Hugging Face ``tokenizers`` files. What is encoded here is what
:meth:`Tokenizer.encode` gives, token for token.
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

from ...runtime.errors import CorpusError, RilletError, UsageError
from ...runtime.files import sha256_bytes, write_atomic
from ...runtime.tokenizer import Tokenizer, byte_level_alphabet
from .corpus import Corpus, Progress
from .token_file import Tokens, open_tokens, read_header, token_dtype, write_header, write_tokens

__all__ = ["IN_MEMORY", "MOST_CHARACTERS", "MOST_TOKENS", "TOKENIZERS", "VOCAB_SIZE", "Prepared"]
__all__ += ["encode_blocks", "make_tokenizer", "prepare"]

TOKENIZERS = ("auto", "char", "byte", "bpe")

MOST_CHARACTERS = 256
"""Distinct characters up to which ``auto`` gives each a token of its own."""

VOCAB_SIZE = 1_024
"""Tokens of a ``bpe`` tokenizer, unless something else is asked for."""

MOST_TOKENS = 65_536
"""Tokens that a ``bpe`` tokenizer can have."""

IN_MEMORY = 64 << 20
"""Bytes of text up to which :func:`prepare` needs no folder."""

_PIECE = 1 << 14
"""Characters that BPE encodes at a time."""

_WORDS = re.compile(r"(?s).*\S(?=[ \n])")

Json = dict[str, Any] | None

_BYTES = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False,
}  # fmt: skip


def make_tokenizer(
    text: str | Iterable[str], kind: str = "auto", vocab_size: int | None = None
) -> Tokenizer:
    """Make a tokenizer for a corpus.

    Args:
        text: The corpus, whole or in pieces; it is read once, in order.
        kind: ``char``, a token for each character of the corpus; ``byte``, a token
            for each byte, so that nothing is ever unknown; ``bpe``, the bytes and what
            stands together most often; ``auto``, ``char`` where the corpus has at
            most :data:`MOST_CHARACTERS` distinct characters, else ``byte``.
        vocab_size: For ``bpe``: how many tokens, :data:`VOCAB_SIZE` by default. A corpus in
            which too few pairs occur twice gets fewer.

    Raises:
        UsageError: ``kind`` is none of these, or ``vocab_size`` does not fit it.
    """
    size = _check(kind, vocab_size)
    pieces = [text] if isinstance(text, str) else text
    if size is not None:
        return _train_bpe(pieces, size)
    symbols: set[str] = set()
    if kind != "byte":
        for piece in pieces:
            symbols.update(piece)
    if kind == "char" or (kind == "auto" and len(symbols) <= MOST_CHARACTERS):
        return Tokenizer(_source(sorted(symbols), None, {"type": "Fuse"}))
    return Tokenizer(_source(byte_level_alphabet(), _BYTES, _BYTES))


def encode_blocks(
    tokenizer: Tokenizer, blocks: Iterable[str]
) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """The tokens of a text that comes in pieces, in order, in arrays ``[any length]``.

    With a tokenizer made here, where the text is cut changes no token; except that BPE cuts
    where there is neither space nor newline in 16,384 characters.
    """
    if table := _lookup(tokenizer):
        encoding, dtype, numbers = table
        for block in blocks:
            tokens = numbers[np.frombuffer(block.encode(encoding, "ignore"), dtype)]
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
        tokenizer: What made them.
        tokens: The whole corpus.
        characters: Length of the text.
        sha256: Hash of the text.
        names: Names of the texts it is made of.
        unknown: Characters that the tokenizer lacks and that were left out.
    """

    tokenizer: Tokenizer
    tokens: Tokens
    characters: int
    sha256: str
    names: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def prepare(
    corpus: Corpus,
    tokenizer: Tokenizer | str = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
    vocab_size: int | None = None,
) -> Prepared:
    """Make the tokens of a corpus, or take those that were made before.

    ``folder`` gets the tokens, what is noted about them, and ``tokenizer.json``. Another
    call reuses them if the files have the same sizes and times, or else the same text.

    Args:
        corpus: The text.
        tokenizer: A tokenizer, or which kind to make.
        folder: Where to keep the tokens, made if missing; None keeps them in memory.
        progress: Called as the text is read and encoded.
        vocab_size: As for :func:`make_tokenizer`.

    Raises:
        CorpusError: The corpus or the folder cannot be used.
        UsageError: The corpus is too large for memory, or the tokenizer's settings are wrong.
    """
    if isinstance(tokenizer, str):
        request = {"kind": tokenizer, "vocab_size": _check(tokenizer, vocab_size)}
    else:
        request = {"kind": sha256_bytes(tokenizer.source.encode()), "vocab_size": None}
    about: dict[str, Any] = {"request": request, "stamp": corpus.stamp()}
    if folder is not None and (found := _reuse(corpus, folder, about, progress)):
        return found
    if folder is None and corpus.size > IN_MEMORY:
        raise UsageError(
            f"the corpus has {corpus.size:,} bytes, and up to {IN_MEMORY:,} are kept in memory; "
            "give a folder for its tokens"
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


def _encode(
    corpus: Corpus, tokenizer: Tokenizer, about: dict[str, Any], progress: Progress | None
) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """The tokens; after the last, ``about`` says all there is to say."""
    yield from encode_blocks(tokenizer, corpus.blocks(progress, "encoding"))
    unknown = tokenizer.unknown(corpus.symbols)
    if len(unknown) == len(corpus.symbols):
        raise CorpusError(
            f"the tokenizer has none of the corpus's {len(unknown)} characters, such as "
            f"{unknown[0]!r}; use one that was made for this corpus"
        )
    about["tokenizer_sha256"] = sha256_bytes(tokenizer.source.encode())
    about["sha256"], about["characters"] = corpus.sha256, corpus.characters
    about["names"], about["unknown"] = corpus.names, unknown


def _prepared(tokenizer: Tokenizer, tokens: Tokens, about: dict[str, Any]) -> Prepared:
    texts = about["characters"], about["sha256"], tuple(about["names"]), tuple(about["unknown"])
    return Prepared(tokenizer, tokens, *texts)


def _reuse(
    corpus: Corpus, folder: Path, wanted: dict[str, Any], progress: Progress | None
) -> Prepared | None:
    """What an earlier call left in a folder, if it is what is wanted and whole."""
    path = folder / "corpus.tokens"
    try:
        header = read_header(path)
        about = header.about
        if about["request"] != wanted["request"]:
            return None
        same = about["stamp"] == wanted["stamp"]
        if not same:  # a pass of its own: what is known of the corpus may be of older files
            deque(corpus.blocks(progress), maxlen=0)
        if not same and about["sha256"] != corpus.sha256:
            return None
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        if about["tokenizer_sha256"] != sha256_bytes(tokenizer.source.encode()):
            return None
        found = _prepared(tokenizer, open_tokens(path), about)
    except (RilletError, KeyError, TypeError):
        return None  # whatever is there is made anew
    if not same:
        about.update(stamp=wanted["stamp"], names=corpus.names)
        write_header(path, header)
    return found


def _check(kind: str, vocab_size: int | None) -> int | None:
    """The size that a tokenizer is to have; None where that is not for the user to say."""
    if kind not in TOKENIZERS:
        raise UsageError(f"tokenizer is {kind!r}; it must be one of {', '.join(TOKENIZERS)}")
    if kind == "bpe":
        size = VOCAB_SIZE if vocab_size is None else vocab_size
        if not 256 < size <= MOST_TOKENS:
            raise UsageError(f"vocab_size is {size:,}; it must lie between 257 and {MOST_TOKENS:,}")
        return size
    if vocab_size is not None:
        raise UsageError(f"vocab_size is {vocab_size:,}; it needs tokenizer 'bpe', not {kind!r}")
    return None


def _train_bpe(pieces: Iterable[str], vocab_size: int) -> Tokenizer:
    trained, alphabet = tokenizers.Tokenizer(models.BPE()), byte_level_alphabet()
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(_words(pieces), trainer)
    model = json.loads(trained.to_str())["model"]
    # The library numbers the bytes by code point; here they have the order of `byte` tokens.
    learned = sorted(set(model["vocab"]).difference(alphabet), key=model["vocab"].__getitem__)
    merges = [" ".join(pair) for pair in model["merges"]]
    return Tokenizer(_source(alphabet + learned, {**_BYTES, "use_regex": True}, _BYTES, merges))


def _words(blocks: Iterable[str]) -> Iterator[str]:
    """The text in pieces that end where white space begins: no word of BPE spans that."""
    held = ""
    for block in blocks:
        held += block.encode("utf-8", "ignore").decode()  # half a surrogate pair has no token
        while len(held) > _PIECE:
            cut = found.end() if (found := _WORDS.match(held, 0, _PIECE)) else _PIECE
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _lookup(tokenizer: Tokenizer) -> tuple[str, str, npt.NDArray[np.int32]] | None:
    """Codec, type of its units, and each unit's token or -1; None if it takes more than that."""
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
    """A BPE file: a token for each symbol, and which pairs of them become which."""
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, "vocab": {symbol: number for number, symbol in enumerate(symbols)},
        "merges": list(merges),
    }  # fmt: skip
    file: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": before, "post_processor": None, "decoder": decoder,
        "model": model,
    }  # fmt: skip
    return json.dumps(file, ensure_ascii=False, indent=1)
