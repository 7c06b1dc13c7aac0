"""The rolling wave buffer: what it keeps, what it drops, and round trips through files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import BundleError, ConfigError, UsageError
from rillet.train import Checkpoint, RollingWaveBuffer, WaveOutput, read_waves


def wave(position: int, features: int = 4, keys: int = 3) -> WaveOutput:
    random = torch.Generator().manual_seed(position)
    return WaveOutput(
        position=position,
        token=position % 7,
        features=torch.randn(features, generator=random),
        confidence=1 / (position + 1),
        attention_entropy=position / 3,
        attention_peak=position % 5,
        key=torch.randn(keys, generator=random),
    )


def same(first: RollingWaveBuffer, second: RollingWaveBuffer) -> bool:
    """Whether two buffers are equal bit for bit."""
    return [w.to_dict() for w in first] == [w.to_dict() for w in second] and vars(first).keys() == (
        vars(second).keys()
    )


@given(capacity=st.integers(1, 12), count=st.integers(0, 40))
def test_it_keeps_only_the_last_waves(capacity: int, count: int) -> None:
    window = max(1, capacity // 2)
    buffer = RollingWaveBuffer(capacity, window, 0, features=4, keys=3)
    size = buffer.memory_bytes
    for position in range(count):
        buffer.append(wave(position))
        assert buffer.position == position + 1
    kept = list(range(max(0, count - capacity), count))
    assert [w.position for w in buffer] == kept
    assert [buffer[index].position for index in range(len(buffer))] == kept
    assert buffer.utilisation == len(kept) / capacity
    assert buffer.memory_bytes == size == 4 * capacity * 7
    view = buffer.window_view()
    assert view.shape == (window, 4)
    for back in range(1, window + 1):
        expected = wave(count - back).features if back <= count else torch.zeros(4)
        assert torch.equal(view[-back], expected)
    buffer.clear()
    assert (len(buffer), buffer.position, buffer.utilisation) == (0, 0, 0.0)
    assert not buffer.window_view().any()


@given(window=st.integers(1, 6), overlap=st.integers(0, 5), count=st.integers(0, 30))
def test_views_overlap_as_configured(window: int, overlap: int, count: int) -> None:
    overlap = min(overlap, window - 1)
    buffer = RollingWaveBuffer(20, window, overlap, features=4, keys=3)
    for position in range(count):
        buffer.append(wave(position))
    views = list(buffer.windows())
    for view in views:
        assert view.shape == (window, 4)
    for before, after in pairwise(views):
        assert torch.equal(before[window - overlap :], after[:overlap])
    if count >= window:
        assert torch.equal(views[-1], buffer.window_view())
    else:
        assert views == []


def test_json_and_safetensors_round_trips(tmp_path: Path) -> None:
    for count in (0, 1, 5, 23):
        buffer = RollingWaveBuffer(8, 4, 2, features=4, keys=3)
        for position in range(count):
            buffer.append(wave(position))
        assert same(buffer, RollingWaveBuffer.from_json(buffer.to_json()))
        buffer.save(tmp_path / "waves.safetensors")
        assert same(buffer, RollingWaveBuffer.load(tmp_path / "waves.safetensors"))


def test_damaged_buffers_are_rejected(tmp_path: Path) -> None:
    buffer = RollingWaveBuffer(8, 4, 2, features=4, keys=3)
    for position in range(5):
        buffer.append(wave(position))
    text, path = buffer.to_json(), tmp_path / "waves.safetensors"
    for damaged in ("", "[", "{}", text[:-9], text.replace("features", "fatures", 2)):
        with pytest.raises(UsageError, match="save it again"):
            RollingWaveBuffer.from_json(damaged)
    with pytest.raises(UsageError, match="step 4 comes next"):
        RollingWaveBuffer.from_json(text.replace('"position": 4', '"position": 9'))
    buffer.save(path)
    data = path.read_bytes()
    for damaged_bytes in (b"", data[:40], data[:-3], data.replace(b"keys", b"kays")):
        path.write_bytes(damaged_bytes)
        with pytest.raises(BundleError, match=r"wave buffer.*save it again"):
            RollingWaveBuffer.load(path)


def test_all_conflicts_of_its_sizes_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        RollingWaveBuffer(capacity=4, window=9, overlap=12)
    assert "window is 9 but capacity is 4" in str(caught.value)
    assert "overlap is 12 but window is 9; the overlap must be smaller: try overlap=4" in str(
        caught.value
    )
    with pytest.raises(ConfigError, match="lower the capacity"):
        RollingWaveBuffer(capacity=10**9, window=4)


def test_a_wave_of_another_stream_is_rejected() -> None:
    buffer = RollingWaveBuffer(8, 4, features=4, keys=3)
    buffer.append(wave(3))
    with pytest.raises(UsageError, match="is of step 9, but step 4 comes next"):
        buffer.append(wave(9))
    with pytest.raises(UsageError, match=r"features of shape \[5\]"):
        buffer.append(wave(4, features=5))


def test_it_builds_the_state_of_the_model(small: Checkpoint, text: str) -> None:
    """The waves of a text give the state tensors that the model has after reading it."""
    model = small.model
    tokens = torch.tensor(small.tokenizer.encode(text[:47]))
    waves, state = read_waves(model, tokens)
    buffer = RollingWaveBuffer.from_config(model.config)
    for emitted in waves:
        buffer.append(emitted)
    actual = buffer.to_state(model.config)
    assert set(actual) == {"wave_buffer", "memory_keys", "memory_tokens", "position"}
    # The oldest entry's key belongs to a wave that the buffer has dropped.
    oldest = (len(tokens) - model.config.memory) % model.config.memory
    for name, tensor in actual.items():
        expected = state[name].clone()
        if name.startswith("memory"):
            expected[0, oldest] = 0
        torch.testing.assert_close(tensor, expected)
    first = waves[0]
    assert first.position == 0
    assert 0 < first.confidence <= 1
    assert all(0 <= w.attention_peak < model.config.attention_window for w in waves)


def test_read_waves_continues_a_stream(small: Checkpoint, text: str) -> None:
    tokens = torch.tensor(small.tokenizer.encode(text[:60]))
    whole, _ = read_waves(small.model, tokens)
    first, state = read_waves(small.model, tokens[:25])
    second, _ = read_waves(small.model, tokens[25:], state)
    for one, other in zip(whole, first + second, strict=True):
        assert (one.position, one.token) == (other.position, other.token)
        torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=0)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert one.attention_entropy == pytest.approx(other.attention_entropy, abs=1e-4)
