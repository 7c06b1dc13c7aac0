"""Tokenizers built from a corpus, tokens in memory and in files, and co-occurrence counts."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import tokenizers as library
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import BundleError, CorpusError, UsageError
from rillet.runtime.tokenizer import Tokenizer
from rillet.train.data import tokenizers
from rillet.train.data.corpus import Corpus
from rillet.train.data.token_file import (
    Tokens,
    header_path,
    open_tokens,
    read_header,
    token_dtype,
    write_tokens,
)
from rillet.train.data.tokenizers import encode_blocks, make_tokenizer
from rillet.train.model import cooccurrence
from rillet.train.model.cooccurrence import count_pairs, pmi_coordinates
from rillet.train.model.embedder import SinusoidalEmbedder, fit_codes

SPACES = st.sampled_from([" ", "\n", "\n\n", "  ", "\r\n", " \n\t ", "\u3000 "])
WORDS = st.text(min_size=1, max_size=8).filter(str.strip)
TEXTS = st.lists(st.tuples(WORDS, SPACES), max_size=60).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)


def encoded(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    return [int(token) for block in encode_blocks(tokenizer, pieces) for token in block]


@pytest.fixture(scope="module")
def bpe(text: str) -> Tokenizer:
    return make_tokenizer(text[:100_000], "bpe", 600)


@given(text=st.text(max_size=80), known=st.text(min_size=1, max_size=80), cut=st.integers(0, 80))
@pytest.mark.parametrize("kind", ["char", "byte"])
def test_a_text_in_pieces_has_the_same_tokens(kind: str, text: str, known: str, cut: int) -> None:
    """Unknown characters are left out, as :meth:`Tokenizer.encode` does."""
    tokenizer = make_tokenizer(known, kind)
    for whole in (text, known, known + text, "\ud83d" + text):
        expected = tokenizer.encode(whole)
        assert encoded(tokenizer, [whole[:cut], whole[cut:]]) == expected


@given(text=TEXTS, cuts=st.lists(st.integers(0, 300), max_size=5))
def test_bpe_tokens_do_not_depend_on_the_cuts(bpe: Tokenizer, text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[low:high] for low, high in itertools.pairwise(edges)]
    with mock.patch.object(tokenizers, "_PIECE", 64):
        assert encoded(bpe, pieces) == bpe.encode(text)


def test_bpe_encodes_a_real_text_in_pieces(bpe: Tokenizer, text: str) -> None:
    with mock.patch.object(tokenizers, "_PIECE", 1_000):
        assert encoded(bpe, [text]) == bpe.encode(text)


@given(text=st.text(max_size=80))
def test_bpe_represents_any_text(bpe: Tokenizer, text: str) -> None:
    tokens = bpe.encode(text)
    assert bpe.decode(tokens) == text
    decoder = bpe.decoder()
    assert "".join(decoder.push(token) for token in tokens) == text
    assert bpe.unknown(text) == []


def test_bpe_begins_with_the_bytes_and_learns_words(bpe: Tokenizer, text: str) -> None:
    assert bpe.vocab_size == 600
    assert [bpe.decoder()._bytes[n] for n in range(256)] == [bytes([n]) for n in range(256)]
    assert bpe.encode("the ") != make_tokenizer("", "byte").encode("the ")
    assert len(bpe.encode(" the")) == 1
    assert len(bpe.encode(text[:10_000])) < 5_500
    file = json.loads(bpe.source)
    assert file["added_tokens"] == []
    assert len(file["model"]["merges"]) == 600 - 256
    again = library.Tokenizer.from_str(bpe.source)  # readable without rillet
    assert again.decode(again.encode(text[:5_000]).ids) == text[:5_000]


def test_bpe_learns_only_pairs_that_occur_twice() -> None:
    assert make_tokenizer("", "bpe").vocab_size == 256
    assert make_tokenizer("ab ab", "bpe").vocab_size == 257
    assert make_tokenizer("aa bb cc dd", "bpe", 300).vocab_size == 256  # no pair occurs twice


def test_bpe_is_the_same_in_every_process_and_in_pieces(text: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(text[:200_000].encode())
    script = (
        "import sys; from rillet.train.data.tokenizers import make_tokenizer\n"
        "text = open(sys.argv[1], newline='', encoding='utf-8').read()\n"
        "size = int(sys.argv[2])\n"
        "pieces = (text[start : start + size] for start in range(0, len(text), size))\n"
        "sys.stdout.buffer.write(make_tokenizer(pieces, 'bpe', 700).source.encode())\n"
    )
    sources = {make_tokenizer(text[:200_000], "bpe", 700).source.encode()}
    for seed, parallel, size in (("1", "true", "7777"), ("2", "false", "1000000")):
        command = [sys.executable, "-c", script, str(tmp_path / "text.txt"), size]
        setting = {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        environment = {**os.environ, **setting}
        sources.add(
            subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        )
    assert len(sources) == 1


@pytest.mark.parametrize("kind", tokenizers.TOKENIZERS)
def test_a_text_may_come_in_pieces(kind: str) -> None:
    words = ["a word, ", "and a word ", "é", "", "\n"] * 3
    assert make_tokenizer(iter(words), kind).source == make_tokenizer("".join(words), kind).source


@pytest.mark.parametrize("size", [-1, 0, 256, 65_537])
def test_a_vocabulary_size_out_of_range_is_rejected(size: int) -> None:
    with pytest.raises(UsageError, match=f"vocab_size is {size:,}; it must be between 257 and"):
        make_tokenizer("text", "bpe", size)


@pytest.mark.parametrize("kind", ["auto", "char", "byte"])
def test_only_bpe_takes_a_size(kind: str) -> None:
    with pytest.raises(UsageError, match=f"1,024 but tokenizer is '{kind}'; only 'bpe' takes"):
        make_tokenizer("text", kind, 1_024)


def test_foreign_tokenizers_encode_with_their_own_rules(bpe: Tokenizer) -> None:
    file = json.loads(make_tokenizer("ab\n", "char").source)
    for key, value in (("normalizer", {"type": "Lowercase"}), ("pre_tokenizer", None)):
        tokenizer = Tokenizer(json.dumps({**file, key: value}))
        assert encoded(tokenizer, ["aA\n", "bB"]) == tokenizer.encode("aA\nbB")


@given(
    values=st.lists(st.integers(0, 70_000), min_size=1, max_size=40),
    starts=st.lists(st.integers(-99, 99), min_size=1, max_size=5),
    length=st.integers(1, 60),
    low=st.integers(-50, 50),
    high=st.integers(-50, 50),
)
def test_tokens_are_a_sequence(
    values: list[int], starts: list[int], length: int, low: int, high: int
) -> None:
    tokens = Tokens.of(values)
    assert len(tokens) == len(values)
    assert tokens.tensor().tolist() == values
    assert tokens[low:high].tensor().tolist() == values[low:high]
    assert torch.cat(list(tokens.blocks(7))).tolist() == values
    assert max(len(block) for block in tokens.blocks(7)) <= 7
    expected = [[values[(s + t) % len(values)] for t in range(length)] for s in starts]
    windows = tokens.windows(torch.tensor(starts), length)
    assert windows.dtype == torch.int64
    assert windows.tolist() == expected


@pytest.mark.parametrize(
    ("most", "size"), [(255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32 - 1, 4)]
)
def test_tokens_use_the_smallest_type(most: int, size: int) -> None:
    for values in ([0, most], np.asarray([0, most]), torch.tensor([0, most])):
        tokens = Tokens.of(values)
        assert tokens.nbytes == 2 * size
        assert tokens.tensor().tolist() == [0, most]
    assert token_dtype(most + 1).itemsize == size


def test_invalid_tokens_are_rejected() -> None:
    for values, message in (([-1, 3], "range from -1 to 3"), ([0.5], "type float64")):
        with pytest.raises(UsageError, match=message):
            Tokens.of(values)
    with pytest.raises(UsageError, match=r"shape \[1, 2\]"):
        Tokens(np.zeros((1, 2), np.uint8))
    with pytest.raises(TypeError, match="the index is 3; use a slice"):
        Tokens.of([1, 2])[3]  # type: ignore[index]
    with pytest.raises(CorpusError, match="the text has no tokens"):
        Tokens.of([]).windows(torch.tensor([0]), 3)
    array = np.arange(5, dtype=np.uint8)
    tokens = Tokens(array)
    assert Tokens.of(tokens) is tokens
    with pytest.raises(ValueError, match="read-only"):
        tokens._numbers[0] = 1
    array[0] = 7  # the caller's array stays writable
    assert repr(tokens) == "Tokens(5 x uint8)"


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, "<u1"), (300, "<u2"), (70_000, "<u4")])
def test_a_token_file_is_raw_numbers(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, vocab_size, 1_000)
    path = tmp_path / "corpus.tokens"
    tokens = write_tokens(path, np.array_split(values, 7), vocab_size, {"names": ["é"]})
    assert path.read_bytes() == values.astype(dtype).tobytes()
    assert tokens.tensor().tolist() == open_tokens(path).tensor().tolist() == values.tolist()
    header = read_header(path)
    assert (header.count, header.vocab_size) == (1_000, vocab_size)
    assert header.about == {"names": ["é"]}
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, header_path(path).name}
    assert len(write_tokens(path, [], vocab_size)) == len(open_tokens(path)) == 0


def test_a_damaged_token_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tokens"
    write_tokens(path, [np.arange(200)], 300)
    beside, data, header = header_path(path), path.read_bytes(), header_path(path).read_bytes()
    for damaged in (b"", data[:-1], data + b"\0\0", data[:-1] + b"\1"):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"corpus\.tokens is damaged.*to rebuild them"):
            open_tokens(path)
    path.unlink()
    with pytest.raises(CorpusError, match=r"corpus\.tokens cannot be read"):
        open_tokens(path)
    path.write_bytes(data)
    changes = ((b"uint16", b"object"), (b'"count"', b'"cuont"'), (b"200", b'"7"'), (b"{", b"["))
    for old, new in (*changes, (b"200", b"-200"), (b"rillet-tokens", b"other")):
        beside.write_bytes(header.replace(old, new))
        with pytest.raises(CorpusError, match=r"tokens\.json is damaged or is not a token header"):
            open_tokens(path)
    beside.write_bytes(header.replace(b'"1.0"', b'"2.0"'))
    with pytest.raises(CorpusError, match=r"version 2\.0.*install a newer rillet"):
        open_tokens(path)
    beside.unlink()
    with pytest.raises(CorpusError, match=r"tokens\.json cannot be read \(No such file"):
        open_tokens(path)


def test_a_failed_write_leaves_the_old_tokens(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tokens"
    write_tokens(path, [np.arange(10)], 10)

    def failing() -> Iterator[npt.NDArray[np.int64]]:
        yield np.arange(5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_tokens(path, failing(), 10)
    for bad in (10, -1):
        with pytest.raises(CorpusError, match=rf"to {bad}, but the vocabulary has 10"):
            write_tokens(path, [np.asarray([bad])], 10)
    full = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(CorpusError, match=r"cannot be written \(No space left"):
        write_tokens(path, [np.arange(3)], 10)
    assert open_tokens(path).tensor().tolist() == list(range(10))
    assert len(list(tmp_path.iterdir())) == 2
    header_path(path).unlink()
    header_path(path).mkdir()
    with pytest.raises(CorpusError, match=r"corpus\.tokens\.json is a folder"):
        write_tokens(path, [np.arange(3)], 10)


@pytest.mark.parametrize("vocab_size", [5, 300])
def test_codes_of_a_token_file_are_those_of_a_tensor(tmp_path: Path, vocab_size: int) -> None:
    values = torch.randint(0, vocab_size, (5_000,), generator=torch.Generator().manual_seed(0))
    expected = fit_codes(values, vocab_size, 32)
    path = tmp_path / "corpus.tokens"
    tokens = write_tokens(path, [values.numpy()], vocab_size)
    assert torch.equal(SinusoidalEmbedder(vocab_size, 32, 4).fit(tokens).codes, expected)
    for block, dense in ((1, 4_096), (777, 4_096), (777, 0)):
        with mock.patch.multiple(cooccurrence, _BLOCK=block, _DENSE=dense):
            assert torch.equal(fit_codes(tokens[: len(tokens)], vocab_size, 32), expected)


def test_pairs_are_counted() -> None:
    pairs, counts = count_pairs(Tokens.of([0, 1, 0, 1, 2]), 3)
    assert dict(zip(pairs.tolist(), counts.tolist(), strict=True)) == {1: 2, 3: 1, 5: 1}
    with pytest.raises(UsageError, match="the text has token 2, but the vocabulary has 2"):
        count_pairs(Tokens.of([0, 1, 2]), 2)
    with pytest.raises(CorpusError, match="has 1 tokens; fitting token codes needs at least two"):
        fit_codes(torch.tensor([1]), 3, 8)


def test_a_large_vocabulary_has_the_same_coordinates(text: str) -> None:
    """The truncated method agrees with the full SVD, and is deterministic."""
    tokenizer = make_tokenizer(text, "bpe", 900)
    tokens, size = Tokens.of(encoded(tokenizer, [text])), tokenizer.vocab_size + 30
    expected, seen = pmi_coordinates(tokens, size, 16)
    with mock.patch.multiple(cooccurrence, _EXACT=0, _BLOCK=200_000):
        actual, actual_seen = pmi_coordinates(tokens, size, 16)
        assert torch.equal(actual, pmi_coordinates(tokens, size, 16)[0])
        codes = fit_codes(tokens, size, 32)
    assert torch.equal(seen, actual_seen)
    assert not seen[-30:].any()
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(size))
    assert (codes - fit_codes(tokens, size, 32)).abs().max() < 1e-3


def test_a_tokenizer_of_the_library_and_its_file_are_taken(tmp_path: Path) -> None:
    """As rillet's own is."""
    path = tmp_path / "notes.txt"
    path.write_text("what the rain said to the roof\n" * 100)
    corpus = Corpus(path)
    own = make_tokenizer(path.read_text(), "bpe", 270)
    (tmp_path / "tokenizer.json").write_text(own.source, encoding="utf-8")
    expected = tokenizers.prepare(corpus, own)
    for kind in (library.Tokenizer.from_str(own.source), tmp_path / "tokenizer.json"):
        prepared = tokenizers.prepare(corpus, kind)
        assert prepared.tokens.tensor().equal(expected.tokens.tensor())
        assert prepared.tokenizer.vocab_size == own.vocab_size
    for wrong in (str(tmp_path / "tokenizer.json"), "words", 5, own.source.encode(), object()):
        with pytest.raises(UsageError, match="; give one of auto, char") as refused:
            tokenizers.prepare(corpus, wrong)  # type: ignore[arg-type]
        assert len(str(refused.value)) < 600
    with pytest.raises(BundleError, match="decoder"):
        tokenizers.prepare(corpus, library.Tokenizer(library.models.BPE()))
