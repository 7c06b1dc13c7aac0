"""``benchmarks/ablation.py`` compares any settings, and refuses what is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ablation(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "ablation.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_variant_of_ones_own(text: str, tmp_path: Path) -> None:
    corpus, results = tmp_path / "corpus.txt", tmp_path / "results.json"
    corpus.write_text(text[:20_000], encoding="utf-8")
    options = (corpus, "--json", results, "--steps", 2, "--no-decode", "--threads", 1)
    run = ablation(*options, "--only", "width=16+batch=2+chunk=32")
    assert run.returncode == 0, run.stderr
    assert "### Others" in ablation("--json", results, "--markdown").stdout
    assert "--seed" in ablation(*options, "--seed", 1).stderr


def test_a_variant_that_is_none_is_refused(tmp_path: Path) -> None:
    run = ablation("corpus.txt", "--json", tmp_path / "results.json", "--only", "widht=16")
    assert run.returncode == 2
    assert "widht=16 is no variant" in run.stderr
    assert "Traceback" not in run.stderr
