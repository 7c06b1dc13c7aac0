"""A finished run goes on: with more steps, on the same text or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rillet.export import export
from rillet.export.bundle.continued import commands_of_training
from rillet.runtime import BundleError, ConfigError, CorpusError, UsageError
from rillet.train import DualCNNPipeline, load_checkpoint, make_tokenizer
from rillet.train.checkpoint import CHECKPOINT_FILE, weights_sha256
from rillet.train.data.corpus import Corpus
from rillet.train.data.tokenizers import prepare
from support.cache import Cache
from support.command_line import here
from support.models import SMALL

QUICK: dict[str, Any] = {
    "batch": 4,
    "chunk": 32,
    "steps": 30,
    "validate_every": 10,
    "precision": "fp32",
    "seed": 3,
}


@pytest.fixture(scope="module")
def texts(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, start in (("old", 0), ("new", 12_000)):
        (folder / f"{name}.txt").write_text(text[start : start + 12_000], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(cache: Cache, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the old text."""

    def make(folder: Path) -> None:
        pipeline = DualCNNPipeline.fit_and_initialize(texts / "old.txt", SMALL, **QUICK)
        pipeline.training["preset"] = "nano"
        pipeline.train(folder)
        pipeline.evaluate()
        pipeline.save(folder)

    return cache.folder("run-to-continue", make, tmp_path_factory.mktemp("runs") / "old")


def test_more_steps_on_the_same_text(run: Path, texts: Path, tmp_path: Path) -> None:
    before = (run / CHECKPOINT_FILE).read_bytes()
    first = load_checkpoint(run)
    pipeline = DualCNNPipeline.continue_from(run, texts / "old.txt", steps=20)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, pipeline.model.state_dict()[name]), name
    rate = first.model.config.training.learning_rate / 10
    assert pipeline.config == first.model.config.replace(steps=20, learning_rate=rate)
    start = pipeline.evaluate()
    assert start is not None
    assert start.loss == pytest.approx(first.training["held_out"]["loss"], abs=1e-6)
    assert pipeline.train(tmp_path / "further").steps == 20
    further = pipeline.evaluate()
    assert further is not None
    assert further.loss < start.loss
    pipeline.save(tmp_path / "further")
    # The very text that the first run held out: neither trained on it.
    second = load_checkpoint(tmp_path / "further").training
    assert "held_out_seen" not in second
    assert second["held_out_sha256"] == first.training["held_out_sha256"]
    assert second["continued_from"]["weights_sha256"] == weights_sha256(first.model)
    assert second["continued_from"]["steps"] == first.training["steps"]
    assert (run / CHECKPOINT_FILE).read_bytes() == before


@pytest.mark.slow
def test_another_text_with_the_same_tokenizer(run: Path, texts: Path, tmp_path: Path) -> None:
    """And no claim on held-out text that the first run may have trained on."""
    notes: list[str] = []
    other = tmp_path / "other.txt"
    other.write_text("水" + (texts / "new.txt").read_text(encoding="utf-8"), encoding="utf-8")
    pipeline = DualCNNPipeline.continue_from(run, other, steps=20, notify=notes.append)
    assert pipeline.tokenizer.source == load_checkpoint(run).tokenizer.source
    assert len(notes) == 1
    assert "has characters that this model has never seen, and they were left out" in notes[0]
    before = pipeline.evaluate()
    pipeline.train(tmp_path / "second")
    after = pipeline.evaluate()
    assert before is not None
    assert after is not None
    assert after.loss < before.loss
    pipeline.save(tmp_path / "second")
    assert pipeline.training["held_out_seen"] is True
    # A third run on the second one's text holds out what the second did; the first still counts.
    third = DualCNNPipeline.continue_from(tmp_path / "second", other, steps=2)
    assert third.training["held_out_sha256"] == pipeline.training["held_out_sha256"]
    assert third.training["held_out_seen"] is True
    # A larger share of the old text holds out what the first run trained on.
    larger = DualCNNPipeline.continue_from(run, texts / "old.txt", held_out=0.3)
    assert larger.training["held_out_seen"] is True
    # The rate is lowered once, not with every run.
    rates = [each.config.training.learning_rate for each in (pipeline, third)]
    assert rates == [load_checkpoint(run).model.config.training.learning_rate / 10] * 2
    pipeline.training["given"] = {"corpus": ["other.txt"], "threads": 2}
    pipeline.save(tmp_path / "second")
    third = DualCNNPipeline.continue_from(tmp_path / "second", other, steps=2)
    third.training["given"] = {"corpus": ["other.txt"]}
    third.train(tmp_path / "third")
    third.evaluate()
    third.save(tmp_path / "third")
    card = export(tmp_path / "third", tmp_path / "bundle", parity_steps=100).path / "README.md"
    words = card.read_text(encoding="utf-8")
    assert "| trained on | other.txt, after other.txt, after old.txt |" in words
    assert "| steps | 2, after 20, after 30 |" in words
    assert "that the last run did not train on, though one before may have" in words
    assert "were not trained on" not in words
    assert (
        "--continue-from RUN --corpus other.txt --threads 2 --steps 20 --seed 3 "
        "--set learning_rate=0.001 --out RUN2\n" in words
    )
    assert (
        "--continue-from RUN2 --corpus other.txt --steps 2 --seed 3 --set learning_rate=0.001 "
        "--out RUN3\nrillet export RUN3 " in words
    )
    # A run made from Python leaves no command, and so none of the others'.
    training, model = third.training, third.config.to_dict()
    commands, run = commands_of_training(training, model)
    assert (len(commands), run) == (3, "RUN3")
    assert commands_of_training({**training, "given": None}, model) == ([], "RUN")
    # A run that was read from a bundle names the bundle, and how that was made.
    made = {"name": "B", "precision": "int8", "arguments": {"export": [], "quantize": ["--q"]}}
    earlier = {**training["continued_from"], "bundle": made}
    commands, run = commands_of_training({**training, "continued_from": earlier}, model)
    assert run == "RUN3"
    assert commands[2:4] == [
        "rillet export RUN2 --out FLOAT32",
        "rillet quantize FLOAT32 --q --out B",
    ]
    assert commands[4].startswith("rillet train --continue-from B --corpus other.txt ")


def test_a_checkpoint_of_before_says_nothing_of_its_held_out_text(
    run: Path, texts: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(run)
    del checkpoint.training["held_out_sha256"]
    pipeline = DualCNNPipeline.continue_from(checkpoint, texts / "old.txt", steps=1)
    assert pipeline.training["held_out_seen"] is True


def test_what_was_replaced_stays_on_the_record(run: Path, texts: Path) -> None:
    checkpoint = load_checkpoint(run)
    checkpoint.training["fallbacks"] = ["memory: too large; continuing with no memory"]
    pipeline = DualCNNPipeline.continue_from(checkpoint, texts / "old.txt", steps=1)
    assert pipeline.training["fallbacks"] == checkpoint.training["fallbacks"]


def test_what_the_weights_depend_on_cannot_change(run: Path, texts: Path, tmp_path: Path) -> None:
    new = texts / "new.txt"
    pipeline = DualCNNPipeline.continue_from(run, new, dropout=0.3, seed=8, chunk=64)
    assert (pipeline.config.dropout, pipeline.config.training.seed) == (0.3, 8)
    assert pipeline.config.seed == 3
    with pytest.raises(ConfigError, match="width is 12 and cannot become 24; hidden is 16 and"):
        DualCNNPipeline.continue_from(run, new, width=24, hidden=32)
    with pytest.raises(ConfigError, match="tokenizer is auto and cannot become byte; bpe_vocab is"):
        DualCNNPipeline.continue_from(run, new, tokenizer="byte", bpe_vocab=300)
    prepared = prepare(Corpus(new), make_tokenizer("", "byte"))
    with pytest.raises(UsageError, match="prepared with another tokenizer"):
        DualCNNPipeline.continue_from(run, prepared)
    foreign = tmp_path / "foreign.txt"
    foreign.write_text("水の上を歩く" * 500, encoding="utf-8")
    with pytest.raises(CorpusError, match="has none of the corpus's 6 characters"):
        DualCNNPipeline.continue_from(run, foreign)


def test_a_continued_run_resumes(run: Path, texts: Path, tmp_path: Path) -> None:
    """Exactly, and only if it continues the same model."""

    def fresh(earlier: Path) -> DualCNNPipeline:
        return DualCNNPipeline.continue_from(earlier, texts / "new.txt", steps=12)

    whole, part, rest = fresh(run), fresh(run), fresh(run)
    whole.train()
    part.train(tmp_path / "parts", until=7)
    with pytest.raises(BundleError, match=r"the run to continue differs \(SHA-256 \w{12} before, "):
        fresh(tmp_path / "parts").train(tmp_path / "parts", resume=True)
    rest.train(tmp_path / "parts", resume=True)
    assert weights_sha256(whole.model) == weights_sha256(rest.model)


def test_a_run_is_continued_from_the_command_line(run: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["train", "--continue-from", run, "--corpus", texts / "new.txt", "--no-plot"]
    shown = here(*command, "--steps", 5, "--out", out)
    assert shown.returncode == 0, shown.stderr
    assert "Continuing a model that was trained 30 steps on old.txt" in shown.stdout
    assert "The run that this one continues may have trained on this held-out text." in shown.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["steps"], summary["continued_from"]["corpus"]) == (5, "old.txt")
    assert summary["config"]["seed"] == QUICK["seed"]
    assert summary["config"]["batch"] == QUICK["batch"]
    same = here(*command[:3], "--corpus", texts / "old.txt", "--no-plot", "--out", tmp_path / "b")
    assert same.returncode == 0, same.stderr
    assert "may have trained" not in same.stdout
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["config"]["steps"] == 30
    for options, message in (
        (["--preset", "nano"], "--preset does not go with --continue-from"),
        (["--tokenizer", "byte"], "--tokenizer does not go with --continue-from"),
        (["--allow-fallback"], "--allow-fallback does not go with --continue-from"),
        (["--set", "memory=30"], "memory is 20 and cannot become 30"),
        (["--overwrite", "--out", run], "--out is the run to continue"),
    ):
        refused = here(*command, "--out", tmp_path / "never", *options)
        assert refused.returncode != 0
        assert message in refused.stderr
        assert not (tmp_path / "never" / CHECKPOINT_FILE).exists()
