"""The fixed sparse sine reservoir."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan

from .config import DualCNNConfig

__all__ = ["SparseReservoir"]


class SparseReservoir(nn.Module):
    """A fixed, sparse, leaky reservoir with a decaying sine as its activation.

    An echo state network (Jaeger, 2001) whose units remember over different
    times. Nothing in it is trained::

        z = W r + W_in u
        f(z) = A exp(-alpha |z|) sin(omega z)
        r' = (1 - a) r + a f(z)

    ``W`` is sparse with a spectral radius below 1, so a difference between two
    states dies out. The leak rates ``a`` are log-uniform over a range.

    Args:
        config: The model's configuration.
    """

    recurrent: Tensor
    input_weights: Tensor
    leak: Tensor

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        self.amplitude = config.sine_amplitude
        self.decay = config.sine_decay
        self.frequency = config.sine_frequency
        generator = torch.Generator().manual_seed(config.seed)
        size = config.reservoir_size
        self.register_buffer("recurrent", _recurrent_weights(config, generator))
        inputs = torch.randn(size, config.code_width, generator=generator)
        # A code has unit length, so each unit's drive has the spread `input_scale`.
        self.register_buffer("input_weights", inputs * config.input_scale)
        low, high = torch.tensor([config.leak_min, config.leak_max]).log()
        share = torch.rand(size, generator=generator)
        self.register_buffer("leak", (low + (high - low) * share).exp())

    def activation(self, z: Tensor) -> Tensor:
        """``A exp(-alpha |z|) sin(omega z)``, element by element."""
        # Factors of 1 are left out: a step is short, and dispatch is most of its cost.
        wave = torch.sin(z if self.frequency == 1 else self.frequency * z)
        wave = wave * torch.exp(-self.decay * z.abs())
        return wave if self.amplitude == 1 else self.amplitude * wave

    def drive(self, codes: Tensor) -> Tensor:
        """The input's share of ``z`` for each token of the vocabulary.

        Args:
            codes: Token codes, ``[V, w]``.

        Returns:
            ``W_in c`` for each token, ``[V, N]``.
        """
        return codes @ self.input_weights.T

    def step(self, state: Tensor, drive: Tensor) -> Tensor:
        """One step: ``[B, N]`` and its drive ``[B, N]`` to the next ``[B, N]``."""
        z = torch.addmm(drive, state, self.recurrent.T)
        return torch.lerp(state, self.activation(z), self.leak)

    @torch.no_grad()
    def run(self, state: Tensor, drive: Tensor) -> Tensor:
        """Drive the reservoir through a chunk.

        No gradient is kept: nothing that is trained stands before the reservoir.

        Args:
            state: State before the chunk, ``[B, N]``.
            drive: Input drive, ``[B, T, N]``.

        Returns:
            The state after each token, ``[B, T, N]``.
        """
        if torch.compiler.is_exporting():
            # A loop over T would be unrolled to the example's length.
            _, states = scan(self._scan_step, state, drive.transpose(0, 1))
            assert isinstance(states, Tensor)
            return states.transpose(0, 1)
        states = []
        for step in drive.unbind(1):
            state = self.step(state, step)
            states.append(state)
        return torch.stack(states, dim=1)

    def _scan_step(self, state: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        state = self.step(state, drive)
        # The body of a scan must not return one tensor twice.
        return state, state.clone()


def _recurrent_weights(config: DualCNNConfig, generator: torch.Generator) -> Tensor:
    """A sparse Gaussian matrix scaled to the spectral radius, ``[N, N]``."""
    size = config.reservoir_size
    weights = torch.randn(size, size, generator=generator, dtype=torch.float64)
    kept = torch.rand(size, size, generator=generator) < config.reservoir_density
    weights = weights * kept
    radius = torch.linalg.eigvals(weights).abs().max()
    if radius > 1e-9:
        weights = weights * (config.spectral_radius / radius)
    return weights.float()
