"""The cache of models and graphs for tests: made once, and made again when anything differs."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from rillet.export.graphs.decode_step import DecodeStep
from rillet.export.graphs.prefill_chunk import PrefillChunk
from rillet.train import DualCNN
from support.cache import Cache, cached_exporter
from support.models import SMALL, VARIANTS


def test_one_of_many_makes_an_entry(tmp_path: Path) -> None:
    """Locks belong to open files, so threads stand in for the workers of a run."""
    makers: list[int] = []

    def work(number: int) -> None:
        def make(folder: Path) -> None:
            makers.append(number)
            (folder / "part").write_text("x" * 100_000)

        Cache(tmp_path / "cache").folder("entry", make, tmp_path / f"copy {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1
    for number in range(6):
        assert (tmp_path / f"copy {number}" / "part").stat().st_size == 100_000


def test_a_changed_copy_leaves_the_entry_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for number in range(2):
        target = tmp_path / f"copy {number}"
        copy = cache.folder("entry", lambda folder: (folder / "part").write_text("x"), target)
        assert (copy / "part").read_text() == "x"
        (copy / "part").write_text("changed")


def test_what_fails_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ZeroDivisionError):
        cache.file("entry", lambda path: path.write_bytes(bytes(1 // 0)))
    assert cache.file("entry", lambda path: path.write_bytes(b"x")) == b"x"


def test_every_difference_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.nn.Module] = []

    def real(module: torch.nn.Module, **_: Any) -> Any:
        calls.append(module)
        return SimpleNamespace(model_proto=onnx.ModelProto(producer_name=f"call {len(calls)}"))

    monkeypatch.setattr(torch.onnx, "export", real)
    export = cached_exporter(Cache(tmp_path / "cache"))

    def answer(module: torch.nn.Module, **options: Any) -> str:
        return str(export(module, **options).model_proto.producer_name)

    def model(**changes: object) -> DualCNN:
        torch.manual_seed(0)
        tokens = torch.arange(300).pow(2) % 11
        return DualCNN(SMALL.replace(vocab_size=11, **changes)).fit(tokens, [b" "] * 11).eval()

    assert answer(DecodeStep(model())) == answer(DecodeStep(model())) == "call 1"
    answers = [
        "call 1",
        answer(DecodeStep(model()), opset_version=21),
        answer(PrefillChunk(model())),
    ]
    answers.append(answer(PrefillChunk(model(), last_logits=True)))
    answers += [answer(DecodeStep(model(**changes))) for changes in VARIANTS.values()]
    for parameter in ("wave_cnn.emit.weight", "reservoir.leak", "embedder.codes"):
        other = model()
        other.state_dict()[parameter].view(-1)[0] += 0.5
        answers.append(answer(DecodeStep(other)))
    assert answers == [f"call {number}" for number in range(1, len(answers) + 1)]
