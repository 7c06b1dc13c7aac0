"""The perplexity metric, loaded and computed by `evaluate`, without a network."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("evaluate", reason="evaluate is not installed")

ROOT = Path(__file__).parents[2]
TEXTS = ["ROMEO:\nWhat say you to this?", "My lord, the king is come again."]

CODE = f"""
import json
import evaluate
import rillet.integrations.perplexity as perplexity

metric = evaluate.load(perplexity.__file__)
both = metric.compute(predictions={TEXTS!r}, model_id={str(ROOT / "models" / "bible-nano")!r})
print(json.dumps(both))
try:
    metric.compute(predictions={TEXTS!r}, model_id="no-such-model")
except Exception as error:
    print(error)
"""


def test_evaluate_computes_what_the_model_scores(tmp_path: Path) -> None:
    import json

    from rillet.runtime import load

    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False, env=env
    )
    assert result.returncode == 0, result.stderr
    line, complaint = result.stdout.splitlines()
    computed = json.loads(line)
    scores = [load(ROOT / "models" / "bible-nano").score(text) for text in TEXTS]
    assert computed["perplexities"] == pytest.approx([score.perplexity for score in scores])
    mean = sum(score.perplexity for score in scores) / 2
    assert computed["mean_perplexity"] == pytest.approx(mean)
    bits = sum(score.nats for score in scores) / math.log(2) / sum(score.bytes for score in scores)
    assert computed["bits_per_byte"] == pytest.approx(bits)
    assert "no-such-model is not a folder" in complaint
