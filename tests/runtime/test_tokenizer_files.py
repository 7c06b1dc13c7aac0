"""Every kind of Hugging Face tokenizer file is decoded as the library does, or refused by name."""

# ruff: noqa: S106
from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from rillet.runtime import BundleError
from rillet.runtime.tokenizer import Tokenizer

TEXT = ["The quick brown fox, été 水 and the lazy dog's tale. " * 20, "x y\n\nz " * 9]
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


def trained(
    model: Any, before: Any = None, decoder: Any = None, normalizer: Any = None, **options: Any
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    if before is not None:
        tokenizer.pre_tokenizer = before
    if decoder is not None:
        tokenizer.decoder = decoder
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = {
        "BPE": trainers.BpeTrainer,
        "WordPiece": trainers.WordPieceTrainer,
        "Unigram": trainers.UnigramTrainer,
        "WordLevel": trainers.WordLevelTrainer,
    }[type(model).__name__]
    tokenizer.train_from_iterator(TEXT, trainer(vocab_size=90, show_progress=False, **options))
    return tokenizer


def with_added(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tokenizer.add_special_tokens(["<|the end|>", "[水]"])
    tokenizer.add_tokens(["two words", "ét"])
    return tokenizer


def all_bytes(**options: Any) -> tokenizers.Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(models.BPE(), BYTES, initial_alphabet=alphabet, **options)


DECODED = {
    "byte-level BPE": lambda: all_bytes(decoder=decoders.ByteLevel()),
    "byte-level BPE with a space before": lambda: trained(
        models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    ),
    "byte-level BPE with added tokens": lambda: with_added(all_bytes(decoder=decoders.ByteLevel())),
    "byte-level BPE that normalizes": lambda: all_bytes(
        decoder=decoders.ByteLevel(),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    ),
    "a sequence of ByteLevel and Fuse": lambda: all_bytes(
        decoder=decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    ),
    "a sequence of one": lambda: all_bytes(decoder=decoders.Sequence([decoders.ByteLevel()])),
    "BPE that fuses": lambda: with_added(trained(models.BPE(), decoder=decoders.Fuse())),
    "BPE with bytes to fall back to, fused": lambda: trained(
        models.BPE(byte_fallback=True),
        decoder=decoders.Fuse(),
        special_tokens=[f"<0x{byte:02X}>" for byte in range(256)],
    ),
    "WordPiece that fuses": lambda: trained(
        models.WordPiece(unk_token="[UNK]"), decoder=decoders.Fuse(), special_tokens=["[UNK]"]
    ),
    "Unigram that fuses": lambda: trained(
        models.Unigram(), decoder=decoders.Fuse(), unk_token="<unk>", special_tokens=["<unk>"]
    ),
    "words that fuse": lambda: trained(
        models.WordLevel(unk_token="?"),
        pre_tokenizers.Whitespace(),
        decoders.Fuse(),
        special_tokens=["?"],
    ),
}

REFUSED = {
    "none, which puts spaces": lambda: trained(models.BPE()),
    "Metaspace": lambda: trained(
        models.Unigram(),
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
        unk_token="<unk>",
        special_tokens=["<unk>"],
    ),
    "WordPiece": lambda: trained(
        models.WordPiece(unk_token="[UNK]"),
        pre_tokenizers.Whitespace(),
        decoders.WordPiece(),
        special_tokens=["[UNK]"],
    ),
    "BPEDecoder": lambda: trained(
        models.BPE(end_of_word_suffix="</w>"), decoder=decoders.BPEDecoder()
    ),
    "CTC": lambda: trained(models.BPE(), decoder=decoders.CTC()),
    "ByteFallback": lambda: trained(models.BPE(), decoder=decoders.ByteFallback()),
    "Strip": lambda: trained(models.BPE(), decoder=decoders.Strip(" ", 1, 0)),
    "Replace": lambda: trained(
        models.BPE(byte_fallback=True),
        decoder=decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    ),
    "decoders Fuse, ByteLevel": lambda: all_bytes(
        decoder=decoders.Sequence([decoders.Fuse(), decoders.ByteLevel()])
    ),
    "an empty Sequence": lambda: trained(models.BPE(), decoder=decoders.Sequence([])),
}


@pytest.fixture(scope="module", params=DECODED)
def theirs(request: pytest.FixtureRequest) -> tokenizers.Tokenizer:
    return DECODED[request.param]()


@given(data=st.data())
def test_tokens_are_decoded_as_the_library_does(
    theirs: tokenizers.Tokenizer, data: st.DataObject
) -> None:
    ours = Tokenizer(theirs.to_str())
    numbers = st.lists(st.integers(0, theirs.get_vocab_size() - 1), max_size=12)
    tokens = data.draw(numbers)
    expected = theirs.decode(tokens, skip_special_tokens=False)
    assert ours.decode(tokens) == expected
    decoder = ours.decoder()
    streamed = "".join(map(decoder.push, tokens))
    assert streamed + decoder.pending.decode("utf-8", "replace") == expected
    text = data.draw(st.sampled_from(["the fox", "été 水 x", "<|the end|>two words"]))
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("part", REFUSED)
def test_other_decoders_are_refused_by_name(part: str) -> None:
    theirs = REFUSED[part]()
    with pytest.raises(BundleError, match=part):
        Tokenizer(theirs.to_str(), "my.json")


def test_a_processor_adds_nothing() -> None:
    theirs = with_added(all_bytes(decoder=decoders.ByteLevel()))
    number = theirs.token_to_id("[水]")
    theirs.post_processor = processors.TemplateProcessing(
        single="[水] $A", special_tokens=[("[水]", number)]
    )
    assert number not in Tokenizer(theirs.to_str()).encode("the fox")


def test_a_long_text_is_cut_between_words() -> None:
    """Also where words come from a model without merges."""
    theirs = DECODED["Unigram that fuses"]()
    ours = Tokenizer(theirs.to_str())
    text = "the quick brown fox and the lazy dog " * 5_000
    streamed = [token for part in ours.encode_stream([text]) for token in part]
    assert ours.decode(streamed) == text
    assert json.loads(ours.source)["model"]["type"] == "Unigram"
