"""The pipeline: from a text to a generator in one call, and parts that fail."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rillet.export import export
from rillet.runtime import BundleError, ConfigError, CorpusError, UsageError, load
from rillet.runtime.streams.stream import LEARN_MODES, LearnMode
from rillet.train import (
    AttentiveReservoir,
    Checkpoint,
    DualCNNConfig,
    DualCNNPipeline,
    LSMLite,
    ReadoutCNN,
    SetupError,
    SetupProgress,
    SparseReservoir,
    StreamMemory,
    TrainingProgress,
    WaveCNN,
    load_checkpoint,
    make_tokenizer,
)
from rillet.train.fallback import fallback_for
from rillet.train.model.dropout_noise import Noise
from rillet.train.own_parts import Parts
from rillet.train.setup import COMPONENTS
from rillet.train.texts import characters_in
from support.models import SMALL

QUICK: dict[str, Any] = {"batch": 4, "chunk": 32, "steps": 6, "validate_every": 3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "notes.txt"
    path.write_text(text[:12_000], encoding="utf-8")
    return path


def test_one_call_sets_up_a_complete_pipeline(corpus: Path, tmp_path: Path) -> None:
    seen: list[SetupProgress] = []
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, progress=seen.append, **QUICK)
    ready = [progress.component for progress in seen if progress.detail]
    assert ready == list(COMPONENTS)
    assert [progress.done for progress in seen if progress.detail] == list(range(1, 10))
    assert max(progress.fraction for progress in seen if progress.component == "tokenizer") == 1.0
    result = pipeline.train(tmp_path / "run")
    assert result.steps == 6
    held_out = pipeline.evaluate()
    assert held_out is not None
    assert held_out.tokens == 1199
    written = pipeline.generate("The ", max_new_tokens=30, seed=3)
    assert len(written) == 30
    assert written == pipeline.generate("The ", max_new_tokens=30, seed=3)
    pipeline.save(tmp_path / "saved")
    kept = DualCNNPipeline.load(tmp_path / "saved").evaluate()
    assert kept is not None
    assert (kept.loss, kept.tokens) == pytest.approx((held_out.loss, 1199))
    with pytest.raises(UsageError, match="keeps no held-out text"):
        DualCNNPipeline(pipeline.model, pipeline.tokenizer).evaluate()
    for folder in ("run", "saved"):
        loaded = DualCNNPipeline.load(tmp_path / folder)
        assert loaded.generate("The ", max_new_tokens=30, seed=3) == written
    assert DualCNNPipeline.load(tmp_path / "saved").training["held_out"]["tokens"] == 1199
    with pytest.raises(UsageError, match="was loaded and has no text"):
        loaded.train()
    buffer = pipeline.read("The quick brown fox jumps over the lazy dog")
    assert (len(buffer), buffer.position) == (SMALL.memory, 43)


def test_the_memory_can_be_seeded_and_its_learning_chosen(nano: Checkpoint, text: str) -> None:
    pipeline = DualCNNPipeline(nano.model, nano.tokenizer)
    options: dict[str, Any] = {"max_new_tokens": 80, "seed": 2, "temperature": 1.0}
    seeded = pipeline.generate("The ", seed_text=text[:300], **options)
    assert seeded == pipeline.generate(text[:300] + "The ", **options)
    assert seeded != pipeline.generate("The ", **options)
    written = {
        learn: pipeline.generate("The ", seed_text=text[:300], learn=learn, **options)
        for learn in LEARN_MODES
    }
    assert written["read"] == seeded
    assert len(set(written.values())) == 3
    with pytest.raises(UsageError, match="learn is 'some'; it must be one of read, all, none"):
        pipeline.generate("The ", learn="some")


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("The ", {}),
        ("", {"learn": "all"}),
        ("The ", {"stop": ["e", "\n"], "min_new_tokens": 9, "include_stop": True}),
        ("The ", {"stop_token_ids": [3]}),
        ("The ", {"bad_words": ["th", " a"], "repetition_penalty": 1.3, "penalty_window": 20}),
        ("The ", {"choices": ["cat", "dog and more"]}),
        ("The ", {"no_repeat_ngram_size": 2, "logit_bias": {"e": -2.0}, "top_p": 0.9}),
        ("The ", {"max_new_tokens": 0}),
    ],
)
def test_the_text_is_that_of_the_bundle(
    nano: Checkpoint, nano_bundle: Path, prompt: str, options: dict[str, Any]
) -> None:
    pipeline, model = DualCNNPipeline(nano.model, nano.tokenizer), load(nano_bundle, "cpu")
    options = {"max_new_tokens": 60, "seed": 4, **options}
    learn: LearnMode = options.pop("learn", "read")
    session = model.session(learn=learn)
    session.feed(prompt)
    written = session.generate(**options)
    assert pipeline.generate(prompt, learn=learn, **options) == written


def test_a_pipeline_stops_in_time(nano: Checkpoint) -> None:
    pipeline = DualCNNPipeline(nano.model, nano.tokenizer)
    assert len(pipeline.generate("The ", max_time=0.0001, max_new_tokens=10_000)) < 10


def test_characters_that_the_tokenizer_lacks_do_not_count(corpus: Path, tmp_path: Path) -> None:
    """Bits per character are those of the same text without them."""
    own = make_tokenizer("abcdefghijklmnopqrstuvwxyz ", "char")
    known = tmp_path / "known.txt"
    known.write_text("".join(c for c in corpus.read_text("utf-8") if not own.unknown(c)), "utf-8")
    figures = []
    for text in (corpus, known):
        seen: list[TrainingProgress] = []
        pipeline = DualCNNPipeline.fit_and_initialize(text, SMALL, tokenizer=own, **QUICK)
        pipeline.train(on_progress=seen.append)
        pipeline.evaluate()
        held_out = pipeline.training["held_out"]
        assert held_out["bits_per_character"] == pytest.approx(held_out["loss"] / math.log(2))
        figures.append([report.bits_per_character for report in seen])
        report = seen[-1]
        assert report.validation is not None
        bits = (report.second_loss, report.validation.loss)
        assert [loss / math.log(2) for loss in bits] == pytest.approx(
            [report.bits_per_character, report.validation_bits_per_character]
        )
    assert figures[0] == figures[1]


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_bits_are_per_character_whatever_a_token_is(tmp_path: Path, text: str, kind: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Größe für Ökonomen. " * 40 + text[:9_000], encoding="utf-8")
    options = {**QUICK, "tokenizer": kind, "bpe_vocab": 300}
    pipeline = DualCNNPipeline.fit_and_initialize(path, SMALL, **options)
    assert pipeline.corpus is not None
    read = path.read_text("utf-8")
    assert characters_in(pipeline.corpus.tokens, pipeline.tokenizer) == len(read)


def test_a_pipeline_resumes(corpus: Path, tmp_path: Path) -> None:
    def fresh() -> DualCNNPipeline:
        return DualCNNPipeline.fit_and_initialize(
            corpus, SMALL, folder=tmp_path / "tokens", precision="fp32", **QUICK
        )

    whole, part, rest = fresh(), fresh(), fresh()
    whole.train()
    part.train(tmp_path, until=4)
    rest.train(tmp_path, resume=True)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, rest.model.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:wave_overlap is deprecated")
def test_a_run_of_before_with_a_wave_overlap_resumes(corpus: Path, tmp_path: Path) -> None:
    """The setting changed no model."""
    before = dataclasses.replace(SMALL, wave_overlap=4)
    first = DualCNNPipeline.fit_and_initialize(corpus, before, **QUICK)
    first.train(tmp_path, until=4)
    again = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    assert again.train(tmp_path, resume=True).steps == QUICK["steps"]


def test_a_resumed_run_must_be_the_same(corpus: Path, tmp_path: Path, text: str) -> None:
    """Each text and setting that the result depends on is compared and named."""

    def train(held_out: Path, **changes: Any) -> None:
        options = {**QUICK, "seed": 1, **changes}
        pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, validation=held_out, **options)
        pipeline.train(tmp_path / "run", resume=(tmp_path / "run").exists())

    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text(text[12_000:16_000], encoding="utf-8")
    second.write_text(text[:4_000], encoding="utf-8")
    train(first)
    with pytest.raises(BundleError, match=r"another run: the held-out text differs \(SHA-256 "):
        train(second)
    with pytest.raises(BundleError) as caught:
        train(first, steps=9, tokenizer="byte", learning_rate=0.5, seed=2, average=0.0)
    for named in (
        "the tokenizer differs (SHA-256 ",
        "the training text differs (SHA-256 ",
        "steps was 6 and is now 9; ",
        "learning_rate was 0.01 and is now 0.5; ",
        "average was 0.998 and is now 0.0; ",
    ):
        assert named in str(caught.value)
    assert str(caught.value).count("seed was 1 and is now 2; ") == 1
    assert "the corpus" not in str(caught.value)
    train(first)


def test_each_part_can_be_replaced(corpus: Path) -> None:
    """Modules, functions and the tokenizer that the caller passes are used."""

    class Louder(AttentiveReservoir):
        def activation(self, z: torch.Tensor) -> torch.Tensor:
            return super().activation(z) * 1.1

    readout = ReadoutCNN(SMALL.replace(vocab_size=256))
    pipeline = DualCNNPipeline.fit_and_initialize(
        corpus,
        SMALL,
        tokenizer="byte",
        parts={"reservoir": Louder.from_config, "readout_cnn": readout},
        **QUICK,
    )
    assert isinstance(pipeline.model.reservoir, Louder)
    assert pipeline.model.readout_cnn is readout
    assert pipeline.tokenizer.vocab_size == 256
    pipeline.train()
    own = make_tokenizer("abcdefghijklmnopqrstuvwxyz ", "char")
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, tokenizer=own, **QUICK)
    assert pipeline.tokenizer.vocab_size == 27


class Tame(WaveCNN):
    """A part with the tensors of the standard one, which computes something else."""

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        waves, context = super().forward(x, context)
        return torch.tanh(waves), context


class Wider(Tame):
    """A part with one parameter more, which no loss reaches."""

    def __init__(self, config: DualCNNConfig, noise: Noise) -> None:
        super().__init__(config, noise)
        self.more = nn.Parameter(torch.ones(3))


class Louder(Tame):
    """Another part with the same tensors."""


@pytest.mark.parametrize("kind", [Tame, Wider])
def test_a_run_with_own_parts_never_loads_without_them(
    corpus: Path, tmp_path: Path, kind: type[Tame]
) -> None:
    parts: Parts = {"wave_cnn": lambda config: kind(config, Noise())}
    run = tmp_path / "run"

    def fresh(**options: Any) -> DualCNNPipeline:
        return DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK, **options)

    first = fresh(parts=parts)
    first.train(run, until=3)
    missing = rf"{kind.__name__}\); here they are: none; pass the same ones in Python"
    for refused in (
        lambda: DualCNNPipeline.load(run),
        lambda: DualCNNPipeline.continue_from(run, corpus),
        lambda: DualCNNPipeline.continue_from(load_checkpoint(run, parts), corpus),
        lambda: export(run, tmp_path / "bundle"),
    ):
        with pytest.raises(UsageError, match=missing):
            refused()
    with pytest.raises(UsageError, match=rf"{kind.__name__}\); here they are: .*Louder"):
        DualCNNPipeline.load(run, parts={"wave_cnn": lambda config: Louder(config, Noise())})
    with pytest.raises(BundleError, match=r"parts was wave_cnn \(.*\) and is now none"):
        fresh().train(run, resume=True)
    fresh(parts=parts).train(run, resume=True)
    loaded = DualCNNPipeline.load(run, parts=parts)
    written = loaded.generate("The ", max_new_tokens=20, seed=3)
    further = DualCNNPipeline.continue_from(run, corpus, parts=parts)
    assert isinstance(further.model.wave_cnn, kind)
    assert further.generate("The ", max_new_tokens=20, seed=3) == written
    with pytest.raises(UsageError, match="parts of your own, which cannot be exported: wave_cnn"):
        export(loaded.checkpoint(), tmp_path / "bundle")


def fail(config: DualCNNConfig) -> nn.Module:
    raise RuntimeError("no such luck")


@pytest.mark.parametrize(
    ("part", "advice", "changes"),
    [
        ("reservoir", "set reservoir=standard", {"reservoir": "standard"}),
        ("readout_cnn", "set architecture=single_cnn", {"architecture": "single_cnn"}),
        ("memory", "set memory=0", {"memory": 0}),
    ],
)
def test_a_part_that_fails_is_named_or_replaced(
    corpus: Path, tmp_path: Path, part: str, advice: str, changes: dict[str, object]
) -> None:
    with pytest.raises(SetupError) as caught:
        DualCNNPipeline.fit_and_initialize(corpus, SMALL, parts={part: fail}, **QUICK)
    message = str(caught.value)
    assert f"the {part} cannot be set up: RuntimeError: no such luck" in message
    assert advice in message
    notes: list[str] = []
    pipeline = DualCNNPipeline.fit_and_initialize(
        corpus, SMALL, parts={part: fail}, allow_fallback=True, notify=notes.append, **QUICK
    )
    assert len(notes) == len(pipeline.fallbacks) == 1
    assert notes[0].startswith(f"{part}: RuntimeError: no such luck; continuing with ")
    for name, value in changes.items():
        assert getattr(pipeline.config, name) == value
    pipeline.train(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.training["fallbacks"] == notes
    assert checkpoint.model.config == pipeline.config


def test_a_failing_fit_falls_back_too(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: StreamMemory, *_: object) -> None:
        raise ArithmeticError("did not converge")

    monkeypatch.setattr("rillet.train.model.memory_keys.ReservoirKey.fit", broken)
    with pytest.raises(SetupError, match=r"keys cannot .*: ArithmeticError.*memory=0, or allow"):
        DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, allow_fallback=True, **QUICK)
    assert pipeline.model.memory is None
    assert "did not converge; continuing with no memory" in str(pipeline.fallbacks[0])


@pytest.mark.parametrize("allowed", [False, True])
def test_a_wave_buffer_that_does_not_fit_stops_only_the_inspection(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    """The model neither needs the buffer nor changes without it."""
    monkeypatch.setattr("rillet.train.waves.wave_buffer._MAX_BYTES", 1_000)
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, allow_fallback=allowed, **QUICK)
    assert (pipeline.config.architecture, pipeline.fallbacks) == ("dual_cnn", [])
    assert pipeline.train().steps == QUICK["steps"]
    assert len(pipeline.generate("The ", max_new_tokens=5, seed=1)) == 5
    with pytest.raises(ConfigError, match=r"capacity is .*: lower the capacity"):
        pipeline.read("The quick brown fox")


@pytest.mark.parametrize(
    ("before", "after"), [("reservoir", "suffix"), ("suffix", "suffix"), ("contexts", "contexts")]
)
def test_a_memory_that_reads_no_state_stays(before: str, after: str) -> None:
    config = SMALL.replace(memory_key=before, memory=600, reservoir="standard")
    fallback = fallback_for("reservoir", config, "no such luck")
    assert fallback is not None
    assert config.replace(**fallback.changes).memory_key == after


def test_held_out_text_that_is_trained_on_is_refused_before_it_is_encoded(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is both trained on and held out"):
        DualCNNPipeline.fit_and_initialize(
            corpus, SMALL, folder=tmp_path / "tokens", validation=corpus, **QUICK
        )
    assert not (tmp_path / "tokens" / "validation").exists()


def test_the_first_cnn_has_no_fallback(corpus: Path) -> None:
    with pytest.raises(SetupError, match="the wave_cnn cannot be set up"):
        DualCNNPipeline.fit_and_initialize(
            corpus, SMALL, parts={"wave_cnn": fail}, allow_fallback=True, **QUICK
        )


def test_invalid_arguments_are_rejected(corpus: Path) -> None:
    with pytest.raises(UsageError, match="preset is 'huge'; it must be one of nano"):
        DualCNNPipeline.fit_and_initialize(corpus, preset="huge")
    with pytest.raises(UsageError, match="is both trained on and held out"):
        DualCNNPipeline.fit_and_initialize(corpus, SMALL, validation=corpus, **QUICK)
    with pytest.raises(ConfigError, match="stpes: no such setting"):
        DualCNNPipeline.fit_and_initialize(corpus, SMALL, stpes=3)
    with pytest.raises(UsageError, match="no such part"):
        DualCNNPipeline.fit_and_initialize(corpus, SMALL, parts={"resevoir": fail}, **QUICK)
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    with pytest.raises(ConfigError, match="width: no such setting of training"):
        pipeline.train(width=3)


def test_a_refused_run_leaves_the_pipeline_as_it_was(corpus: Path, tmp_path: Path) -> None:
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    pipeline.train(tmp_path, until=1)
    config, record = pipeline.config, dict(pipeline.training)
    for options, error in (
        ({}, UsageError),  # the folder holds a run
        ({"resume": True}, BundleError),  # of other settings
        ({"overwrite": True, "batch": 9_000}, CorpusError),  # too little text
    ):
        with pytest.raises(error):
            pipeline.train(tmp_path, **{"steps": 9, **options})
        assert (pipeline.config, pipeline.training) == (config, record)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("validated", [False, True])
def test_a_run_that_is_cut_off_leaves_averaged_weights(corpus: Path, validated: bool) -> None:
    """A callback may raise anything."""

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 5:
            raise StoppedError

    def fresh() -> DualCNNPipeline:
        return DualCNNPipeline.fit_and_initialize(
            corpus, SMALL, **{**QUICK, "report_every": 1, "validate_every": 3 if validated else 99}
        )

    cut, same = fresh(), fresh()
    with pytest.raises(StoppedError):
        cut.train(on_progress=stop)
    same.train(until=5)
    assert not cut.model.training
    for name, tensor in same.model.state_dict().items():
        assert torch.equal(tensor, cut.model.state_dict()[name]), name
    assert cut.training["steps"] == (3 if validated else 5)
    assert cut.training.get("validation_loss") == same.training.get("validation_loss")


def test_a_second_run_of_a_pipeline_continues_the_first(corpus: Path, tmp_path: Path) -> None:
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    pipeline.train(tmp_path / "first")
    pipeline.evaluate()
    first = dict(pipeline.training)
    pipeline.train(tmp_path / "second", until=3)
    assert "held_out" not in pipeline.training
    earlier = pipeline.training["continued_from"]
    assert earlier.items() >= first.items()
    pipeline.train(tmp_path / "second", resume=True)
    assert pipeline.training["continued_from"] == earlier
    assert "continued_from" not in earlier
    assert load_checkpoint(tmp_path / "second").training["continued_from"] == earlier


def test_what_has_split_the_texts_is_no_setting_of_training(corpus: Path) -> None:
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
    with pytest.raises(ConfigError, match="bpe_vocab, held_out, tokenizer, validation: too late"):
        pipeline.train(held_out=0.5, tokenizer="bpe", validation=0.3, bpe_vocab=300)
    with pytest.raises(ConfigError, match="no such setting of training") as caught:
        pipeline.train(width=3)
    assert "validate_every" in str(caught.value)
    assert "tokenizer" not in str(caught.value)
    assert pipeline.config.training.held_out == 0.1


def test_a_small_corpus_gets_fewer_streams(tmp_path: Path) -> None:
    path = tmp_path / "small.txt"
    path.write_text("A rillet is a very small stream. " * 80)
    notes: list[str] = []
    pipeline = DualCNNPipeline.fit_and_initialize(path, SMALL, notify=notes.append, chunk=256)
    assert pipeline.config.training.batch == 9
    assert notes == [
        "the corpus has only 9 streams of 256 tokens; training with batch 9 instead of 32"
    ]


def test_a_separate_validation_text(corpus: Path, tmp_path: Path, text: str) -> None:
    other = tmp_path / "other.txt"
    other.write_text(text[3_000:7_000] + "水")
    notes: list[str] = []
    pipeline = DualCNNPipeline.fit_and_initialize(
        corpus, SMALL, validation=other, notify=notes.append, **QUICK
    )
    assert pipeline.split is not None
    held_out = pipeline.tokenizer.decode(pipeline.split.held_out.tensor().tolist())
    assert held_out == text[3_000:7_000]
    assert len(notes) == 1
    assert "'水'" in notes[0]


@pytest.mark.parametrize("share", [0.25, np.float32(0.25), 0])
def test_validation_as_a_number_is_the_share(corpus: Path, share: float) -> None:
    """The setting and the separate text have one name."""
    pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, validation=share, **QUICK)
    assert pipeline.config.training.validation == share
    assert pipeline.split is not None
    assert (pipeline.split.validation is None) == (share == 0)
    for wrong in (True, 0.9):
        with pytest.raises(ConfigError, match=f"validation is {wrong}; it must be"):
            DualCNNPipeline.fit_and_initialize(corpus, SMALL, validation=wrong, **QUICK)


def test_lsm_lite(corpus: Path, tmp_path: Path) -> None:
    """Each task takes one line."""
    lite = LSMLite()
    for call in (lite.dual_cnn_generate, lite.generate, lite.quick_dual_cnn_train):
        with pytest.raises(UsageError):
            call()
    pipeline = lite.setup_dual_cnn_pipeline(corpus, config=SMALL, **QUICK)
    assert lite.quick_dual_cnn_train(steps=4).steps == 4
    assert lite.dual is pipeline
    assert len(lite.dual_cnn_generate("The ", max_new_tokens=12, seed=1)) == 12
    other = LSMLite()
    assert other.quick_dual_cnn_train(corpus, tmp_path, config=SMALL, **QUICK).steps == 6
    assert load_checkpoint(tmp_path).training["steps"] in (3, 6)
    for again in (lite, other):
        with pytest.raises(UsageError, match="pass resume=True to continue it or overwrite=True"):
            again.quick_dual_cnn_train(corpus, tmp_path, config=SMALL, **QUICK)
    options: dict[str, Any] = {"config": SMALL, **QUICK}
    assert other.quick_dual_cnn_train(corpus, tmp_path, resume=True, **options).steps == 6
    assert other.quick_dual_cnn_train(corpus, tmp_path, overwrite=True, **options).steps == 6
    single = tmp_path / "single"
    lite.train(corpus, single, **options)
    assert lite.train(corpus, single, resume=True, **options).steps == 6
    assert lite.train(corpus, single, overwrite=True, **options).steps == 6
    assert lite.train(corpus, config=SMALL, **QUICK).steps == 6
    assert lite.single is not None
    assert lite.single.config.architecture == "single_cnn"
    assert type(lite.single.model.reservoir) is SparseReservoir
    assert len(lite.generate("The ", max_new_tokens=12, seed=1)) == 12
