"""Every variant of the model trains, exports, passes the gate and generates like the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import SMALL, train_small
from rillet.export.bundle_writer import write_bundle
from rillet.runtime import load
from rillet.train import load_checkpoint, save_checkpoint, state_shapes
from streams import assert_same, real_tokens, run_engine, run_torch

VARIANTS: dict[str, dict[str, object]] = {
    "single CNN": {"architecture": "single_cnn"},
    "standard reservoir": {"reservoir": "standard"},
    "no reservoir, keyed by the suffix": {"reservoir": "none", "memory_key": "suffix"},
    "no reservoir, no memory": {"reservoir": "none", "memory": 0},
    "the least": {"architecture": "single_cnn", "reservoir": "none", "memory": 0},
    "single CNN, standard reservoir": {"architecture": "single_cnn", "reservoir": "standard"},
    "keyed by the suffix": {"memory_key": "suffix", "suffix_length": 5},
    "reservoir in blocks": {"reservoir_structure": "blocks", "reservoir_blocks": 4},
    "no memory": {"memory": 0},
    "random codes, plain sine": {"codes": "random", "sine_decay": 0.0, "sine_frequency": 1.5,
                                 "sine_amplitude": 0.7},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_first_class(name: str, text: str, tmp_path: Path) -> None:
    checkpoint = train_small(SMALL.replace(**VARIANTS[name]), text[:20_000], steps=12)
    save_checkpoint(tmp_path, checkpoint)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.config == checkpoint.model.config
    for row in write_bundle(loaded, tmp_path / "bundle", steps=200):
        assert row.failure(1e-4) is None
    model = load(tmp_path / "bundle")
    shapes = state_shapes(checkpoint.model.config)
    table = {row.name: row.shape for row in model.bundle.state}
    assert table == {name: shape for name, (shape, _) in shapes.items()}
    # Any cut of a text, against PyTorch reading it at once.
    stream = real_tokens(checkpoint.tokenizer.encode(text[:5_000]), 3, 2, 75)
    whole = run_torch(checkpoint.model, stream, [75])
    assert_same(whole, run_torch(checkpoint.model, stream, [30, 1, 1, 43]), 1e-5)
    assert_same(whole, run_engine(model.engine, stream, [30, 1, 1, 43]), 1e-4)
    written = model.generate("The ", max_new_tokens=20, seed=5)
    assert len(written) == 20
    assert written == model.generate("The ", max_new_tokens=20, seed=5)
    zeros = run_torch(checkpoint.model, np.zeros((1, 1), np.int64), [1])[1]
    assert set(zeros) == set(shapes)


def test_fallbacks_are_recorded_in_the_bundle(text: str, tmp_path: Path) -> None:
    checkpoint = train_small(SMALL.replace(memory=0), text[:20_000], steps=2)
    note = "memory: RuntimeError: no such luck; going on with no memory"
    checkpoint.training["fallbacks"] = [note]
    write_bundle(checkpoint, tmp_path / "bundle", steps=50)
    assert load(tmp_path / "bundle").bundle.manifest["training"]["fallbacks"] == [note]
    assert note in (tmp_path / "bundle" / "README.md").read_text()
