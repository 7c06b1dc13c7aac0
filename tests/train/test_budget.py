"""Runs that keep to a time, and bundles that keep to a size."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rillet.export import ExportOptions
from rillet.export.bundle.writer import write_bundle
from rillet.train import (
    PRESETS,
    DualCNN,
    DualCNNConfig,
    DualCNNTrainer,
    TrainingConfig,
    auto_config,
    infer,
    load_checkpoint,
)
from rillet.train.auto_config import Budget
from rillet.train.bundle_size import bundle_size
from rillet.train.cli import describe
from rillet.train.data.corpus import Corpus
from rillet.train.loop import time_limit, trainer
from rillet.train.loop.batch_step import BatchStep
from rillet.train.loop.time_limit import TimeLimit
from rillet.train.timing import Speed, measure_speed
from support.command_line import here
from support.models import SMALL

ROOT = Path(__file__).parents[2]
CONFIG = TrainingConfig(
    steps=100, batch=4, chunk=32, validate_every=10, precision="fp32", average=0.9, warmup=4
)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_limit, "time", clock)
    monkeypatch.setattr(trainer, "time", clock)
    return clock


@pytest.fixture(scope="module")
def tokens(text: str) -> torch.Tensor:
    return torch.tensor([ord(character) % 50 for character in text[:9_000]])


def model_for(tokens: torch.Tensor) -> DualCNN:
    return DualCNN(SMALL.replace(vocab_size=50)).fit(tokens)


def test_steps_follow_the_pace(clock: Clock) -> None:
    """Twice as slow, half the steps; and what follows is expected to be as slow, within bounds."""
    limit = TimeLimit(
        clock.now + 100, most=500, step=0.5, validation=1.0, held_out=5.0, longest=9.0, rest=4.0
    )
    assert limit.plan(0, 500, validate_every=10) == 150  # 90 s, at 0.6 s with the validations
    for _ in range(10):
        clock.now += 1
        limit.took(1.0)
    assert limit.plan(10, 150, validate_every=10) == 10 + 69  # 90 - 4 - 9 - 1 s, at 1.1 s
    assert limit.plan(10, 79, validate_every=10) == 79
    limit.validated(3.0)
    assert limit.plan(10, 79, validate_every=10) == 10 + 56
    clock.now += 1000
    assert limit.plan(11, 66, validate_every=10) == 11
    assert limit.corrections == [(0, 150), (10, 79), (10, 66), (11, 11)]


def steps_within(clock: Clock, seconds: float, paces: Iterator[float]) -> tuple[int, float]:
    """Steps that a run does whose steps take so long, and the seconds that it leaves."""
    limit = TimeLimit(clock.now + seconds, 10**6, 0.4, 2.0, 0.1 * seconds, 0.1 * seconds, 15.0)
    done, planned = 0, limit.plan(0, 10**6, 200)
    while done < planned:
        pace = next(paces)
        clock.now += pace
        limit.took(pace)
        done += 1
        planned = limit.plan(done, planned, 200)
        if done % 200 == 0 or done == planned:
            clock.now += 2
            limit.validated(2.0)
    return done, limit.measured_by - 0.1 * seconds - clock.now


@pytest.mark.parametrize("begins", [0, 5, 300, 700])
def test_a_slow_moment_does_not_end_a_run(clock: Clock, begins: int) -> None:
    """Another program that takes the machine for half a minute costs about that half minute."""
    slow = range(begins, begins + 15)
    done, _ = steps_within(clock, 480, (2.0 if step in slow else 0.4 for step in itertools.count()))
    undisturbed, _ = steps_within(clock, 480, itertools.repeat(0.4))
    assert done >= undisturbed - 15 * 5 - 15


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paces=st.lists(st.floats(0.05, 3.0), min_size=1, max_size=12), every=st.integers(1, 200))
@example(paces=[0.05, 0.05, 0.05, 0.05, 1.07], every=61)  # the plan is kept, and then there is time
def test_a_run_uses_its_time_and_no_more(clock: Clock, paces: list[float], every: int) -> None:
    """However its pace changes, it ends within two steps of the end."""
    changing = itertools.chain.from_iterable([pace] * every for pace in itertools.cycle(paces))
    _, left = steps_within(clock, 480, changing)
    slowest = max(paces)
    assert -slowest - 2 <= left <= 2 * slowest + 1


def test_there_is_always_a_step_and_never_too_many(clock: Clock) -> None:
    assert TimeLimit(clock.now - 5, 100, 1.0, 1.0, 1.0, 1.0).plan(0, 100, 10) == 1
    assert TimeLimit(clock.now + 9e9, 100, 1.0, 1.0, 1.0, 1.0).plan(0, 40, 10) == 100


def run(
    tokens: torch.Tensor, folder: Path, clock: Clock, seconds: float, resume: bool = False
) -> DualCNNTrainer:
    """Train under a limit; a step takes a second, and two after the fifth."""
    limit = TimeLimit(clock.now + seconds, 100, 1.0, 0.5, 3.0, 6.0)
    own = DualCNNTrainer(model_for(tokens[:8_000]), CONFIG, folder=folder)
    inner = BatchStep.backward

    def backward(batch: BatchStep, step: int) -> object:
        clock.now += 1 if step < 5 else 2
        return inner(batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchStep, "backward", backward)
        own.train(tokens[:8_000], tokens[8_000:], resume=resume, limit=limit)
    return own


def test_a_run_ends_in_time_and_records_its_steps(
    tokens: torch.Tensor, tmp_path: Path, clock: Clock
) -> None:
    started = clock.now
    own = run(tokens, tmp_path, clock, 40)
    assert clock.now - started <= 40 - 3  # what follows has its time
    assert 10 < own.config.steps == own.run.step < 30
    assert own.run.corrections[-1][1] == own.run.step
    assert own.run.best_step == own.run.step  # the last step was validated


def test_a_run_is_resumed_with_the_time_that_is_left(
    tokens: torch.Tensor, tmp_path: Path, clock: Clock
) -> None:
    first = run(tokens, tmp_path, clock, 20)
    before = list(first.run.corrections)
    second = run(tokens, tmp_path, clock, 50, resume=True)
    assert second.run.corrections[: len(before)] == before
    assert second.run.step > first.run.step


def test_the_size_of_a_bundle_is_known_before_it_is_exported() -> None:
    model = load_checkpoint(ROOT / "models" / "checkpoints" / "shakespeare-nano").model
    bundle = ROOT / "models" / "shakespeare-nano"
    size = sum(file.stat().st_size for file in bundle.iterdir())
    assert size <= bundle_size(model) <= 1.1 * size


@pytest.mark.slow
def test_a_checkpoint_without_a_bundle_exports_with_the_estimated_size(tmp_path: Path) -> None:
    """And passes the gate: its graphs are the checkpoint's."""
    checkpoint = load_checkpoint(ROOT / "models" / "checkpoints" / "shakespeare-micro")
    write_bundle(checkpoint, tmp_path / "micro", options=ExportOptions(parity_steps=500))
    size = sum(file.stat().st_size for file in (tmp_path / "micro").iterdir())
    assert size <= bundle_size(checkpoint.model) <= 1.1 * size


def test_a_small_model_has_the_estimated_size(small_run: Path, small_bundle: Path) -> None:
    size = sum(file.stat().st_size for file in small_bundle.iterdir())
    # Its run kept no sample of the text, which the estimate expects.
    assert size <= bundle_size(load_checkpoint(small_run).model) <= 1.7 * size


def train_within(notes: Path, out: Path, *more: object) -> dict[str, Any]:
    """Train with a budget of time, and return the run's record."""
    words = ("--corpus", notes, "--out", out, "--no-plot", "--threads", 1, "--set", "batch=2")
    result = here("train", *words, *more)
    assert result.returncode == 0, result.stderr
    record: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert f"Trained {record['config']['steps']} steps" in result.stdout
    return {**record, "output": result.stdout}


@pytest.fixture
def notes(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(text[:60_000], encoding="utf-8")
    return path


def test_a_budget_says_and_records_what_it_chose(tmp_path: Path, notes: Path) -> None:
    out = tmp_path / "run"
    record = train_within(notes, out, "--budget", "10min", "--steps", 3)
    assert "batch=2: batch as you set" in record["output"]
    assert "steps=3 of at most 3 as you set" in record["output"]
    assert (record["preset"], record["config"]["steps"]) == ("nano", 3)
    assert record["budget"] == {"seconds": 600, "corrections": []}
    again = train_within(notes, out, "--budget", "10min", "--steps", 3, "--resume")
    assert again["preset"] == "nano"
    named = ("--budget", "10min", "--steps", 3, "--preset", "nano", "--overwrite")
    assert "preset=nano: as you set" in train_within(notes, out, *named)["output"]


def test_a_larger_preset_without_time_leaves_the_smaller(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(config: DualCNNConfig, device: torch.device) -> Speed:
        nano = config.hidden == PRESETS["nano"].hidden
        return Speed(1e-3, 1e-6, 1e-6) if nano else Speed(1e6, 1e-6, 1e-6)

    monkeypatch.setattr(auto_config, "measure_speed", speed)
    path = tmp_path / "long.txt"
    path.write_text((text * (600_000 // len(text) + 1))[:600_000], encoding="utf-8")
    reasons = infer(path, "10min").reasons
    assert any(
        each.startswith("nano with") and "; micro would get none" in each for each in reasons
    )


def test_the_device_that_trains_is_measured(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget on a GPU counts the GPU's steps."""
    measured: list[str] = []

    def speed(config: DualCNNConfig, device: torch.device) -> Speed:
        measured.append(device.type)
        return Speed(1e-3, 1e-6, 1e-6)

    monkeypatch.setattr(auto_config, "measure_speed", speed)
    gpu, limits = torch.device("cuda"), Budget.parse("10min")
    choice = auto_config.choose(Corpus(notes), limits, {}, "nano", device=gpu)
    auto_config.limit_for(dataclasses.replace(choice, speed=None), 600, 0.0, gpu)
    assert measured == ["cuda", "cuda"]


@pytest.mark.gpu
def test_a_gpu_is_measured() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    assert measure_speed(SMALL, torch.device("cuda")).step > 0


def test_a_memory_of_contexts_gets_its_slots(notes: Path) -> None:
    config = infer(notes)
    assert config.memory == 65_536
    assert any(each.startswith("memory=65536: slots for what") for each in config.reasons)
    assert infer(notes, memory=6_000).memory == 6_000


def test_a_memory_of_another_key_gets_its_entries(notes: Path) -> None:
    assert infer(notes, memory_key="reservoir").memory in (1024, 2048)
    assert infer(notes, memory_key="reservoir", memory=600).memory == 600


@pytest.mark.slow
def test_a_run_with_a_budget_is_repeated_by_its_steps(tmp_path: Path, notes: Path) -> None:
    record = train_within(notes, tmp_path / "run", "--budget", "40s")
    steps = record["config"]["steps"]
    settings = ("held_out_tokens", "validation_tokens", "validate_every")
    words = [word for name in settings for word in ("--set", f"{name}={record['config'][name]}")]
    repeated = train_within(notes, tmp_path / "again", "--steps", steps, *words)
    assert repeated["config"] == {**record["config"], "tokenizer": "auto"}


def test_a_run_tells_its_cost_and_stays_the_same(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, untold = tmp_path / "told", tmp_path / "untold"
    arguments = ("train", "--corpus", notes, "--no-plot", "--steps", 3, "--set", "batch=2")
    monkeypatch.setattr(describe, "_WORTH_TELLING", 1)
    output = here(*arguments, "--out", told).stdout
    cost = re.search(r"This takes about (\d+) s here, and ([\d.]+) GB", output)
    assert cost is not None
    assert 0.1 < float(cost[2]) < 10
    monkeypatch.undo()
    assert "This takes" not in here(*arguments, "--out", untold).stdout
    weights = [load_checkpoint(run).model.state_dict() for run in (told, untold)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.slow
def test_the_memory_of_a_run_is_what_was_told(tmp_path: Path, notes: Path) -> None:
    """Within 15 %, in a process of its own."""
    code = (
        "import atexit, resource, sys; from rillet.runtime.cli.entry import main; "
        "usage = lambda: resource.getrusage(resource.RUSAGE_SELF); "
        "atexit.register(lambda: print(usage().ru_maxrss * 1024)); main(sys.argv[1:])"
    )
    command = ("train", "--corpus", str(notes), "--no-plot", "--steps", "100", "--out")
    run = subprocess.run(
        [sys.executable, "-c", code, *command, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.search(r"and ([\d.]+) GB of memory", run.stdout)
    assert told is not None
    assert float(told[1]) * 1e9 == pytest.approx(int(run.stdout.split()[-1]), rel=0.15)
