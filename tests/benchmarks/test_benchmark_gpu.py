"""The benchmarks for a GPU: their figures on a CPU, and their message without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rillet.runtime.engines.cuda import driver as cuda_driver

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments: object, script: str = "gpu.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_results_on_a_cpu(small_bundle: Path, small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    quick = ("--device", "cpu", "--batch", "1,3", "--steps", 3, "--bursts", 1, "--json", out)
    result = run(small_bundle, small_run, *quick)
    assert result.returncode == 0, result.stderr
    assert "| device engine | 3 |" in result.stdout
    figures = json.loads(out.read_text())["figures"]
    measured = {(row["engine"], row["batch"]): row for row in figures["rows"]}
    assert len(measured) == 6
    for (_, batch), row in measured.items():
        assert row["p99_us"] >= row["p50_us"] > 0
        assert row["tokens_per_s"] == pytest.approx(batch * 1e6 / row["p50_us"])
    assert figures["limits"]["bytes"]["3"] > figures["limits"]["bytes"]["1"]
    assert not list(small_bundle.parent.glob("*.engines"))


def test_speed_of_training_on_a_cpu(text: str, tmp_path: Path) -> None:
    """A batch that cannot train is reported, and does not stop the others."""
    corpus, out = tmp_path / "text.txt", tmp_path / "speed.json"
    corpus.write_text(text[:20_000], encoding="utf-8")
    quick = ("--presets", "nano", "--batch", "500,1", "--precision", "fp32", "--seconds", 0)
    options = ("--speed", "--device", "cpu", *quick, "--json", out)
    result = run(corpus, *options, script="training.py")
    assert result.returncode == 0, result.stderr
    assert "nano, batch 500: not measured: " in result.stdout
    refused, row = json.loads(out.read_text())["figures"]
    assert "tokens_per_second" not in refused
    assert row["steps"] == 1
    assert row["tokens_per_second"] == pytest.approx(row["chunk"] / row["seconds"])
    assert row["precision"] == "float32"


@pytest.mark.skipif(cuda_driver.driver_obstacle() is None, reason="this machine has a GPU")
def test_without_a_gpu_it_stops_with_a_sentence(small_bundle: Path, small_run: Path) -> None:
    result = run(small_bundle, small_run)
    assert result.returncode == 1
    assert "these figures need an NVIDIA GPU" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.gpu
@pytest.mark.slow
def test_every_engine_on_a_gpu(small_bundle: Path, small_run: Path) -> None:
    obstacle = cuda_driver.driver_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    result = run(small_bundle, small_run, "--batch", "1,8", "--steps", 20, "--bursts", 1)
    assert result.returncode == 0, result.stderr
    assert "| PyTorch eager | 8 |" in result.stdout
