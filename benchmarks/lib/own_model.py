"""A model of somebody's own data: trained, exported and ready to load, as the commands do it."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import NamedTuple

from .process import run_rillet

__all__ = ["OwnModel", "train_own_model"]

HELD_OUT = 20_000
"""Bytes at the end of the text that training measures itself on."""


class OwnModel(NamedTuple):
    """A bundle that was just made.

    Attributes:
        bundle: Its folder.
        seconds: What training and export took of the processors.
        peak_mb: The most memory that a process had.
    """

    bundle: Path
    seconds: float
    peak_mb: float


def train_own_model(text: bytes, folder: Path, options: list[str]) -> OwnModel:
    """Train on a text, and export the result.

    Args:
        text: The text, in UTF-8 unless the options choose bytes.
        folder: Where corpus, run and bundle go; must not exist.
        options: What ``rillet train`` is given beside the corpus.

    Raises:
        subprocess.CalledProcessError: A command failed, and said why.
    """
    folder.mkdir(parents=True)
    corpus, last, run, bundle = (
        folder / name for name in ("corpus.txt", "last.txt", "run", "bundle")
    )
    # The loss of a whole tenth of the text would take as long as the training.
    cut = text.find(b"\n", len(text) - min(HELD_OUT, len(text) // 10)) + 1
    corpus.write_bytes(text[:cut])
    last.write_bytes(text[cut:])
    before = _children()
    for command in (
        ["train", "--corpus", str(corpus), "--validation", str(last), "--out", str(run), *options],
        ["export", str(run), "--out", str(bundle), "--parity-steps", "500"],
    ):
        run_rillet(*command)
    after = _children()
    return OwnModel(
        bundle,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        after.ru_maxrss * 1024 / 1e6,
    )


def _children() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_CHILDREN)
