"""The baselines, and the naive forms of our model, that benchmarks compare with."""

from __future__ import annotations

import pytest
import torch

from lib.baseline_training import held_out_loss, train_baseline
from lib.baselines import GPT, GRU, Baseline, matched_gpt, matched_gru
from lib.full_training import BUILD
from lib.naive import naive_forms
from rillet.train import DualCNN, TrainingConfig
from rillet.train.data.streams import Text
from rillet.train.data.token_file import Tokens
from rillet.train.model import stream_memory
from support.models import SMALL

VOCAB = 20
LEARNABLE = TrainingConfig(batch=4, chunk=32, steps=60, learning_rate=1e-2, precision="fp32")


@pytest.fixture
def tokens() -> torch.Tensor:
    """A predictable text: seven of eight tokens follow from the one before."""
    torch.manual_seed(0)
    steps = torch.where(torch.rand(2_000) < 0.125, torch.randint(VOCAB, (2_000,)), 3)
    return steps.cumsum(0) % VOCAB


def small(kind: type[Baseline]) -> Baseline:
    torch.manual_seed(0)
    model = GPT(VOCAB, 32, 16, 2, 2) if kind is GPT else GRU(VOCAB, 16)
    return model.eval()


@pytest.mark.parametrize(
    "parameters",
    [140_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (50_000, 1_000_000))],
)
def test_parameters_are_matched(parameters: int) -> None:
    for model in (matched_gpt(parameters, 65, 256), matched_gru(parameters, 65)):
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert model.parameter_count() == trained == pytest.approx(parameters, rel=0.03)


def test_matching_fails_when_no_shape_comes_close() -> None:
    with pytest.raises(ValueError, match="no GPT"):
        matched_gpt(1_000, 65, 256)
    with pytest.raises(ValueError, match="no GRU"):
        matched_gru(100, 65)


@torch.no_grad()
def test_gpt_is_causal(tokens: torch.Tensor) -> None:
    model, window = small(GPT), tokens[:32].view(1, -1)
    changed = window.clone()
    changed[0, 20] = (changed[0, 20] + 1) % VOCAB
    before, after = model(window)[0], model(changed)[0]
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@torch.no_grad()
def test_gru_does_not_depend_on_chunks(tokens: torch.Tensor) -> None:
    model, state, parts = small(GRU), None, []
    stream = tokens[:200].view(2, -1)
    for chunk in stream.split([1, 30, 7, 62], dim=1):
        logits, state = model(chunk, state)
        parts.append(logits)
    whole, last = model(stream)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gru", "lstm", "mingru"])
def test_a_recurrence_is_computed_in_float32(name: str, tokens: torch.Tensor) -> None:
    """Rounded to bfloat16 in training, and not in reading, a slow gate forgets at two speeds."""
    torch.manual_seed(0)
    model = BUILD[name](30_000, VOCAB, 0.0)
    layers = getattr(model, "layers", None)
    if layers is None:  # of minGRU, only the gate and the scan
        layers = model.blocks[0].gate_and_candidate
        layers.bias[: layers.out_features // 2] = -6  # keeps 0.9975 of its state
    else:
        layers.bias_hh_l0.fill_(6)
    stream = tokens[:512].view(2, -1)
    _, exact = model(stream)
    with torch.autocast("cpu", torch.bfloat16):
        _, rounded = model(stream)
    error = (rounded[0] - exact[0]).abs().mean() / exact[0].abs().mean()
    assert error < 0.02


@torch.no_grad()
@pytest.mark.parametrize("length", [20, 32, 33, 48, 101])
def test_held_out_counts_each_prediction_once(tokens: torch.Tensor, length: int) -> None:
    text = tokens[:length]
    gpt = small(GPT)
    losses = []
    for position in range(1, length):
        # The latest window, of those half a context apart, with the prediction in its second half.
        start = max(0, (position - 1) // 16 - 1) * 16
        logits = gpt(text[start:position].view(1, -1))[0][0, -1]
        losses.append(-torch.log_softmax(logits, 0)[text[position]])
    assert held_out_loss(gpt, text) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    gru = small(GRU)
    logits = gru(text[:-1].view(1, -1))[0][0]
    expected = torch.nn.functional.cross_entropy(logits, text[1:])
    assert held_out_loss(gru, text) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("name", BUILD)
def test_every_parameter_that_is_counted_is_trained(name: str) -> None:
    """A head that nothing read once cost two of the baselines a third of their parameters."""
    model = BUILD[name](50_000, VOCAB, 0.0)
    model(torch.arange(24).view(2, 12) % VOCAB)[0].logsumexp(2).sum().backward()
    for title, parameter in model.named_parameters():
        assert parameter.grad is not None, title
        assert parameter.grad.abs().sum() > 0, title


@pytest.mark.parametrize("name", BUILD)
def test_an_untrained_model_predicts_nearly_evenly(name: str) -> None:
    torch.manual_seed(0)
    logits, _ = BUILD[name](50_000, VOCAB, 0.0).eval()(torch.arange(24).view(2, 12) % VOCAB)
    assert logits.std(dim=2).max() < 1


@pytest.mark.parametrize("kind", [GPT, GRU])
def test_training_learns_and_evaluates(tokens: torch.Tensor, kind: type[Baseline]) -> None:
    model = small(kind)
    evaluations: list[tuple[int, float, Baseline]] = []
    before = held_out_loss(model, tokens[1_600:])
    config = LEARNABLE.replace(validate_every=25)
    trained = train_baseline(
        model,
        Text(Tokens.of(tokens[:1_600])),
        config,
        lambda *evaluation: evaluations.append(evaluation),
    )
    assert [step for step, _, _ in evaluations] == [25, 50, 60]
    assert evaluations[0][1] < evaluations[-1][1]
    assert held_out_loss(trained, tokens[1_600:]) < before - 0.5


def test_training_stops_at_the_deadline(tokens: torch.Tensor) -> None:
    steps: list[int] = []
    train_baseline(
        small(GRU), Text(Tokens.of(tokens)), LEARNABLE, lambda step, *_: steps.append(step), 3
    )
    assert steps == [3]


def test_naive_forms_compute_the_same(tokens: torch.Tensor) -> None:
    # The chunks are longer than a block of attention, and than the memory.
    model = DualCNN(SMALL.replace(vocab_size=VOCAB)).fit(tokens).eval()
    stream = tokens[:300].view(2, 150)
    state = model.zero_state(2)
    for chunk in stream.split([40, 110], dim=1):
        expected = model.compute(chunk, state)
        with naive_forms():
            actual = model.compute(chunk, state)
        for name in ("logits", "first_logits", "without_memory"):
            torch.testing.assert_close(
                getattr(actual, name), getattr(expected, name), atol=1e-4, rtol=0
            )
        beta = model.memory.gate.log_beta
        actual_gradient, expected_gradient = (
            torch.autograd.grad(output.logits.pow(2).mean(), beta)[0]
            for output in (actual, expected)
        )
        torch.testing.assert_close(actual_gradient, expected_gradient, atol=1e-6, rtol=1e-2)
        state = {name: tensor.detach() for name, tensor in expected.state.items()}


def test_naive_forms_end_with_their_context() -> None:
    before = stream_memory.recall_tokens
    with naive_forms():
        assert stream_memory.recall_tokens is not before
    assert stream_memory.recall_tokens is before
