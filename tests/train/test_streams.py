"""Streams of a batch, the split of a corpus, and the noise of each stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rillet.runtime import CorpusError
from rillet.train import Tokens, TrainingConfig
from rillet.train.data.streams import Streams, Text, split
from rillet.train.model.dropout_noise import Noise


def test_noise_depends_on_the_stream_alone() -> None:
    """A stream's masks do not depend on the streams trained beside it."""
    x = torch.ones(4, 6, 5)
    together, alone = Noise(), Noise()
    together.begin(1, 7, range(4), x.device)
    masks = [together.keep(x, 0.3) for _ in range(2)]
    for stream in range(4):
        alone.begin(1, 7, range(stream, stream + 1), x.device)
        for mask in masks:
            assert torch.equal(alone.keep(x[:1], 0.3), mask[stream : stream + 1])
    assert not torch.equal(masks[0], masks[1])
    together.begin(1, 8, range(4), x.device)
    assert not torch.equal(together.keep(x, 0.3), masks[0])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(share: float) -> None:
    noise = Noise()
    noise.begin(0, 0, range(8), torch.device("cpu"))
    mask = noise.keep(torch.ones(8, 200, 50), share)
    assert mask.mean() == pytest.approx(1, abs=0.02)
    assert (mask == 0).float().mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("share", "dropped"), [(1e-9, 1 / 256), (0.999, 255 / 256)])
def test_dropout_drops_neither_nothing_nor_all(share: float, dropped: float) -> None:
    noise = Noise()
    noise.begin(0, 0, range(8), torch.device("cpu"))
    mask = noise.keep(torch.ones(8, 200, 500), share)
    assert mask.max() == pytest.approx(1 / (1 - dropped))
    assert (mask == 0).float().mean() == pytest.approx(dropped, abs=0.001)


def test_streams_are_contiguous_and_cover_the_text() -> None:
    numbers = Tokens.of(torch.arange(1_000))
    config = TrainingConfig(batch=4, chunk=25, held_out=0.1, validation=0.2)
    parts = split(numbers, config)
    assert parts.held_out.tensor().tolist() == list(range(900, 1000))
    assert parts.validation is not None
    validated = set(parts.validation.flatten().tolist())
    assert len(validated) == 8 * 22
    streams = Streams(parts.trained, config)
    steps = -(-len(parts.trained) // 25)
    chunks = [streams.chunk(step, range(4)) for step in range(steps)]
    seen = {int(n) for inputs, _ in chunks for n in inputs.flatten()}
    # Everything else is trained on, except the few tokens that an uneven cut leaves over.
    assert seen.isdisjoint(validated)
    assert len(set(range(900)) - validated - seen) < 8
    for before, after in pairwise(chunks):
        assert torch.equal(before[1][:, -1], after[0][:, 0])


def test_a_separate_text_can_be_held_out() -> None:
    own = Tokens.of(torch.zeros(50, dtype=torch.int64))
    parts = split(Tokens.of(torch.arange(1_000)), TrainingConfig(), own)
    assert len(parts.held_out) == 50
    assert len(parts.trained.tokens) == 1_000


def test_a_text_too_short_for_its_streams_is_rejected() -> None:
    with pytest.raises(CorpusError, match=r"1 stream of 128 tokens need 128; .* or lower chunk"):
        Streams(Text(Tokens.of(torch.arange(90))), TrainingConfig(batch=1, chunk=128))
    with pytest.raises(CorpusError, match="has 90 tokens, but 4 streams of 32 tokens need 128"):
        Streams(
            Text(Tokens.of(torch.zeros(90, dtype=torch.int64))), TrainingConfig(batch=4, chunk=32)
        )
