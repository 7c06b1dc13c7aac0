"""The table of a family: what compressors are given, and what a bundle's row says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import family
from lib import compressors

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"


def test_a_text_that_was_given_before_costs_little() -> None:
    text = bytes(range(32, 127)) * 3
    for name, (pack, given) in compressors.compressors(text * 2, text).items():
        assert given == text * 2, name
        assert pack(given + text) - pack(given) < pack(text) / 2, name


@pytest.mark.skipif(shutil.which("zpaq") is None, reason="zpaq is not installed")
def test_zpaq_uses_the_same_model_for_both_sizes() -> None:
    change = compressors.ZPAQ_CHANGES[0]
    _, given = compressors.compressors(b"ab" * (change // 2), b"c" * 1000)["zpaq -m5"]
    assert len(given) + 1000 == change


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zpaq") is None, reason="zpaq is not installed")
def test_zpaq_changes_its_model_above_that_size_and_not_below(tinyshakespeare: str) -> None:
    data, change = tinyshakespeare.encode(), compressors.ZPAQ_CHANGES[0]
    sizes = [compressors.zpaq(data[: change + more]) for more in range(-8192, 16385, 8192)]
    below, across, above = np.diff(sizes).tolist()
    assert below > 1_500
    assert above > 1_500
    assert across < below / 2


def test_a_row_has_the_losses_of_one_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ROMEO:\nWhat light through yonder window breaks?\n" * 8)
    row = family.bundle_figures(str(NANO), text)
    assert row["zeros"] < row["alone"]
    assert "taught" not in row
    assert row["character_us"] == pytest.approx(row["step_us"] / row["characters_per_token"])
