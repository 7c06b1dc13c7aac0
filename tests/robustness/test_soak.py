"""A short run of ``benchmarks/soak.py``: a long stream beside another engine."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import soak
from rillet.runtime import load
from support.native import needs_native
from support.operations import NANO, ROOT

CHECKPOINT = ROOT / "models" / "checkpoints" / NANO.name


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
@pytest.mark.parametrize("tokens", [12_288, pytest.param(250_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("provider", "beside"),
    [("cpu", str(CHECKPOINT)), pytest.param("native", "cpu", marks=needs_native)],
)
def test_nothing_drifts(
    provider: str, beside: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory, error and text at the end are like those at the start; times are not judged."""
    monkeypatch.setattr(soak, "BURSTS", 1)
    model = load(NANO, provider, 1)
    written = model.session().tokens(max_new_tokens=2_000, temperature=0.8, seed=0)
    text = np.asarray([token.token for token in written])
    stream = soak.Soak(model, soak.other_reader(NANO, beside), text)
    lines = [stream.line(math.ceil(tokens / soak.TURN / 4)) for _ in range(4)]
    assert lines[-1]["position"] >= tokens
    first, last = lines[0], lines[-1]
    for line in lines:
        assert line["greedy_equal"] == 1
        assert line["logit_error"] < 1e-4
        assert line["state_error"] < 3e-5
        assert line["letters_differ"] < 0.15
    assert last["logit_error"] < max(2e-5, 2 * first["logit_error"])
    assert last["resident_mb"] < lines[1]["resident_mb"] + 16
    # The text returns again and again, so the memory learns it: the loss may fall.
    assert last["nats_of_written"] < first["nats_of_written"] + 0.2
