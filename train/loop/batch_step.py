"""Forward and backward passes over the streams of a batch, as many at a time as fit in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...runtime.errors import RilletError
from ..config.training_config import TrainingConfig
from ..data.streams import Streams
from ..model.dropout_noise import step_seed
from ..model.dual_cnn import DualCNN
from ..model.state import State
from .distributed import Group
from .losses import Losses, TrainingStep

__all__ = ["BatchStep", "TrainingError"]


class TrainingError(RilletError):
    """Training cannot continue."""


class BatchStep:
    """Compute the streams of a batch, and carry their state from chunk to chunk.

    If memory runs out, the batch is computed in halves: slower, but with the same gradients.

    Args:
        model: The model.
        config: Settings of training.
        group: The processes that train together.
        streams: Source of the text.
        state: Initial state of every stream of the batch; zeros by default.
        notify: Called with a sentence when the batch is halved.

    Attributes:
        state: State of this process's streams after the last committed step.
        at_once: Streams computed at a time.
    """

    def __init__(
        self,
        model: DualCNN,
        config: TrainingConfig,
        group: Group,
        streams: Streams,
        state: State | None,
        notify: Callable[[str], None],
    ) -> None:
        self.model, self.config, self.group, self.streams = model, config, group, streams
        self.rows = group.rows(config.batch)
        self.at_once = len(self.rows)
        self._notify = notify
        own = slice(self.rows.start, self.rows.stop)
        self.state: State = (
            model.zero_state(len(self.rows))
            if state is None
            else {name: tensor[own].to(group.device) for name, tensor in state.items()}
        )
        self._next: State = self.state
        self._module: nn.Module = TrainingStep(model, config)
        if group.size > 1:
            devices = [group.device] if group.device.type == "cuda" else None
            self._module = DistributedDataParallel(self._module, device_ids=devices)

    def chunk(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of this process's streams at a step, each ``[rows, T]``.

        Args:
            step: Number of the step.
        """
        inputs, targets = self.streams.chunk(step, self.rows)
        return inputs.to(self.group.device), targets.to(self.group.device)

    def sample(self, step: int) -> tuple[Tensor, State]:
        """The first stream's chunk at a step, ``[1, T]``, and its state before the chunk."""
        inputs, _ = self.streams.chunk(step, self.rows[:1])
        return inputs.to(self.group.device), {n: t[:1] for n, t in self.state.items()}

    def backward(self, step: int) -> Losses:
        """Accumulate the gradients of a step in the model; :meth:`commit` updates the state.

        Returns:
            The losses, averaged over all processes.

        Raises:
            TrainingError: Not even a single stream fits in memory.
        """
        while True:
            try:
                return self._backward(step)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                # Its traceback would hold the tensors of the step.
                failed = error.with_traceback(None)
            self.model.zero_grad()
            self._halve(failed)

    def commit(self) -> None:
        """Adopt the state after the last step."""
        self.state = self._next

    def _backward(self, step: int) -> Losses:
        config, rows = self.config, self.rows
        draws = torch.rand(
            2, config.batch, generator=torch.Generator().manual_seed(step_seed(config.seed, step))
        )
        draws = draws[:, rows.start : rows.stop].to(self.group.device)
        # Restart a few random streams, since a model must also begin well, and train a few
        # without the memory, so that the network does not come to rely on it.
        kept, trust = draws[0] >= config.reset, (draws[1] >= config.memory_dropout).float()
        state = {
            name: tensor * kept.view(-1, *[1] * (tensor.dim() - 1))
            for name, tensor in self.state.items()
        }
        inputs, targets = self.chunk(step)
        sums = torch.zeros(4, device=self.group.device)
        parts: list[State] = []
        for start in range(0, len(rows), self.at_once):
            some = slice(start, start + self.at_once)
            streams = rows[some]
            self.model.noise.begin(config.seed, step, streams, self.group.device)
            loss, losses, after = self._module(
                inputs[some], targets[some], {n: t[some] for n, t in state.items()}, trust[some]
            )
            share = len(streams) / len(rows)
            (loss * share).backward()
            sums += losses * share
            parts.append(after)
        self._next = (
            parts[0]
            if len(parts) == 1
            else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        )
        return Losses(*self.group.mean(sums).tolist())

    def _halve(self, error: Exception) -> None:
        # A single process must not halve: the others would wait for its gradients forever.
        if self.at_once == 1 or self.group.size > 1:
            lower = f"a batch below {self.config.batch}, " if self.config.batch > 1 else ""
            raise TrainingError(
                f"memory ran out with {_streams(self.at_once)} of {self.config.chunk} tokens at a "
                f"time; try {lower}a shorter chunk or a smaller model"
            ) from error
        before, self.at_once = self.at_once, -(-self.at_once // 2)
        if self.group.device.type == "cuda":
            torch.cuda.empty_cache()
        self._notify(
            f"memory ran out with {_streams(before)} at a time; continuing with {self.at_once} at "
            "a time, which is slower but gives the same result"
        )


def _streams(count: int) -> str:
    return f"{count} stream{'s' if count > 1 else ''}"


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    # The CPU allocator raises a plain RuntimeError.
    return "out of memory" in text or "not enough memory" in text
