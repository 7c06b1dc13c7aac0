"""The online weights of the memory of contexts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.train import DualCNN
from rillet.train.model.adaptation import ONLINE, Evidence, adapt, mix
from support.models import SMALL

CONFIG = SMALL.replace(memory_key="contexts", memory=600, vocab_size=6, contexts="1 3 word")


def evidence(seed: int) -> Evidence:
    draw = torch.Generator().manual_seed(seed)
    return Evidence(
        torch.randn(2, 3, generator=draw, dtype=torch.float64),
        torch.rand(2, 3, generator=draw, dtype=torch.float64),
        torch.randint(6, (2, 3, 2), generator=draw),
        torch.softmax(torch.randn(2, 6, generator=draw, dtype=torch.float64), dim=1),
    )


@given(st.integers(0, 10_000), st.integers(0, 5))
def test_weights_follow_the_gradient_of_what_was_read(seed: int, token: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    adapted = torch.randn(2, 4, generator=draw, dtype=torch.float64).clamp(-1.5, 1.5)
    adapted.requires_grad_()
    seen = evidence(seed)
    tokens = torch.full((2, 1), token)
    predicted = mix(seen, adapted)
    (uphill,) = torch.autograd.grad(predicted.mixed.gather(1, tokens).sum(), adapted)
    (hotter,) = torch.autograd.grad(mix(seen, adapted).logits.gather(1, tokens).sum(), adapted)
    before = adapted.detach()
    after = adapt(
        before,
        predicted.shares.detach(),
        predicted.mixed.detach(),
        (seen.tokens == token).double(),
        tokens,
        torch.tensor([[1.0], [0.0]], dtype=torch.float64),
    )
    moved = after - before
    torch.testing.assert_close(moved[0, :3], 0.15 * uphill[0, :3])
    torch.testing.assert_close(moved[0, 3], 0.002 * hotter[0, 3])
    assert not moved[1].any()


def fitted() -> DualCNN:
    model = DualCNN(CONFIG).eval()
    model.fit_codes(torch.arange(300) % 6)
    model.fit_words([b"a", b"b", b"c", b" ", b".", b"1"])
    return model


def read(model: DualCNN, tokens: torch.Tensor, learn: float = 1.0) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        state = model(tokens, model.zero_state(len(tokens)), torch.full((len(tokens),), learn))[1]
    return dict(state)


def test_nothing_moves_at_the_start_of_a_stream() -> None:
    assert not read(fitted(), torch.tensor([[3]]))["adapted"].any()


@pytest.mark.parametrize("learn", [0.0, 0.5])
def test_what_a_stream_writes_moves_nothing(learn: float) -> None:
    state = read(fitted(), torch.arange(90).view(1, -1) % 6, learn)
    assert not state["adapted"].any()
    assert state["memory_slots"].any() == (learn > 0)


def test_training_moves_nothing() -> None:
    model = fitted().train()
    state = read(model, torch.arange(90).view(1, -1) % 6)
    assert not state["adapted"].any()
    assert all(name in state for name in ONLINE)


def test_a_text_that_repeats_itself_earns_the_memory_trust() -> None:
    state = read(fitted(), torch.arange(600).view(1, -1) % 6)
    assert (state["adapted"][0, :3] > 0.5).all()


def test_weights_stay_within_bounds() -> None:
    """However long a stream is, and however well its contexts predict it."""
    state = read(fitted(), (torch.arange(6_000) % 2).view(1, -1))
    adapted = state["adapted"][0]
    assert adapted[:3].abs().max() <= 8
    assert adapted[3].abs() <= 2


def test_it_can_be_left_out() -> None:
    """Then a stream has no such state, and predicts what one does that never adapts."""
    model, tokens = fitted(), torch.arange(90).view(1, -1) % 6
    plain = DualCNN(CONFIG.replace(adaptation=False)).eval()
    plain.load_state_dict(model.state_dict())
    assert not set(ONLINE) & set(plain.zero_state())
    with torch.no_grad():
        alone, _ = plain(tokens, plain.zero_state())
        frozen, _ = model(tokens, model.zero_state(), torch.full((1,), 0.5))
    torch.testing.assert_close(alone, frozen, atol=1e-5, rtol=0)
