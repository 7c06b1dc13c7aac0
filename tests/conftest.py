"""Models and bundles that many tests share; made once a run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from rillet.export.bundle.writer import write_bundle
from rillet.runtime import Model, load
from rillet.train import (
    Checkpoint,
    DualCNN,
    DualCNNConfig,
    DualCNNTrainer,
    TrainingConfig,
    builtin_corpus,
    load_checkpoint,
    make_tokenizer,
    save_checkpoint,
)

# Shared machines are slow at times: no deadline. Derandomised, so that a run is repeatable.
settings.register_profile(
    "rillet",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("RILLET_EXAMPLES", "25")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("rillet")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

SMALL = DualCNNConfig(
    code_width=8,
    reservoir_size=24,
    width=12,
    attention_heads=3,
    attention_window=7,
    wave_kernel=3,
    wave_features=10,
    wave_window=5,
    readout_blocks=2,
    hidden=16,
    memory=20,
    key_width=9,
    gate_hidden=4,
    reservoir_density=0.4,
)
"""Every part of the model, each with another size, and windows that short texts overrun."""

VARIANTS: dict[str, dict[str, object]] = {
    "single CNN": {"architecture": "single_cnn"},
    "standard reservoir": {"reservoir": "standard"},
    "single CNN, standard reservoir": {"architecture": "single_cnn", "reservoir": "standard"},
    "no reservoir, keyed by the suffix": {
        "reservoir": "none",
        "memory_key": "suffix",
        "suffix_length": 1,
    },
    "keyed by the suffix": {"memory_key": "suffix", "suffix_length": 5},
    "single CNN, keyed by the suffix": {
        "architecture": "single_cnn",
        "reservoir": "none",
        "memory_key": "suffix",
        "suffix_length": 3,
    },
    "reservoir in blocks": {"reservoir_structure": "blocks", "reservoir_blocks": 4},
    "no memory": {"memory": 0, "reservoir": "standard"},
    "no reservoir, no memory": {"reservoir": "none", "memory": 0},
    "the least": {"architecture": "single_cnn", "reservoir": "none", "memory": 0},
    "random codes, plain sine": {
        "codes": "random",
        "sine_decay": 0.0,
        "sine_frequency": 1.5,
        "sine_amplitude": 0.7,
    },
}
"""What is changed in :data:`SMALL`: each part replaced or left out, alone and with others."""


def train_small(config: DualCNNConfig, text: str, steps: int, **changes: object) -> Checkpoint:
    """Train a model for a few steps: enough that no weight is what it began as."""
    tokenizer = make_tokenizer(text)
    tokens = torch.tensor(tokenizer.encode(text))
    model = DualCNN(config.replace(vocab_size=tokenizer.vocab_size)).fit(tokens)
    training = TrainingConfig(steps=steps, batch=8, chunk=64, precision="fp32", average=0.0)
    training = training.replace(**changes)
    DualCNNTrainer(model, training).train(tokens)
    provenance = {"corpus": "builtin:pydoc", "steps": steps, "config": training.to_dict()}
    return Checkpoint(model.eval(), tokenizer, provenance)


@pytest.fixture(scope="session")
def text() -> str:
    """Real English text."""
    return builtin_corpus()


@pytest.fixture(scope="session")
def small(text: str) -> Checkpoint:
    """A small trained model."""
    return train_small(SMALL, text[:60_000], steps=40)


@pytest.fixture(scope="session")
def small_run(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that holds the small model's checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder, small)
    return folder


@pytest.fixture(scope="session")
def small_bundle(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's bundle."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_bundle(small, folder, steps=500)
    return folder


@pytest.fixture(scope="session")
def small_model(small_bundle: Path) -> Model:
    """The small bundle, loaded."""
    return load(small_bundle)


@pytest.fixture(scope="session")
def variant_checkpoint(text: str) -> Callable[[str], Checkpoint]:
    """A small trained model of each variant, by name, made when it is first asked for."""

    @functools.cache
    def make(name: str) -> Checkpoint:
        return train_small(SMALL.replace(**VARIANTS[name]), text[:60_000], steps=12)

    return make


@pytest.fixture(scope="session")
def variant_bundle(
    variant_checkpoint: Callable[[str], Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The bundle of each variant, by name, made when it is first asked for."""

    @functools.cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("variant")
        save_checkpoint(folder, variant_checkpoint(name))
        write_bundle(load_checkpoint(folder), folder / "bundle", steps=200)
        return folder / "bundle"

    return make


@pytest.fixture(scope="session")
def nano(text: str) -> Checkpoint:
    """A model of the default preset, trained for a few steps."""
    return train_small(DualCNNConfig(), text, steps=60, batch=16, chunk=128)


@pytest.fixture(scope="session")
def nano_bundle(nano: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default preset's bundle."""
    folder = tmp_path_factory.mktemp("bundles") / "nano"
    write_bundle(nano, folder, steps=1_000)
    return folder


@pytest.fixture(scope="session")
def tinyshakespeare() -> str:
    """The text that figures are quoted on."""
    path = SHARED_DATA / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def random() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)
