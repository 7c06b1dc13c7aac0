"""The memory of contexts, held to a plain dictionary of lists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.export.graphs.prefill_slots import PrefillSlots
from rillet.runtime import ConfigError, UsageError
from rillet.runtime.context_slots import PATTERNS
from rillet.train import DualCNN, DualCNNConfig, DualCNNTrainer
from rillet.train.model.context_memory import ContextMemory
from rillet.train.model.context_slots import Slots, slot_type, transitions
from rillet.train.model.state import State, zero_state
from support.models import SMALL

SYMBOLS = [b"a", b"b", b"c", b" ", b".", b"1"]
CONTEXTS = "1 2 word 5"


def memory_of(contexts: str = CONTEXTS, memory: int = 4000, vocab_size: int = 6) -> ContextMemory:
    config = SMALL.replace(
        memory_key="contexts", contexts=contexts, memory=memory, vocab_size=vocab_size
    )
    memory_ = ContextMemory(config)
    memory_.fit(SYMBOLS[:vocab_size] + [b"x"] * (vocab_size - len(SYMBOLS)))
    return memory_


def remembered(memory: ContextMemory, tokens: list[list[int]], *cuts: int) -> tuple[Slots, dict]:
    """Read rows of tokens in chunks."""
    config = SMALL.replace(
        memory_key="contexts",
        contexts=" ".join(memory.contexts),
        memory=memory.size * len(memory.contexts),
        vocab_size=memory.vocab_size,
    )
    rows = torch.tensor(tokens)
    state, parts = zero_state(config, len(rows)), []
    for start, end in zip([0, *cuts], [*cuts, rows.shape[1]], strict=True):
        if start < end:
            present: dict[str, torch.Tensor] = {}
            slots = memory.remember(rows[:, start:end], None, state, present)
            parts.append([entry[:, 1:] for entry in slots])
            state = {**state, **present}
    return Slots(*(torch.cat(entry, dim=1) for entry in zip(*parts, strict=True))), state


def context_of(name: str, tokens: list[int]) -> tuple[int, ...]:
    """The last tokens of a context, spelt out."""
    if name != "word":
        return tuple(tokens[-int(name) :]) if len(tokens) >= int(name) else (-1, *tokens)
    word: list[int] = []
    for token in reversed(tokens[-8:]):
        if SYMBOLS[token] not in (b"a", b"b", b"c", b"1"):
            break
        word.insert(0, token)
    return (*word, -1, tokens[-1])


def counted(tokens: list[int], name: str) -> list[tuple[int, int, int]]:
    """What a dictionary remembers after each token: newest, the one before it, their counts."""
    slots: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    found, context = [], None
    for place, token in enumerate(tokens):
        if context is not None:
            held = slots.get(context, [])
            count = min(dict(held).get(token, 0) + 1, 7)
            others = [(other, (n + 1) // 2) for other, n in held if other != token]
            slots[context] = [(token, count), *others][:2]
        context = context_of(name, tokens[: place + 1])
        newest, second = [*slots.get(context, []), (0, 0), (0, 0)][:2]
        found.append((newest[0], second[0], 5 * newest[1] + second[1]))
    return found


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_it_remembers_what_a_dictionary_remembers(tokens: list[int]) -> None:
    """The tables are so large that hardly any two contexts share a slot."""
    memory = memory_of(memory=4_000_000)
    slots, _ = remembered(memory, [tokens])
    for number, name in enumerate(memory.contexts):
        expected = counted(tokens, name)
        held = torch.stack(slots[1:], dim=-1)[0, :, number]
        assert held.tolist() == [list(entry) for entry in expected], name


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_chunks_agree_bit_for_bit(tokens: list[int], cuts: list[int]) -> None:
    memory = memory_of(memory=64)  # so small that contexts take each other's slots
    other = [*tokens[1:], tokens[0]]
    whole = remembered(memory, [tokens, other])
    cut = remembered(memory, [tokens, other], *sorted(min(c, len(tokens)) for c in cuts))
    for first, second in zip(whole[0], cut[0], strict=True):
        assert torch.equal(first, second)
    for name, value in whole[1].items():
        assert torch.equal(value, cut[1][name]), name


def read(
    remember: Callable[..., object], rows: torch.Tensor, learn: torch.Tensor, state: State
) -> list[torch.Tensor]:
    """What a chunk finds and leaves."""
    present: State = {}
    found = remember(rows, learn, state, present)
    if isinstance(found, Slots):
        found = torch.stack([found.first, found.second], dim=3), found.pattern
    assert isinstance(found, tuple)
    return [*found, *(present[name] for name in sorted(present))]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_form_of_the_graph_agrees_bit_for_bit(tokens: list[int], learn: float) -> None:
    memory = memory_of(memory=64)
    _, state = remembered(memory, [tokens, tokens[::-1]])
    arguments = torch.tensor([tokens[::-1], tokens]), torch.tensor([1.0, learn]), state
    expected = read(memory.remember, *arguments)
    assert all(map(torch.equal, expected, read(PrefillSlots(memory), *arguments)))
    if not learn:
        present: State = {}
        memory.remember(*arguments, present)
        assert torch.equal(present["memory_slots"][1], state["memory_slots"][1])


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=30), st.lists(st.integers(0, 5), max_size=9)
)
def test_a_repeated_step_in_one_buffer_changes_nothing(before: list[int], after: list[int]) -> None:
    """A step that was undone has stored in the table; the next one puts that right."""
    memory = memory_of(memory=64)
    _, state = remembered(memory, [before])
    undone: dict[str, torch.Tensor] = {}
    memory.remember(torch.tensor([[5]]), None, state, undone)
    rows = torch.tensor([[0, *after]])
    for learn in (torch.zeros(1), torch.ones(1)):
        for remember in (memory.remember, PrefillSlots(memory)):
            tables = (state["memory_slots"], undone["memory_slots"])
            states = ({**state, "memory_slots": table} for table in tables)
            assert all(map(torch.equal, *(read(remember, rows, learn, held) for held in states)))


@given(st.integers(0, 254), st.integers(0, 5), st.integers(0, 5), st.integers(0, PATTERNS - 1))
def test_packing_is_reversible(check: int, first: int, second: int, pattern: int) -> None:
    slots = Slots(*(torch.tensor([value]) for value in (check, first, second, pattern)))
    packed = slots.pack(6)
    assert packed < 1 << 31
    assert Slots.unpack(packed, 6) == slots


def test_counts_stay_within_their_patterns() -> None:
    assert int(transitions().max()) < PATTERNS
    assert int(transitions().min()) >= 5  # whatever has followed counts at least once


def test_large_vocabularies_have_wider_slots() -> None:
    config = SMALL.replace(memory_key="contexts", memory=96, vocab_size=4000)
    state = zero_state(config)
    assert state["memory_slots"].dtype == torch.int64
    assert zero_state(config.replace(vocab_size=256))["memory_slots"].dtype == torch.int32


def test_what_was_read_is_predicted_when_its_context_returns() -> None:
    config = SMALL.replace(memory_key="contexts", memory=600, vocab_size=6)
    model = DualCNN(config).eval()
    model.fit_codes(torch.arange(300) % 6)
    model.fit_words(SYMBOLS)
    tokens = torch.tensor([[0, 1, 2, 3, 5, 4, 0, 1, 2]])
    with torch.no_grad():
        output = model.compute(tokens, model.zero_state())
    gain = output.logits[0, -1, 3] - torch.log_softmax(output.without_memory[0, -1], -1)[3]
    assert gain > 0.1
    np.testing.assert_allclose(output.logits[0].exp().sum(-1), 1, atol=1e-5)


def test_a_stream_without_trust_is_the_network_alone() -> None:
    config = SMALL.replace(memory_key="contexts", memory=600, vocab_size=6)
    model = DualCNN(config).eval()
    model.fit_codes(torch.arange(300) % 6)
    tokens = torch.arange(40).view(1, -1) % 6
    with torch.no_grad():
        output = model.compute(
            tokens, model.zero_state(), learn=torch.full((1,), 0.5), trust=torch.zeros(1)
        )
    alone = torch.log_softmax(output.without_memory, -1)
    np.testing.assert_allclose(output.logits, alone, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"adaptation": False}, {"memory_key": "reservoir", "memory": 64}, {"memory": 0}],
    ids=["contexts", "frozen", "reservoir", "none"],
)
def test_the_targets_alone_are_predicted_as_among_all_tokens(changes: dict[str, object]) -> None:
    shape = {"memory_key": "contexts", "memory": 600, "vocab_size": 6, "dropout": 0.3, **changes}
    model = DualCNN(SMALL.replace(**shape)).train()
    tokens, targets = torch.randint(0, 6, (2, 3, 60), generator=torch.Generator().manual_seed(1))
    model.fit(tokens.reshape(-1), SYMBOLS)
    trust = torch.tensor([1.0, 0.0, 1.0])
    results = []
    for given_targets in (None, targets):
        model.noise.begin(0, 0, range(3), torch.device("cpu"))
        output = model.compute(tokens, model.zero_state(3), trust=trust, targets=given_targets)
        predictions = (output.logits, output.first_logits, output.without_memory)
        if given_targets is None:
            every = (torch.log_softmax(logits, -1) for logits in predictions)
            predictions = tuple(logits.gather(2, targets.unsqueeze(2)) for logits in every)
        model.zero_grad()
        sum(prediction.mean() for prediction in predictions).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([*(prediction.detach() for prediction in predictions), *gradients])
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("contexts", ["", "0", "9", "2 2", "word words", "2,4"])
def test_contexts_that_do_not_exist_are_refused(contexts: str) -> None:
    with pytest.raises(ConfigError, match="it must be different contexts"):
        DualCNNConfig().replace(memory_key="contexts", memory=6000, contexts=contexts)


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(ConfigError, match="slots for 6 contexts together; it must be 96 to"):
        DualCNNConfig().replace(memory_key="contexts", memory=10)


def test_the_limit_counts_the_bytes_of_a_slot() -> None:
    for vocab_size in (458, 459):
        largest = 1_000_000_000 // slot_type(vocab_size).itemsize
        config = DualCNNConfig().replace(
            memory_key="contexts", memory=largest, vocab_size=vocab_size
        )
        with pytest.raises(ConfigError, match=f"it must be 96 to {largest}: try"):
            config.replace(memory=largest + 1)
    assert (slot_type(458), slot_type(459)) == (torch.int32, torch.int64)


def test_fitting_cannot_leave_out_the_words() -> None:
    """The recipe part by part fits what the pipeline fits."""
    tokens = torch.arange(300) * 7 % 6
    config = SMALL.replace(memory_key="contexts", memory=90, contexts="2 word", vocab_size=6)
    with pytest.raises(UsageError, match=r"context 'word' needs .*tokenizer.token_bytes\)"):
        DualCNN(config).fit(tokens)
    memory = DualCNN(config).fit(tokens, SYMBOLS).memory
    assert isinstance(memory, ContextMemory)
    assert memory.outside[:, 0].tolist() == [1, 0, 0, 0, 1, 1, 0]
    for changes in ({"contexts": "2 3"}, {"memory": 0}, {"memory_key": "suffix", "memory": 20}):
        DualCNN(config.replace(**changes)).fit(tokens)


def test_what_was_never_fitted_is_not_trained() -> None:
    config = SMALL.replace(vocab_size=6)
    with pytest.raises(UsageError, match="token codes are all zero"):
        DualCNNTrainer(DualCNN(config))
    DualCNNTrainer(DualCNN(config.replace(reservoir="none", memory=0)))  # it has no use for codes
