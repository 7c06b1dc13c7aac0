"""Parts of the caller's own that do not fit are named before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rillet.train import (
    DualCNNConfig,
    DualCNNPipeline,
    ReadoutCNN,
    SetupError,
    SinusoidalEmbedder,
    SparseReservoir,
    StreamMemory,
    WaveCNN,
)
from support.models import SMALL

QUICK: dict[str, Any] = {"batch": 4, "chunk": 32, "steps": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "notes.txt"
    path.write_text(text[:12_000], encoding="utf-8")
    return path


class Drifting(WaveCNN):
    def forward(self, attended: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        waves, context = super().forward(attended, context)
        return waves, context[:, :-1]


class Doubled(ReadoutCNN):
    def forward(self, waves: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = super().forward(waves, windows)
        return logits.double(), features


def other_size(config: DualCNNConfig) -> nn.Module:
    return SparseReservoir(config.reservoir_size - 1, config.code_width)


@pytest.mark.parametrize(
    ("part", "replacement", "changes", "reason"),
    [
        ("reservoir", nn.Identity(), {}, "AttributeError: 'Identity' object has no attribute "),
        ("reservoir", other_size, {"reservoir": "standard"}, "RuntimeError: "),
        ("reservoir", SparseReservoir.from_config, {}, "state after a chunk lacks attention_wind"),
        ("reservoir", None, {}, "it is None, but the settings ask .*; set reservoir=none to leave"),
        ("read", nn.Linear(16, 16), {}, "the settings leave it out; set reservoir=standard"),
        ("wave_cnn", None, {}, "it is None, but the settings ask .*; no model is without it"),
        ("wave_cnn", Drifting, {}, r"wave_context after two tokens is \[.*; it must be \["),
        ("wave_cnn", lambda config: "wave", {}, "it is a str; it must be a torch.nn.Module"),
        ("readout_cnn", lambda config: None, {}, "set architecture=single_cnn to leave it out"),
        ("readout_cnn", ReadoutCNN, {"architecture": "single_cnn"}, "set architecture=dual_cnn to"),
        ("readout_cnn", Doubled, {"memory": 0}, "logits after two tokens is .* of float64; "),
        ("memory", None, {}, "it is None, but the settings ask .*; set memory=0 to leave it out"),
        ("memory", StreamMemory, {"memory_key": "contexts", "memory": 600}, "no state tensor"),
        ("embedder", nn.Embedding(9, 9), {}, "AttributeError: 'Embedding' object has no "),
    ],
)
def test_a_part_that_does_not_fit_is_named(
    corpus: Path, part: str, replacement: Any, changes: dict[str, Any], reason: str
) -> None:
    """Alone, or beside another one that fits."""
    for others in ({}, {"wave_cnn": WaveCNN} if part != "wave_cnn" else {"embedder": fitting}):
        parts = {**others, part: replacement}
        with pytest.raises(SetupError, match=f"^the {part} cannot be set up: .*{reason}"):
            DualCNNPipeline.fit_and_initialize(corpus, SMALL, parts=parts, **QUICK, **changes)


def fitting(config: DualCNNConfig) -> nn.Module:
    return SinusoidalEmbedder(config.vocab_size, config.code_width, config.width)


def test_a_part_that_does_not_fit_falls_back(corpus: Path) -> None:
    pipeline = DualCNNPipeline.fit_and_initialize(
        corpus, SMALL, parts={"memory": nn.Identity()}, allow_fallback=True, **QUICK
    )
    assert pipeline.model.memory is None
    assert "has no attribute" in str(pipeline.fallbacks[0])


def test_the_trial_leaves_no_trace(corpus: Path) -> None:
    """Neither on the random numbers nor on the mode of the model."""
    torch.manual_seed(3)
    plain = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    parts = {"wave_cnn": plain.model.wave_cnn, "reservoir": plain.model.reservoir}
    own = DualCNNPipeline.fit_and_initialize(corpus, SMALL, parts=parts, **QUICK)
    assert torch.equal(torch.rand(1), drawn)
    assert own.model.training
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, own.model.state_dict()[name]), name


def test_the_dropout_of_an_own_part_follows_the_run(corpus: Path) -> None:
    """Training with the configuration's part, passed by the caller, gives the same weights."""
    changes = {"dropout": 0.3, "precision": "fp32", **QUICK}
    plain = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **changes)
    assert plain.model.readout_cnn is not None
    fresh = ReadoutCNN(plain.config)
    fresh.load_state_dict(plain.model.readout_cnn.state_dict())
    own = DualCNNPipeline.fit_and_initialize(corpus, SMALL, parts={"readout_cnn": fresh}, **changes)
    plain.train()
    own.train()
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, own.model.state_dict()[name]), name
