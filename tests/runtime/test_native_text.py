"""The C library reads and writes text as Python does."""

from __future__ import annotations

import functools
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rillet.runtime.sampling.stop_strings import StopStrings
from rillet.runtime.tokenizer import Tokenizer, text_bytes
from rillet.train import builtin_corpus
from rillet.train.data.tokenizers import make_tokenizer
from support.native import needs_native
from support.native_text import (
    NativeDecoder,
    NativeStops,
    NativeTokenizer,
    NativeTokenizerError,
)

pytestmark = needs_native

MODELS = Path(__file__).parents[2] / "models"
MIXED = (
    "naïve café 東京は、2024年です。 Ⅷ½² don't we'll THEY'RE\r\n\t\u00a0\u2003"
    "😀👩\u200d👧 \x1c ''s 's\u0345a"
)


@functools.cache
def pair(name: str) -> tuple[Tokenizer, NativeTokenizer]:
    """One tokenizer, in Python and in C."""
    text = builtin_corpus()[:60_000]
    made = {
        "char": lambda: make_tokenizer(text + "é東😀", "char"),
        "byte": lambda: make_tokenizer("", "byte"),
        "bpe": lambda: make_tokenizer(text, "bpe", 700),
        "bpe of all scripts": lambda: make_tokenizer((MIXED + " ") * 40 + text, "bpe", 1_500),
        "shipped char": lambda: Tokenizer.load(MODELS / "shakespeare-nano" / "tokenizer.json"),
        "shipped byte": lambda: Tokenizer.load(MODELS / "bible-nano" / "tokenizer.json"),
    }
    tokenizer = made[name]()
    return tokenizer, NativeTokenizer(tokenizer.source)


every_tokenizer = pytest.mark.parametrize(
    "name", ["char", "byte", "bpe", "bpe of all scripts", "shipped char", "shipped byte"]
)
words = st.sampled_from(
    [*MIXED, *" \n'etaoinshrdlu", "the ", "  ", "\n\n", "'ll", " 12", "...", "aaaa"]
)
texts = st.one_of(
    st.lists(words, max_size=60).map("".join),
    st.text(max_size=60),
    st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape")),
)


@every_tokenizer
@given(text=texts)
@example(text=MIXED)
@example(text="x" * 3_000 + " " * 3_000)
@example(text="a\udc80b \udcff\udcffthe\udce2 \udcf0\udc90x")
def test_encodes_as_python(name: str, text: str) -> None:
    python, native = pair(name)
    assert native.reads_any_bytes == python.reads_any_bytes
    assert native.encode(text_bytes(text)) == python.encode(text)


@pytest.mark.parametrize("name", ["bpe", "bpe of all scripts", "shipped char"])
def test_encodes_a_long_text_as_python(name: str) -> None:
    python, native = pair(name)
    text = builtin_corpus()[50_000:250_000]
    assert native.encode(text.encode()) == python.encode(text)


@every_tokenizer
@given(text=texts)
def test_names_characters_without_a_token(name: str, text: str) -> None:
    python, native = pair(name)
    unknown = native.unknown(text_bytes(text))
    # A byte that is no text is one to C wherever it lies, and an escaped character to Python.
    assert list(dict.fromkeys(unknown)) == [text_bytes(one) for one in python.unknown(text)]


@every_tokenizer
def test_has_the_tokens_of_python(name: str) -> None:
    python, native = pair(name)
    assert native.vocab_size == python.vocab_size
    assert [native.token_bytes(token) for token in range(native.vocab_size)] == python.token_bytes


@every_tokenizer
@given(data=st.data(), exact=st.booleans())
def test_decodes_as_python(name: str, data: st.DataObject, exact: bool) -> None:
    python, native = pair(name)
    # Bytes that begin characters, or continue them, are rare among all tokens.
    high = [token for token, text in enumerate(python.token_bytes) if text and text[0] >= 0x80]
    one = st.integers(0, python.vocab_size - 1)
    tokens = data.draw(st.lists(st.one_of(one, st.sampled_from(high or [0])), max_size=40))
    mine, theirs = python.decoder(exact), NativeDecoder(native, exact and python.reads_any_bytes)
    for token in tokens:
        assert theirs.push(token) == text_bytes(mine.push(token))
        assert theirs.pending == mine.pending


@given(
    strings=st.lists(st.text("abé😀", min_size=1, max_size=5), max_size=4),
    pieces=st.lists(st.text("abé😀c", max_size=6), max_size=12),
)
@example(strings=["aab", "ab"], pieces=["a", "aa", "b"])
def test_finds_stop_strings_as_python(strings: list[str], pieces: list[str]) -> None:
    mine, theirs = StopStrings(strings), NativeStops(strings)
    for piece in pieces:
        shown, complete = mine.push(piece)
        assert theirs.push(piece.encode()) == (shown.encode(), complete)
        assert theirs.held == mine.held.encode()
    assert theirs.flush() == mine.flush().encode()


@given(data=st.data())
def test_encodes_as_python_with_any_merges(data: st.DataObject) -> None:
    """Merges that no training makes: in any order, of any tokens, and twice."""
    made: list[str] = list("abc")
    merges: list[list[str]] = []
    for _ in range(data.draw(st.integers(0, 8))):
        left, right = (data.draw(st.sampled_from(made)) for _ in range(2))
        merges.append([left, right])
        if left + right not in made:
            made.append(left + right)
    merges = data.draw(st.permutations(merges))
    file = json.loads(pair("bpe")[0].source)
    file["model"] |= {"vocab": {token: at for at, token in enumerate(made)}, "merges": merges}
    python, native = Tokenizer(json.dumps(file)), NativeTokenizer(json.dumps(file))
    text = data.draw(st.text("abc d", max_size=30))
    assert native.encode(text.encode()) == python.encode(text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer"),
        ({"added_tokens": [{"id": 0, "content": "<s>"}]}, "added tokens"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer is not ByteLevel"),
        ({"decoder": {"type": "WordPiece"}}, "decoder is not ByteLevel"),
        ({"decoder": None}, "decoder is not ByteLevel"),
        ({"model": {"type": "WordLevel"}}, "not of type BPE"),
        ({"model": {"dropout": 0.1}}, "dropout"),
        ({"model": {"unk_token": 'a"b'}}, "unknown characters"),
        ({"model": {"ignore_merges": True}}, "ignores merges"),
        ({"model": {"vocab": {}}}, "no tokens"),
        ({"model": {"vocab": {"a": 0, "b": 2}}}, "without gaps"),
        ({"model": {"vocab": {"a": 0, "b": 0}}}, "without gaps"),
        ({"model": {"vocab": {"a": 0, "東": 1}}}, "stands for no byte"),
        ({"model": {"vocab": {"a": 0}, "merges": ["a b"]}}, "do not exist"),
        ({"model": {"vocab": {"a": 0}, "merges": ["a a a"]}}, "not of two tokens"),
        ({"model": {"vocab": {"a": 0}, "merges": [["a"]]}}, "not of two tokens"),
    ],
)
def test_refuses_other_tokenizers_by_name(changes: dict[str, object], reason: str) -> None:
    file = json.loads(pair("bpe")[0].source)
    for name, value in changes.items():
        file[name] = (
            {**file[name], **value} if name == "model" and isinstance(value, dict) else value
        )
    with pytest.raises(NativeTokenizerError, match=reason):
        NativeTokenizer(json.dumps(file))


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"[]",
        b"{",
        b'{"model": {}}x',
        b'{"a": "\xff"}',
        b'{"a": "\\ud8"}',
        b'{"a": 01}',
        b'{"a": 1,}',
        b"[" * 100 + b"]" * 100,
        b'{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}}, "decoder": {"type": "Fuse"}}',
        b'{"model": {"type": "BPE", "vocab": {"\\ud800": 0}}, "decoder": {"type": "Fuse"}}',
    ],
)
def test_refuses_what_is_no_tokenizer(source: bytes) -> None:
    with pytest.raises(NativeTokenizerError):
        NativeTokenizer(source)


@pytest.mark.slow
def test_splits_words_as_the_library_that_trains() -> None:
    """Every character there is, between others of each class."""
    table = Path(__file__).parents[2] / "native" / "src" / "unicode_classes.h"
    numbers = [int(word) for word in table.read_text().split("{")[1].split("}")[0].split(",")[:-1]]
    from scripts.unicode_classes import character_class

    edges = [number // 4 for number in numbers]
    assert all(a < b for a, b in pairwise(edges))
    for at, number in enumerate(numbers):
        first, last = edges[at], (edges[at + 1] if at + 1 < len(edges) else 0x110000) - 1
        for code in {first, last, (first + last) // 2}:
            if not 0xD800 <= code <= 0xDFFF:
                assert character_class(chr(code)) == number % 4, hex(code)
