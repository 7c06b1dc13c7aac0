"""Training on several processes: what ``torchrun`` starts, or this one alone."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from ...runtime.errors import ConfigError

__all__ = ["Group", "start_group"]


@dataclass(frozen=True)
class Group:
    """The processes that train together.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def rows(self, batch: int) -> range:
        """The streams of the batch that this process trains.

        Raises:
            ConfigError: They cannot be shared out evenly.
        """
        if batch % self.size:
            raise ConfigError(
                f"batch is {batch} and there are {self.size} processes; the streams must be "
                f"shared out evenly: try batch={batch // self.size * self.size or self.size}"
            )
        share = batch // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def gather(self, tensor: Tensor) -> Tensor:
        """All processes' rows of a tensor, in the order of the batch, on the CPU."""
        if self.size == 1:
            return tensor.cpu()
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts).cpu()

    def from_leader(self, values: list[float]) -> list[float]:
        """The leading process's numbers, in every process."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        found: list[float] = shared.tolist()
        return found

    def finish(self) -> None:
        """Leave the group, all processes together."""
        if self.size == 1:
            return
        # What still holds the group goes first: a wrapped model that outlives it, or a process
        # that leaves while another still speaks, brought a process down at its exit.
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def start_group(device: str = "auto") -> Group:
    """Join the processes that ``torchrun`` started; alone, a group of one.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.

    Raises:
        ConfigError: The device is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; it must be one of auto, cpu, cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError(
            "device is cuda, and this PyTorch finds no CUDA device; give --device cpu, or "
            "install a PyTorch that was built for this machine's driver"
        )
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    use_gpu = available and device != "cpu"
    place = torch.device("cuda", local if size > 1 else 0) if use_gpu else torch.device("cpu")
    if size == 1:
        return Group(device=place)
    if use_gpu:
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if use_gpu else "gloo")
    return Group(dist.get_rank(), dist.get_world_size(), place)
