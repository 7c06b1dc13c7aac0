"""The cache of models and graphs for tests: made once, and made again when anything differs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from check_architecture import ROOT
from rillet.export.graphs import build
from rillet.export.graphs.decode_step import DecodeStep
from rillet.export.graphs.prefill_chunk import PrefillChunk
from rillet.train import DualCNN
from support import cache as module
from support.cache import Cache, cached_exporter, lasting_cache
from support.code_hash import code_hash, reached
from support.models import SMALL, VARIANTS
from support.programs import COMPILER, compile_program
from support.rillet_run import needs_compiler


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


def test_another_maker_makes_another_entry(tmp_path: Path) -> None:
    (tmp_path / "makers.py").write_text("def make(path): path.write_text('old')\n")
    cache = Cache(tmp_path / "cache")

    def content() -> bytes:
        source, names = tmp_path / "makers.py", {}
        exec(compile(source.read_text(), source, "exec"), names)  # noqa: S102 - written above
        return cache.file("entry", names["make"])

    assert content() == b"old"
    (tmp_path / "makers.py").write_text("def make(path): path.write_text('new')\n")
    assert content() == b"new"


def test_what_no_run_asks_for_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACE", tmp_path)
    monkeypatch.delenv("RILLET_TEST_CACHE", raising=False)
    made: list[str] = []

    def ask(name: str) -> None:
        def make(path: Path) -> None:
            made.append(name)
            path.write_bytes(b"")

        lasting_cache("kind", tmp_path / "off").file(name, make)

    def age() -> None:
        for path in (tmp_path / "kind").iterdir():
            then = path.stat().st_mtime - 0.6 * module._UNUSED
            os.utime(path, (then, then))

    ask("often")
    ask("once")
    age()
    ask("often")
    age()
    ask("often")
    ask("once")
    assert made == ["often", "once", "once"]


@needs_compiler
def test_a_program_is_compiled_where_its_source_or_command_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACE", tmp_path / "cache")
    monkeypatch.delenv("RILLET_TEST_CACHE", raising=False)
    source, program = tmp_path / "program.c", tmp_path / "program"

    def printed(code: str, *flags: str) -> str:
        source.write_text(f"#include <stdio.h>\nint main(void) {{ {code} }}\n")
        errors = compile_program([str(COMPILER), *flags, str(source)], program)
        return (
            errors
            or subprocess.run([program], stdout=subprocess.PIPE, check=True, text=True).stdout
        )

    assert printed("puts(WHAT);", '-DWHAT="a"') == "a\n"
    assert printed("puts(WHAT);", '-DWHAT="b"') == "b\n"
    assert "WHAT" in printed("puts(WHAT);")
    assert printed('puts("c");') == "c\n"
    kept = list((tmp_path / "cache" / "programs").glob("[!.]*"))
    assert len(kept) == 3
    for entry in kept:
        entry.write_bytes(b"#!/bin/sh\necho kept\n")
    assert printed("puts(WHAT);", '-DWHAT="a"') == "kept\n"


def test_a_graph_depends_on_no_other_code() -> None:
    graphs, all_code = (
        reached({"export.graphs.build"}),
        reached({"export.api", "runtime.serve.run"}),
    )
    assert {"train.model.causal", "export.graphs.prefill_slots", "train.config.fields"} <= graphs
    assert not [name for name in graphs if name.startswith(("runtime.serve", "train.loop"))]
    assert graphs < all_code
    names = ("rillet.export.graphs.build", "rillet.train.loop.trainer", "lib.sizes")
    assert len({code_hash(frozenset({name})) for name in names}) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "name"),
    [(build.decode_graph, "memory of contexts"), (build.prefill_graph, "keyed by the suffix")],
)
def test_all_code_that_exporting_runs_is_hashed(
    graph: Callable[[DualCNN], onnx.ModelProto],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, hashed = set[str](), set[frozenset[str]]()
    exporter = torch.onnx.export.__wrapped__  # type: ignore[attr-defined]

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call":
            ran.add(frame.f_code.co_filename)

    def real(module: torch.nn.Module, **options: Any) -> Any:
        sys.setprofile(note)
        try:
            return exporter(module, **options)
        finally:
            sys.setprofile(None)

    def noted(starts: frozenset[str]) -> str:
        hashed.add(starts)
        return ""

    monkeypatch.setattr(torch.onnx, "export", real)
    monkeypatch.setattr(torch.onnx, "export", cached_exporter(Cache(tmp_path)))
    monkeypatch.setattr(module, "code_hash", noted)
    tokens = torch.arange(300).pow(2) % 11
    config = SMALL.replace(vocab_size=11, **VARIANTS[name])
    graph(DualCNN(config).fit(tokens, [b" "] * 11).eval())
    (starts,) = hashed
    known = reached(start.removeprefix("rillet.") for start in starts)
    own = {Path(file).relative_to(ROOT) for file in ran if Path(file).is_relative_to(ROOT)}
    product = {path for path in own if path.parts[0] in ("runtime", "train", "export")}
    assert len(product) > 5
    assert {".".join(path.with_suffix("").parts) for path in product} <= known


@pytest.mark.parametrize("part", [torch.Generator(), torch.export.Dim("batch", min=1)])
def test_parts_of_torchs_own_are_known(
    part: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no ``__dict__``, or hold what has none."""
    calls: list[object] = []

    def real(module: torch.nn.Module, **options: Any) -> Any:
        calls.append(options)
        return SimpleNamespace(model_proto=onnx.ModelProto())

    monkeypatch.setattr(torch.onnx, "export", real)
    export = cached_exporter(Cache(tmp_path))
    for _ in range(2):
        export(torch.nn.Identity(), part=part)
    assert len(calls) == 1


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
