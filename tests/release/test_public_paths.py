"""Every public function takes a path as text or a pathlib.Path, and refuses what can be none."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rillet.export
import rillet.runtime
import rillet.train
from rillet.export import draw_inside, export, quantize
from rillet.runtime import Bundle, Tokenizer, UsageError, load
from rillet.train import (
    Checkpoint,
    Corpus,
    DualCNNPipeline,
    DualCNNTrainer,
    RollingWaveBuffer,
    load_checkpoint,
    prepare,
    save_checkpoint,
)
from support.operations import NANO

CHECKPOINT = NANO.parent / "checkpoints" / NANO.name


def callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions and methods, by name."""
    for module in (rillet.runtime, rillet.train, rillet.export):
        for name in module.__all__:
            part = getattr(module, name)
            if not inspect.isclass(part):
                if callable(part):
                    yield f"{module.__name__}.{name}", part
                continue
            for method, function in inspect.getmembers(part, callable):
                made = method == "__init__" and not dataclasses.is_dataclass(part)
                if made or not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", function


def test_every_path_may_be_text() -> None:
    checked, narrow = 0, []
    for name, function in callables():
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # it has no signature
            continue
        for parameter in parameters:
            if re.search(r"\bPath\b", str(parameter.annotation)):
                checked += 1
                if not re.search(r"\bstr\b", str(parameter.annotation)):
                    narrow.append(f"{name}: {parameter}")
    assert checked > 20
    assert not narrow


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return load_checkpoint(str(CHECKPOINT))


TAKES: dict[str, Callable[[Any, Checkpoint], object]] = {
    "load": lambda path, nano: load(path),
    "Bundle.open": lambda path, nano: Bundle.open(path),
    "Tokenizer.load": lambda path, nano: Tokenizer.load(path),
    "load_checkpoint": lambda path, nano: load_checkpoint(path),
    "save_checkpoint": lambda path, nano: save_checkpoint(path, nano),
    "RollingWaveBuffer.save": lambda path, nano: RollingWaveBuffer(8, 4).save(path),
    "RollingWaveBuffer.load": lambda path, nano: RollingWaveBuffer.load(path),
    "Corpus": lambda path, nano: Corpus(__file__, spool=path),
    "prepare": lambda path, nano: prepare(Corpus(__file__), folder=path),
    "DualCNNTrainer": lambda path, nano: DualCNNTrainer(nano.model, folder=path),
    "DualCNNPipeline.load": lambda path, nano: DualCNNPipeline.load(path),
    "DualCNNPipeline.save": lambda path, nano: pipeline().save(path),
    "export, a checkpoint": lambda path, nano: export(path, "bundle"),
    "export, a bundle": lambda path, nano: export(nano, path),
    "quantize, a bundle": lambda path, nano: quantize(path, "int8", "int8"),
    "quantize, to a bundle": lambda path, nano: quantize(NANO, path, "int8"),
    "draw_inside": lambda path, nano: draw_inside(NANO, path),
}


IN_MEMORY = ("Corpus", "prepare", "DualCNNTrainer")
"""What takes ``None``, to write nothing."""


def pipeline() -> DualCNNPipeline:
    return DualCNNPipeline.load(str(CHECKPOINT))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (name, path)
        for name in TAKES
        for path in (5, b"a", None, "a\0b")
        if path is not None or name not in IN_MEMORY
    ],
)
def test_what_can_be_no_path_is_refused(
    nano: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: object
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="path"):
        TAKES[name](path, nano)
    assert not list(tmp_path.iterdir())


def test_text_names_the_same_file(nano: Checkpoint, tmp_path: Path) -> None:
    saved = save_checkpoint(str(tmp_path), nano)
    assert load_checkpoint(str(saved)).model.config == nano.model.config
    buffer, file = RollingWaveBuffer(8, 4), str(tmp_path / "waves")
    buffer.save(file)
    assert len(RollingWaveBuffer.load(file)) == len(buffer)
    source = str(NANO / "tokenizer.json")
    assert Tokenizer.load(source).source == nano.tokenizer.source
    prepare(Corpus(__file__, spool=str(tmp_path)), folder=str(tmp_path / "tokens"))
    assert (tmp_path / "tokens" / "corpus.tokens").is_file()
