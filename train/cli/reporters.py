"""Report progress to the terminal, to a CSV file and to TensorBoard."""

from __future__ import annotations

import csv
import importlib
import io
from pathlib import Path
from typing import Any

from ...runtime.cli.progress import ProgressBar
from ...runtime.cli.terminal import tell
from ...runtime.errors import RilletError
from ...runtime.files import write_atomic
from ..loop.progress import TrainingProgress

__all__ = ["LOG_FILE", "CsvLog", "TensorBoardLog", "TerminalLog", "row"]

LOG_FILE = "log.csv"


def row(progress: TrainingProgress) -> dict[str, float | int | None]:
    """Convert a report to a row of the log, by column name."""
    seen, bits = progress.validation, progress.validation_bits_per_character
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
        "validation_bits_per_character": None if bits is None else round(bits, 5),
        "learning_rate": progress.learning_rate,
        "gradient_norm": round(progress.gradient_norm, 5),
        "buffer_utilisation": round(progress.buffer_utilisation, 4),
        "attention_entropy": round(progress.attention_entropy, 4),
        "tokens_per_second": round(progress.tokens_per_second, 1),
        "memory_bytes": progress.memory,
        "seconds_left": round(progress.seconds_left, 1),
    }


class CsvLog:
    """A CSV file with one line per report, rewritten as a whole at each checkpoint.

    An older run's file lasts until the new run has saved a model of its own.

    Args:
        folder: The run's folder.
        resume: Keep the lines of earlier steps.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        self.path = folder / LOG_FILE
        self.rows: list[dict[str, Any]] = []
        self._replaces = resume or not self.path.exists()
        if resume and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(file))

    def __call__(self, progress: TrainingProgress) -> None:
        """Add a report."""
        # A resumed run repeats the steps after its last checkpoint.
        while self.rows and int(self.rows[-1]["step"]) >= progress.step:
            self.rows.pop()
        self.rows.append(row(progress))
        if progress.saves:
            self._replaces = True
            self.write()

    def write(self) -> None:
        """Write the file, unless an older run's is to be kept."""
        if not (self.rows and self._replaces):
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self.path, text.getvalue().encode())


class TerminalLog:
    """A progress bar with both CNNs' losses, and a line for each validation.

    Args:
        steps: Total number of steps, as planned.
    """

    def __init__(self, steps: int) -> None:
        self._bar = ProgressBar("training", steps)

    def __call__(self, progress: TrainingProgress) -> None:
        """Show a report."""
        self._bar.show(
            progress.step,
            progress.steps,
            f"first CNN {progress.first_loss:.3f}, second {progress.second_loss:.3f}, "
            f"{progress.tokens_per_second / 1000:.1f}k tokens/s",
            progress.seconds_left,
        )
        validation = progress.validation
        if validation is not None:
            self._bar.clear()
            tell(
                f"step {progress.step}: validation {validation.loss:.4f} nats per token, "
                f"{validation.without_memory:.4f} without the memory"
                + (", the best so far" if progress.best else "")
            )

    def sample(self, step: int, text: str) -> None:
        """Print a text that the model writes at a step."""
        self._bar.clear()
        tell(f"step {step} writes:\n{text}\n")

    def close(self) -> None:
        """Erase the bar."""
        self._bar.close()

    def note(self, text: str) -> None:
        """Print a note without disturbing the bar."""
        self._bar.clear()
        tell(f"Note: {text}", err=True)


class TensorBoardLog:
    """Event files for TensorBoard.

    An older run's files last until the new run has saved a model of its own.

    Args:
        folder: Folder of the event files.
        resume: Keep the files of earlier steps.

    Raises:
        RilletError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        self._folder = folder
        self._writer: Any = None
        try:
            self._module = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise RilletError(
                "--tensorboard needs TensorBoard; install it with: pip install tensorboard"
            ) from error
        self._old = [] if resume else list(folder.glob("events.out.tfevents.*"))

    def __call__(self, progress: TrainingProgress) -> None:
        """Write a report."""
        if self._writer is None:  # what a resumed run repeats is hidden from here on
            self._writer = self._module.SummaryWriter(str(self._folder), purge_step=progress.step)
        for name, value in row(progress).items():
            if value is not None and name != "step":
                self._writer.add_scalar(f"training/{name}", value, progress.step)
        if progress.saves:
            while self._old:
                self._old.pop().unlink(missing_ok=True)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()
