"""Runs that stop, resume, run out of memory, stop improving, or diverge."""

from __future__ import annotations

import csv
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rillet.runtime import BundleError, StorageError
from rillet.train import DualCNN, DualCNNTrainer, TrainingConfig, TrainingError, TrainingProgress
from rillet.train.cli.reporters import CsvLog, TensorBoardLog
from rillet.train.loop.batch_step import BatchStep
from rillet.train.loop.distributed import Group
from rillet.train.loop.optimizer import WeightAverage
from rillet.train.loop.resume import STATE_FILE, STATE_FORMAT, RunState
from support.models import SMALL

CONFIG = TrainingConfig(
    steps=24,
    batch=4,
    chunk=32,
    validate_every=6,
    report_every=1,
    checkpoint_every=5,
    precision="fp32",
    average=0.9,
    warmup=4,
)


@pytest.fixture(scope="module")
def tokens(text: str) -> torch.Tensor:
    return torch.tensor([ord(character) % 50 for character in text[:9_000]])


def model_for(tokens: torch.Tensor, **changes: object) -> DualCNN:
    config = SMALL.replace(vocab_size=50, dropout=0.2, input_dropout=0.1, **changes)
    return DualCNN(config).fit(tokens, [b" "] * 50)


def weights(model: DualCNN) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(
    ("stop", "precision"), [(1, "fp32"), (7, "fp32"), (12, "fp32"), (20, "fp32"), (7, "bf16")]
)
def test_resume_is_exact(tokens: torch.Tensor, tmp_path: Path, stop: int, precision: str) -> None:
    """A run that stops and resumes in a new trainer equals an undisturbed run bit for bit."""
    config = CONFIG.replace(precision=precision)
    trained, validation = tokens[:8_000], tokens[8_000:]
    whole = model_for(trained)
    result = DualCNNTrainer(whole, config).train(trained, validation)
    first = model_for(trained)
    part = DualCNNTrainer(first, config, folder=tmp_path).train(trained, validation, until=stop)
    assert (part.steps, part.stopped) == (stop, "until")
    second = model_for(trained)
    seen: list[TrainingProgress] = []
    trainer = DualCNNTrainer(second, config, folder=tmp_path)
    resumed = trainer.train(trained, validation, seen.append, resume=True)
    assert [progress.step for progress in seen] == list(range(stop + 1, 25))
    assert (resumed.best_step, resumed.validation_loss) == (
        result.best_step,
        result.validation_loss,
    )
    assert_equal(weights(whole), weights(second))


def test_resume_rejects_another_run(tokens: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no run to resume \(training.safetensors\)"):
        DualCNNTrainer(model_for(tokens), CONFIG, folder=tmp_path).train(tokens, resume=True)
    DualCNNTrainer(model_for(tokens), CONFIG, folder=tmp_path).train(tokens, until=3)
    other = DualCNNTrainer(model_for(tokens), CONFIG.replace(batch=8), folder=tmp_path)
    with pytest.raises(BundleError, match=r"another run: batch was 4 and is now 8; resume with"):
        other.train(tokens, resume=True)
    for texts, named in (
        ((tokens[:-5], None), r"the training text differs \(SHA-256 \w{12} before, \w{12} now\)"),
        (
            (tokens, tokens[:500]),
            r"the validation text differs \(SHA-256 none before, \w{12} now\)",
        ),
    ):
        with pytest.raises(BundleError, match=named):
            DualCNNTrainer(model_for(tokens), CONFIG, folder=tmp_path).train(*texts, resume=True)
    path = tmp_path / "training.safetensors"
    data = path.read_bytes()
    for damaged in (data[:500], data[: len(data) // 2], b"", b"\0" * 100):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="damaged"):
            DualCNNTrainer(model_for(tokens), CONFIG, folder=tmp_path).train(tokens, resume=True)
    path.write_bytes(data)
    harmless = CONFIG.replace(report_every=3, checkpoint_every=7)
    DualCNNTrainer(model_for(tokens), harmless, folder=tmp_path).train(tokens, resume=True)


def test_a_run_of_a_version_whose_streams_kept_less_resumes(
    tokens: torch.Tensor, tmp_path: Path
) -> None:
    """What its state lacks begins at zeros."""
    trained, validation = tokens[:8_000], tokens[8_000:]
    contexts = {"memory_key": "contexts", "memory": 96}
    model = model_for(trained, **contexts)
    DualCNNTrainer(model, CONFIG, folder=tmp_path).train(trained, validation, until=7)
    header, tensors = STATE_FORMAT.read(tmp_path / STATE_FILE, "pt")
    earlier = {name: value for name, value in tensors.items() if name != "stream.adapted"}
    assert len(earlier) < len(tensors)
    (tmp_path / STATE_FILE).write_bytes(
        safetensors.torch.save(earlier, STATE_FORMAT.metadata(header))
    )
    model = model_for(trained, **contexts)
    result = DualCNNTrainer(model, CONFIG, folder=tmp_path).train(trained, validation, resume=True)
    assert result.steps == CONFIG.steps


def test_the_best_validation_is_kept(tokens: torch.Tensor) -> None:
    """A model that is ruined late does not ruin the result."""
    trained, validation = tokens[:8_000], tokens[8_000:]
    model = model_for(trained)
    losses: dict[int, float] = {}

    def ruin(progress: TrainingProgress) -> None:
        if progress.validation is not None:
            losses[progress.step] = progress.validation.loss
            if progress.step == 12:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(-1)

    result = DualCNNTrainer(model, CONFIG).train(trained, validation, ruin)
    assert result.best_step == 12
    assert result.validation_loss == min(losses.values()) == losses[12]
    assert losses[24] > losses[12]


def test_training_stops_when_the_loss_no_longer_improves(tokens: torch.Tensor) -> None:
    model = model_for(tokens)
    config = CONFIG.replace(steps=400, patience=3, learning_rate=1e-12, validate_every=2)
    result = DualCNNTrainer(model, config).train(tokens[:8_000], tokens[8_000:])
    assert result.stopped == "patience"
    assert result.steps < 100
    assert result.best_step == result.steps - 6


def test_halving_the_streams_changes_nothing_but_rounding(
    tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When memory runs out, the batch is split, the user is told, and the result is the same."""
    whole = model_for(tokens)
    DualCNNTrainer(whole, CONFIG).train(tokens)
    inner = DualCNN.compute

    def compute(self: DualCNN, inputs: torch.Tensor, *others: object, **more: object) -> object:
        if self.training and len(inputs) > 1:
            held = torch.ones(3)
            tensors.append(weakref.ref(held))
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return inner(self, inputs, *others, **more)  # type: ignore[arg-type]

    def note(text: str) -> None:
        notes.append(text)
        assert tensors[-1]() is None  # before the cache is emptied, or nothing is gained

    monkeypatch.setattr(DualCNN, "compute", compute)
    notes: list[str] = []
    tensors: list[weakref.ref[torch.Tensor]] = []
    parted = model_for(tokens)
    DualCNNTrainer(parted, CONFIG, notify=note).train(tokens)
    assert [note.split(";")[0] for note in notes] == [
        "memory ran out with 4 streams at a time",
        "memory ran out with 2 streams at a time",
    ]
    assert "continuing with 1 at a time" in notes[-1]
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parted.state_dict()[name], tensor, atol=2e-4, rtol=2e-3)


def test_one_stream_that_does_not_fit_is_an_error(
    tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DualCNN, "compute", compute)
    with pytest.raises(TrainingError, match=r"1 stream of 32 tokens.*try a batch below 4"):
        DualCNNTrainer(model_for(tokens), CONFIG).train(tokens)
    with pytest.raises(TrainingError, match=r"at a time; try a shorter chunk or a smaller model"):
        DualCNNTrainer(model_for(tokens), CONFIG.replace(batch=1)).train(tokens)


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    tokens: torch.Tensor, tmp_path: Path
) -> None:
    model = model_for(tokens)
    saved: list[int] = []

    def ruin(progress: TrainingProgress) -> None:
        if progress.step == 9:
            with torch.no_grad():
                model.wave_cnn.emit.weight[0, 0] = float("nan")

    trainer = DualCNNTrainer(
        model, CONFIG, folder=tmp_path, save=lambda model, run: saved.append(run.step)
    )
    with pytest.raises(TrainingError, match="the loss is nan at step 10; the checkpoint of step 6"):
        trainer.train(tokens[:8_000], tokens[8_000:], ruin)
    assert saved == [5, 6]
    for part in tmp_path.iterdir():
        assert part.name == "training.safetensors"
    other = DualCNNTrainer(model_for(tokens), CONFIG.replace(seed=1), folder=tmp_path / "new")
    with torch.no_grad():
        other.model.wave_cnn.emit.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="at step 1; there is no checkpoint of this run yet"):
        other.train(tokens[:8_000])
    again = DualCNNTrainer(model_for(tokens[:8_000]), CONFIG, folder=tmp_path)
    assert again.train(tokens[:8_000], tokens[8_000:], resume=True).steps == 24


def test_the_weight_average_follows_its_formula(tokens: torch.Tensor) -> None:
    model = model_for(tokens)
    average = WeightAverage(model, 0.9)
    own = dict(average.model.named_parameters())["readout_cnn.head.bias"]
    expected = model.readout_cnn.head.bias.detach().clone()
    for step in range(5):
        with torch.no_grad():
            model.readout_cnn.head.bias.add_(1)
        average.update(step)
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * model.readout_cnn.head.bias.detach()
    torch.testing.assert_close(own, expected)


def test_reports_are_logged(tokens: torch.Tensor, tmp_path: Path) -> None:
    log, board = CsvLog(tmp_path), TensorBoardLog(tmp_path / "board")

    def report(progress: TrainingProgress) -> None:
        log(progress)
        board(progress)

    DualCNNTrainer(model_for(tokens), CONFIG).train(tokens[:8_000], tokens[8_000:], report)
    board.close()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 25))
    assert all(float(row["validation"]) > 0 for row in rows if int(row["step"]) % 6 == 0)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert len(events.Scalars("training/first_loss")) == 24
    assert len(events.Scalars("training/validation")) == 4


def test_a_missing_folder_is_created_before_the_first_step(
    tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder, seen = tmp_path / "new" / "run", []
    trainer = DualCNNTrainer(model_for(tokens), CONFIG, folder=str(folder))
    trainer.train(tokens, on_progress=lambda report: seen.append(folder.is_dir()), until=2)
    assert seen == [True, True]
    assert (folder / STATE_FILE).is_file()


def test_a_killed_run_loses_no_report(tokens: torch.Tensor, tmp_path: Path) -> None:
    """The log is written before each state of the run, where it goes on."""
    inner = DualCNNTrainer._save_state

    def save_state(self: DualCNNTrainer, batch: BatchStep) -> None:
        inner(self, batch)
        if self.run.step == 15:
            raise SystemExit

    config = CONFIG.replace(report_every=2, checkpoint_every=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DualCNNTrainer, "_save_state", save_state)
        with pytest.raises(SystemExit):
            DualCNNTrainer(model_for(tokens), config, folder=tmp_path).train(
                tokens, on_progress=CsvLog(tmp_path)
            )
    log = CsvLog(tmp_path, resume=True)
    trainer = DualCNNTrainer(model_for(tokens), config, folder=tmp_path)
    trainer.train(tokens, on_progress=log, resume=True)
    log.write()
    with (tmp_path / "log.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [step for step in range(1, 25) if step % 2 == 0 or step % 5 == 0]


def test_an_older_runs_log_lasts_as_long_as_its_model(tokens: torch.Tensor, tmp_path: Path) -> None:
    config = CONFIG.replace(checkpoint_every=6)

    def train(save: Callable[[DualCNN, RunState], None] | None = None) -> list[bytes]:
        log, board = CsvLog(tmp_path), TensorBoardLog(tmp_path)
        reporters = (log, board)
        try:
            DualCNNTrainer(model_for(tokens), config, folder=tmp_path, save=save).train(
                tokens, on_progress=lambda report: [each(report) for each in reporters], until=8
            )
        finally:
            board.close()
            log.write()
        return files()

    def files() -> list[bytes]:
        names = [tmp_path / "log.csv", *sorted(tmp_path.glob("events.*"))]
        return [path.read_bytes() for path in names]

    def full(model: DualCNN, run: RunState) -> None:
        raise StorageError("the disk is full")

    old = train()
    with pytest.raises(StorageError):
        train(full)
    assert files()[: len(old)] == old
    new = train()
    assert not set(old) & set(new)
    assert len(new) == len(old)


@pytest.mark.parametrize("resume", [False, True])
def test_event_files_show_one_run(tokens: torch.Tensor, tmp_path: Path, resume: bool) -> None:
    """A run that replaces another removes its events; one that resumes hides what it repeats."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoardLog(tmp_path)
    DualCNNTrainer(model_for(tokens), CONFIG).train(tokens, on_progress=first, until=9)
    first.close()
    second = TensorBoardLog(tmp_path, resume)
    trainer = DualCNNTrainer(model_for(tokens), CONFIG)
    trainer.train(
        tokens,
        on_progress=lambda report: second(report) if not resume or report.step > 5 else None,
        until=7,
    )
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [*range(1, 8)]


def test_a_model_computes_on_its_own_device(tokens: torch.Tensor) -> None:
    """No tensor is created on the CPU by accident: checked on PyTorch's meta device."""
    for changes in ({}, {"memory_key": "suffix"}, {"reservoir": "standard"}):
        model = model_for(tokens, **changes).to("meta").train()
        model.autocast = None
        inputs = torch.zeros(2, 16, dtype=torch.int64, device="meta")
        output = model.compute(inputs, model.zero_state(2), need_weights=True)
        assert output.logits.device.type == "meta"
        assert {tensor.device.type for tensor in output.state.values()} == {"meta"}


@pytest.mark.gpu
def test_training_on_a_gpu_learns_in_bfloat16(tokens: torch.Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    model = model_for(tokens)
    seen: list[TrainingProgress] = []
    group = Group(device=torch.device("cuda", 0))
    config = CONFIG.replace(precision="bf16", steps=60)
    DualCNNTrainer(model, config, group).train(tokens, on_progress=seen.append)
    assert seen[-1].loss < seen[0].loss - 0.5


def test_ctrl_c_waits_for_the_step(tokens: torch.Tensor, tmp_path: Path) -> None:
    """A run that is interrupted within a step resumes bit for bit."""
    whole = model_for(tokens)
    DualCNNTrainer(whole, CONFIG).train(tokens)
    inner = BatchStep.backward

    def backward(self: BatchStep, step: int) -> object:
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return inner(self, step)

    part = model_for(tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchStep, "backward", backward)
        with pytest.raises(KeyboardInterrupt):
            DualCNNTrainer(part, CONFIG, folder=tmp_path).train(tokens)
    rest = model_for(tokens)
    trainer = DualCNNTrainer(rest, CONFIG, folder=tmp_path)
    trainer.train(tokens, resume=True)
    assert_equal(weights(whole), weights(rest))


def test_ctrl_c_after_the_checkpoint_waits_for_the_next(
    tokens: torch.Tensor, tmp_path: Path
) -> None:
    """Whoever asks to stop while progress is reported loses no step."""

    def report(progress: TrainingProgress) -> None:
        if progress.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    trainer = DualCNNTrainer(model_for(tokens), CONFIG.replace(report_every=1), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(tokens, on_progress=report)
    assert trainer.run.step == trainer.saved == 8


def test_a_callback_that_raises_loses_no_step(tokens: torch.Tensor, tmp_path: Path) -> None:
    def fail(progress: TrainingProgress) -> None:
        if progress.saves:
            raise ValueError("no more")

    trainer = DualCNNTrainer(model_for(tokens), CONFIG.replace(checkpoint_every=4), folder=tmp_path)
    with pytest.raises(ValueError, match="no more"):
        trainer.train(tokens, on_progress=fail)
    assert trainer.run.step == trainer.saved == 4
