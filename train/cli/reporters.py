"""Where progress goes: a bar on the terminal, a CSV file, TensorBoard."""

from __future__ import annotations

import csv
import importlib
import io
from pathlib import Path
from typing import Any

import click

from ...runtime.errors import RilletError
from ...runtime.files import write_atomic
from ..loop.progress import TrainingProgress, progress_bar

__all__ = ["LOG_FILE", "CsvLog", "ProgressBar", "TensorBoardLog", "row"]

LOG_FILE = "log.csv"


def row(progress: TrainingProgress) -> dict[str, float | int | None]:
    """Everything that a report says, by the name of its column."""
    seen = progress.validation
    return {
        "step": progress.step,
        "epoch": round(progress.epoch, 4),
        "loss": round(progress.loss, 5),
        "first_loss": round(progress.first_loss, 5),
        "second_loss": round(progress.second_loss, 5),
        "without_memory": round(progress.without_memory, 5),
        "validation": None if seen is None else round(seen.loss, 5),
        "validation_without_memory": None if seen is None else round(seen.without_memory, 5),
        "validation_first": None if seen is None else round(seen.first, 5),
        "bits_per_character": round(progress.bits_per_character, 5),
        "learning_rate": progress.learning_rate,
        "gradient_norm": round(progress.gradient_norm, 5),
        "buffer_utilisation": round(progress.buffer_utilisation, 4),
        "attention_entropy": round(progress.attention_entropy, 4),
        "tokens_per_second": round(progress.tokens_per_second, 1),
        "memory_bytes": progress.memory,
        "seconds_left": round(progress.seconds_left, 1),
    }


class CsvLog:
    """A CSV file with a line for each report, rewritten as a whole at each look.

    Args:
        folder: The run's folder.
        resume: Keep the lines of the steps before.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        self.path = folder / LOG_FILE
        self.rows: list[dict[str, Any]] = []
        if resume and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(file))

    def __call__(self, progress: TrainingProgress) -> None:
        """Take in a report."""
        # A run that resumes repeats the steps after its last checkpoint.
        while self.rows and int(self.rows[-1]["step"]) >= progress.step:
            self.rows.pop()
        self.rows.append(row(progress))
        if progress.validation is not None:
            self.write()

    def write(self) -> None:
        """Write the file."""
        if not self.rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self.path, text.getvalue().encode())


class ProgressBar:
    """A live display of both CNNs' losses, and a line for each look at the validation text.

    Args:
        steps: Steps in all.
        done: Steps done before, when a run is resumed.
    """

    def __init__(self, steps: int, done: int = 0) -> None:
        self._bar = progress_bar(steps, "step", "training")
        self._bar.update(done)
        self._done = done

    def __call__(self, progress: TrainingProgress) -> None:
        """Show a report."""
        self._bar.set_postfix_str(
            f"first CNN {progress.first_loss:.3f}, second {progress.second_loss:.3f}, "
            f"{progress.tokens_per_second / 1000:.1f}k tokens/s",
            refresh=False,
        )
        self._bar.update(progress.step - self._done)
        self._done = progress.step
        seen = progress.validation
        if seen is not None:
            # Not the bar's own write, which leaves lines in a pipe's buffer.
            self._bar.clear()
            click.echo(
                f"step {progress.step}: validation {seen.loss:.4f} nats per token, "
                f"{seen.without_memory:.4f} without the memory"
                + (", the best so far" if progress.best else "")
            )

    def close(self) -> None:
        """Leave the line."""
        self._bar.close()

    def note(self, text: str) -> None:
        """Say something without disturbing the bar."""
        self._bar.clear()
        click.echo(f"Note: {text}", err=True)


class TensorBoardLog:
    """Event files for TensorBoard.

    Args:
        folder: Where they go.

    Raises:
        RilletError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            module = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise RilletError(
                "logging to TensorBoard needs it; install it with: pip install tensorboard"
            ) from error
        self._writer = module.SummaryWriter(str(folder))

    def __call__(self, progress: TrainingProgress) -> None:
        """Write a report."""
        for name, value in row(progress).items():
            if value is not None and name != "step":
                self._writer.add_scalar(f"training/{name}", value, progress.step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
