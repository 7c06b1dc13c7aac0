"""A text read into a memory's table at once, held to the memory that reads it token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import UsageError
from rillet.runtime.text_sample import HELD_OUT, TextSample
from rillet.train import Checkpoint, DualCNN, Tokens, make_tokenizer
from rillet.train.budget import parse_size
from rillet.train.model.bulk_store import bulk_store
from rillet.train.model.context_memory import ContextMemory
from rillet.train.model.state import zero_state
from rillet.train.teach import resized, teach
from support.models import SMALL, VARIANTS

SYMBOLS = [b"a", b"b", b"c", b" ", b".", b"1"]


def contexts(memory: int = 64, vocab_size: int = 6, names: str = "1 2 word 5") -> DualCNN:
    config = SMALL.replace(
        memory_key="contexts", contexts=names, memory=memory, vocab_size=vocab_size
    )
    model = DualCNN(config).eval()
    model.fit_codes(torch.arange(300) % vocab_size)
    model.fit_words(SYMBOLS[:vocab_size] + [b"x"] * (vocab_size - len(SYMBOLS)))
    return model


def memory_of(model: DualCNN) -> ContextMemory:
    assert isinstance(model.memory, ContextMemory)
    return model.memory


def token_by_token(model: DualCNN, tokens: list[int]) -> torch.Tensor:
    """The table of a stream that has read the tokens, one after another."""
    state = zero_state(model.config)
    for token in tokens:
        present: dict[str, torch.Tensor] = {}
        memory_of(model).remember(torch.tensor([[token]]), None, state, present)
        state = {**state, **present}
    return state["memory_slots"][0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.sampled_from([1, 3, 64]))
def test_the_table_is_that_of_a_stream_that_read_the_text(tokens: list[int], block: int) -> None:
    """In so small a table, contexts take each other's slots."""
    model = contexts()
    table = bulk_store(memory_of(model), Tokens.of(tokens), block=block)
    expected = token_by_token(model, tokens)
    assert table.dtype == expected.dtype
    assert torch.equal(table, expected)


@pytest.mark.parametrize("vocab_size", [65, 300, 700])
def test_it_is_so_for_real_text_and_any_vocabulary(text: str, vocab_size: int) -> None:
    model = contexts(memory=600, vocab_size=vocab_size, names="2 3 4 word 5 7")
    numbers = [ord(character) * 7 % vocab_size for character in text[:3_000]]
    with torch.no_grad():
        _, state = model(torch.tensor([numbers]), model.zero_state())
    table = bulk_store(memory_of(model), Tokens.of(np.asarray(numbers)))
    assert torch.equal(table, state["memory_slots"][0])


def checkpoint_of(text: str, sample: TextSample | None = None, **training: object) -> Checkpoint:
    tokenizer = make_tokenizer(text)
    config = SMALL.replace(
        memory_key="contexts", contexts="1 3 word", memory=90, vocab_size=tokenizer.vocab_size
    )
    return Checkpoint(DualCNN(config).eval(), tokenizer, dict(training), sample)


def test_another_size_is_the_same_model(text: str) -> None:
    checkpoint = checkpoint_of(text[:4_000])
    larger = resized(checkpoint, 3_000)
    assert larger.model.config.memory == 3_000
    assert checkpoint.model.config.memory == 90
    assert not larger.model.training
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(value, larger.model.state_dict()[name]), name
    assert larger.model.zero_state()["memory_slots"].shape == (1, 3_000)
    assert resized(checkpoint, 90) is checkpoint


def test_the_held_out_part_of_the_runs_own_corpus_is_left_out(text: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text[:5_000])
    plain = teach(checkpoint_of(text[:5_000]), [file])
    assert (plain.tokens, plain.text, plain.part) == (5_000, "text.txt", "")
    own = checkpoint_of(text[:5_000], corpus_sha256=plain.sha256, config={"held_out": 0.1})
    taught = teach(own, [file])
    assert taught.tokens == 4_500
    assert taught.part == "all but what training held out"
    assert not torch.equal(taught.table, plain.table)
    apart = {"corpus_sha256": plain.sha256, "validation_sha256": "0", "config": {"held_out": 0.1}}
    assert teach(checkpoint_of(text[:5_000], **apart), [file]).tokens == 5_000


def test_a_sample_in_the_text_is_found(text: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text[:30_000])
    tokenizer = make_tokenizer(text[:60_000])
    for start, seen in ((0, True), (22_001, True), (30_000, False)):
        tokens = np.asarray(tokenizer.encode(text[start : start + 8_000]), np.int64)
        sample = TextSample(HELD_OUT, tokens)
        taught = teach(checkpoint_of(text[:60_000], sample=sample), [file])
        assert taught.has_sample is seen, start


def test_unknown_characters_are_told(text: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text[:3_000] + "水")
    with pytest.warns(UserWarning, match="never seen, and they were left out: '水'"):
        assert teach(checkpoint_of(text[:3_000]), [file]).tokens == 3_000


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("no memory", "the model has no memory"),
        ("keyed by the suffix", "by the suffix .memory_key=suffix.*without --set memory_key"),
        ("standard reservoir", "by the reservoir .memory_key=reservoir.*without --set memory_key"),
    ],
)
def test_other_memories_are_refused_by_name(text: str, variant: str, message: str) -> None:
    tokenizer = make_tokenizer(text[:3_000])
    config = SMALL.replace(**VARIANTS[variant]).replace(vocab_size=tokenizer.vocab_size)
    checkpoint = Checkpoint(DualCNN(config), tokenizer, {})
    with pytest.raises(UsageError, match=message):
        teach(checkpoint, ["builtin:pydoc"])
    with pytest.raises(UsageError, match=message):
        resized(checkpoint, 1_000)


@pytest.mark.parametrize(
    ("typed", "size"),
    [("1MiB", 1 << 20), ("256KiB", 1 << 18), ("0.5 MB", 500_000), ("300 bytes", 300)],
)
def test_sizes_are_typed_as_in_a_budget(typed: str, size: int) -> None:
    assert parse_size(typed) == size


@pytest.mark.parametrize("typed", ["", "5", "1M", "1h", "1MB 2MB", "0MB", "-1MB", "1MB,2MB"])
def test_what_is_no_size_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match=r"the size is .*; give a number of bytes, such as"):
        parse_size(typed)
