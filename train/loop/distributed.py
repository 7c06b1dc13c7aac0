"""Training on several processes, started by ``torchrun``, or on a single one."""

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
        rank: Rank of this process.
        size: Number of processes.
        device: Device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports to the user."""
        return self.rank == 0

    def rows(self, batch: int) -> range:
        """The streams of the batch that this process trains.

        Raises:
            ConfigError: The processes do not divide the batch evenly.
        """
        if batch % self.size:
            raise ConfigError(
                f"batch is {batch} but there are {self.size} processes, which must divide it "
                f"evenly: try batch={batch // self.size * self.size or self.size}"
            )
        share = batch // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def mean(self, values: Tensor) -> Tensor:
        """Average a tensor over all processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        if self.size == 1:
            return flag
        count = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(count)
        return bool(count.item())

    def gather(self, tensor: Tensor) -> Tensor:
        """Collect the rows of all processes, in the order of the batch, on the CPU."""
        if self.size == 1:
            return tensor.cpu()
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts).cpu()

    def from_leader(self, values: list[float]) -> list[float]:
        """Return the leading process's numbers in every process."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        received: list[float] = shared.tolist()
        return received

    def finish(self) -> None:
        """Leave the group together with all other processes."""
        if self.size == 1:
            return
        # Collect wrapped models first, and wait for everyone: a model that outlives its group,
        # or a process that leaves while another still communicates, crashes at exit.
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def start_group(device: str = "auto") -> Group:
    """Join the processes that ``torchrun`` started, or form a group of one.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``, which chooses a GPU if there is one.

    Raises:
        ConfigError: The device is unknown or unavailable.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; it must be one of auto, cpu, cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError(
            "device is cuda, but this PyTorch finds no CUDA device; use --device cpu, or "
            "install a PyTorch built for this machine's driver"
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
