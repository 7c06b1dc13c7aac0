"""Parts of the model, training, and checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import BundleError, CorpusError
from rillet.train import (
    AttentiveReservoir,
    Checkpoint,
    DualCNN,
    DualCNNTrainer,
    SparseReservoir,
    TrainingConfig,
    TrainingError,
    TrainingProgress,
    evaluate,
    load_checkpoint,
    save_checkpoint,
)
from rillet.train.checkpoint import CHECKPOINT_FILE
from rillet.train.model.causal import causal_filters
from rillet.train.model.embedder import fit_codes
from rillet.train.model.recall import closeness
from rillet.train.model.stream_memory import MemoryGate, combine
from support.models import SMALL, train_small


@pytest.mark.parametrize("vocab_size", [1, 3, 60, 256])
def test_token_codes_are_distinct(vocab_size: int, text: str) -> None:
    """Codes have unit length and differ from each other, even those of unseen tokens."""
    used = min(vocab_size, 50)
    tokens = torch.tensor([ord(character) % used for character in text[:20_000]])
    codes = fit_codes(tokens, vocab_size, 32)
    assert codes.shape == (vocab_size, 32)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(vocab_size))
    similarity = (codes @ codes.T).fill_diagonal_(0)
    assert similarity.pow(2).mean().sqrt() < 0.5
    assert similarity.max() < 0.999
    assert torch.equal(codes, fit_codes(tokens, vocab_size, 32))


def test_the_spectral_radius_is_as_configured() -> None:
    reservoir = SparseReservoir(80, 32, spectral_radius=0.7)
    radius = np.abs(np.linalg.eigvals(reservoir.recurrent.numpy())).max()
    assert radius == pytest.approx(0.7, rel=1e-4)
    density = (reservoir.recurrent != 0).float().mean()
    assert density == pytest.approx(0.1, abs=0.02)
    assert ((reservoir.leak >= 0.3) & (reservoir.leak <= 1)).all()


def test_a_difference_in_the_reservoir_decays() -> None:
    """Invariant 6, for the recurrence itself."""
    reservoir = AttentiveReservoir(128, 32)
    drive = torch.randn(1, 400, 128, generator=torch.Generator().manual_seed(0))
    start = torch.randn(1, 128, generator=torch.Generator().manual_seed(1)) * 0.1
    first, second = reservoir.run(torch.zeros(1, 128), drive), reservoir.run(start, drive)
    differences = (first - second).abs().amax(dim=(0, 2))
    assert differences[0] > 0.01
    assert differences[-1] < 1e-6


def test_the_reservoir_is_not_trained(small: Checkpoint) -> None:
    fresh = DualCNN(small.model.config)
    for name in ("recurrent", "input_weights", "leak"):
        assert torch.equal(getattr(small.model.reservoir, name), getattr(fresh.reservoir, name))
    trained = dict(small.model.named_parameters())
    for name, parameter in fresh.named_parameters():
        assert not torch.equal(parameter, trained[name]), f"{name} was never trained"


@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1e-3, 1.0]))
def test_closeness_is_accurate(seed: int, scale: float) -> None:
    """-|k - k_j|^2 / 2 is accurate to 1e-8 for keys near each other."""
    random = torch.Generator().manual_seed(seed)
    query = torch.nn.functional.normalize(torch.randn(1, 7, 32, generator=random), dim=2)
    keys = query[:, :5] + scale * torch.randn(1, 5, 32, generator=random) * 0.1
    keys = torch.cat([torch.nn.functional.normalize(keys, dim=2), torch.zeros(1, 2, 32)], dim=1)
    expected = -(query.double()[:, :, None] - keys.double()[:, None]).pow(2).sum(3) / 2
    actual = closeness(query, keys).double()
    assert ((actual - expected).abs()[expected > -0.1] <= 1e-8).all()
    torch.testing.assert_close(actual, expected, atol=2e-7, rtol=0)


@pytest.mark.parametrize("bias", [-40.0, -8.0, 0.0, 8.0, 14.0, 40.0])
def test_unlikely_tokens_keep_their_precision(bias: float) -> None:
    """However far the memory is trusted, all log-probabilities are accurate to 1e-5."""
    config = SMALL.replace(vocab_size=12)
    gate = MemoryGate(config)
    with torch.no_grad():
        gate.output.bias.fill_(bias)
        gate.log_c.fill_(-4.0)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(1, 50, config.wave_features, generator=random)
    recalled = torch.rand(1, 50, 12, generator=random) * torch.eye(12)[torch.arange(50) % 12] * 20
    logits = torch.randn(1, 50, 12, generator=random) * 4
    with torch.no_grad():
        actual = combine(logits, *gate(features, recalled))
        exact = gate.double()
        expected = combine(logits.double(), *exact(features.double(), recalled.double()))
    assert (actual - expected).abs().max() <= 1e-5
    torch.testing.assert_close(expected.exp().sum(-1), torch.ones(1, 50, dtype=torch.float64))


@given(
    length=st.integers(1, 40),
    window=st.integers(2, 9),
    multiplier=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_blocked_filters_are_a_convolution(
    length: int, window: int, multiplier: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, window - 1 + length, 5, generator=random)
    filters = torch.randn(5, multiplier, window, generator=random)
    taps = filters.reshape(5 * multiplier, 1, window)
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), taps, groups=5).transpose(1, 2)
    torch.testing.assert_close(causal_filters(x, filters), expected, atol=1e-5, rtol=1e-5)


def test_a_seed_gives_the_same_model(text: str, small: Checkpoint) -> None:
    again = train_small(SMALL, text[:60_000], steps=40)
    for name, tensor in small.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    other = train_small(SMALL, text[:60_000], steps=5, seed=1)
    assert not torch.equal(
        other.model.embedder.embedding.weight, again.model.embedder.embedding.weight
    )


def test_training_learns_and_reports(text: str) -> None:
    tokens = torch.tensor([ord(character) % 50 for character in text[:40_000]])
    model = DualCNN(SMALL.replace(vocab_size=50)).fit(tokens)
    seen: list[TrainingProgress] = []
    config = TrainingConfig(steps=60, batch=8, chunk=64, validate_every=30, report_every=1)
    config = config.replace(precision="fp32", average=0.9)
    DualCNNTrainer(model, config).train(tokens[:36_000], tokens[36_000:], seen.append)
    assert [progress.step for progress in seen] == list(range(1, 61))
    assert seen[0].loss == pytest.approx(math.log(50), abs=0.7)
    assert seen[-1].loss < seen[0].loss - 0.5
    for progress in seen:
        mixed = 0.5 * progress.second_loss + 0.5 * progress.without_memory
        assert progress.loss == pytest.approx(0.3 * progress.first_loss + 0.7 * mixed, rel=1e-5)
        assert 0 < progress.buffer_utilisation <= 1
        assert 0 < progress.attention_entropy <= math.log(SMALL.attention_window)
        assert progress.memory > 1e6
    validations = {progress.step: progress.validation for progress in seen if progress.validation}
    assert sorted(validations) == [30, 60]
    assert validations[60].loss < validations[30].loss
    rates = [progress.learning_rate for progress in seen]
    assert rates[0] < max(rates)
    assert rates[-1] < 0.1 * max(rates)


def test_evaluation_is_one_stream(small: Checkpoint, text: str) -> None:
    """The loss does not depend on the chunks; it is measured with and without the memory."""
    tokens = torch.tensor(small.tokenizer.encode(text[60_000:62_000]))
    whole = evaluate(small.model, tokens, chunk=10_000)
    parts = evaluate(small.model, tokens, chunk=37)
    assert whole.tokens == len(tokens) - 1
    assert whole.loss == pytest.approx(parts.loss, abs=1e-6)
    with torch.no_grad():
        state = small.model.zero_state()
        logits, _ = small.model(tokens[None, :-1], state)
        without, _ = small.model(tokens[None, :-1], state, torch.zeros(1))
    entropy = torch.nn.functional.cross_entropy
    assert whole.loss == pytest.approx(entropy(logits[0], tokens[1:]).item(), abs=1e-5)
    assert whole.without_memory == pytest.approx(entropy(without[0], tokens[1:]).item(), abs=1e-5)
    assert whole.loss != whole.without_memory


def test_an_evaluation_ends_in_time(small: Checkpoint, text: str) -> None:
    """Where it stops, its figures are those of the text that was read."""
    tokens = torch.tensor(small.tokenizer.encode(text[60_000:62_000]))
    cut = evaluate(small.model, tokens, chunk=100, ends=0.0)
    assert cut == evaluate(small.model, tokens[:101], chunk=100)
    assert cut.tokens == 100


def test_a_loss_that_is_not_finite_stops_training(text: str) -> None:
    tokens = torch.tensor([ord(character) % 50 for character in text[:20_000]])
    model = DualCNN(SMALL.replace(vocab_size=50)).fit(tokens)
    with torch.no_grad():
        model.wave_cnn.emit.weight[0, 0] = float("nan")
    with pytest.raises(
        TrainingError, match="the loss is nan at step 1; the weights from before it are kept"
    ):
        DualCNNTrainer(model, TrainingConfig(steps=3, batch=4, chunk=32)).train(tokens)


def test_a_text_too_short_for_the_batch_is_rejected(text: str) -> None:
    with pytest.raises(CorpusError, match="8 streams of 64 tokens need 512"):
        train_small(SMALL, text[:400], steps=1)


def test_checkpoint_round_trip(small: Checkpoint, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        save_checkpoint(folder, small)
    assert (tmp_path / "a" / CHECKPOINT_FILE).read_bytes() == (
        tmp_path / "b" / CHECKPOINT_FILE
    ).read_bytes()
    loaded = load_checkpoint(tmp_path / "a")
    assert loaded.model.config == small.model.config
    assert loaded.tokenizer.source == small.tokenizer.source
    assert loaded.training == small.training
    for name, tensor in small.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name


def test_damaged_checkpoints_are_rejected(small_run: Path, tmp_path: Path) -> None:
    data = (small_run / CHECKPOINT_FILE).read_bytes()
    path = tmp_path / CHECKPOINT_FILE
    for damaged in (b"", data[:50], data[:-100], b"\xff" * 100, data.replace(b'"width', b'"wodth')):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="damaged"):
            load_checkpoint(tmp_path)
    path.unlink()
    with pytest.raises(BundleError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)


def test_foreign_and_newer_checkpoints_are_rejected(small_run: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(small_run / CHECKPOINT_FILE)
    path = tmp_path / CHECKPOINT_FILE
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(BundleError, match="not a rillet checkpoint"):
        load_checkpoint(tmp_path)
    header = {"format": "rillet-checkpoint", "format_version": "2.0"}
    safetensors.torch.save_file(tensors, path, {"rillet": json.dumps(header)})
    with pytest.raises(BundleError, match=r"version 2\.0.*newer rillet"):
        load_checkpoint(tmp_path)


def test_half_a_checkpoint_is_the_model_to_three_digits(small: Checkpoint, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder, is_half in ((whole, False), (half, True)):
        folder.mkdir()
        save_checkpoint(folder, small, half=is_half)
    found, expected = load_checkpoint(half).model.state_dict(), small.model.state_dict()
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-6, msg=name)
    sizes = [(folder / CHECKPOINT_FILE).stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.8 * sizes[0]
    save_checkpoint(whole, load_checkpoint(half), half=True)  # rounded once, it stays
    assert (whole / CHECKPOINT_FILE).read_bytes() == (half / CHECKPOINT_FILE).read_bytes()


def test_weights_that_are_not_finite_are_rejected(small: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, small)
    other = load_checkpoint(tmp_path)
    with torch.no_grad():
        other.model.reservoir.leak[0] = float("inf")
    save_checkpoint(tmp_path, other)
    with pytest.raises(BundleError, match=r"not finite: reservoir\.leak"):
        load_checkpoint(tmp_path)
