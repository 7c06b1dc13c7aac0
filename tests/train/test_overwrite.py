"""A run is never replaced unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from rillet.runtime import UsageError
from rillet.train import DualCNNPipeline
from support.models import SMALL


def test_a_pipeline_replaces_a_run_only_if_asked(text: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text[:30_000])
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, steps=2, batch=2, chunk=32)
    pipeline.train(tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"already holds a checkpoint.*overwrite=True"):
        pipeline.train(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    pipeline.train(tmp_path / "run", overwrite=True)
