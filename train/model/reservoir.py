"""The fixed sparse sine reservoir."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan

from ..config.model_config import DualCNNConfig

__all__ = ["SparseReservoir", "block_weights", "sparse_weights"]

_R = TypeVar("_R", bound="SparseReservoir")


class SparseReservoir(nn.Module):
    """A fixed, sparse, leaky reservoir with a decaying sine as its activation.

    This is an echo state network (Jaeger, 2001) whose units remember over different time
    scales. Nothing in it is trained::

        z = W r + W_in u
        f(z) = A exp(-alpha |z|) sin(omega z)
        r' = (1 - a) r + a f(z)

    ``W`` is sparse with a spectral radius below 1, so that a difference between two states
    decays. The leak rates ``a`` are log-uniform over a range.

    Args:
        size: Units N.
        inputs: Width w of the token codes.
        structure: ``sparse`` (:func:`sparse_weights`) or ``blocks`` (:func:`block_weights`).
        density: Share of nonzero recurrent weights, for ``sparse``.
        blocks: Number of blocks, for ``blocks``.
        spectral_radius: Largest absolute eigenvalue of W.
        input_scale: Standard deviation of a unit's input drive.
        leak: Slowest and fastest leak rate.
        amplitude: A in the formula.
        decay: alpha in the formula.
        frequency: omega in the formula.
        seed: Seed of all weights.
    """

    recurrent: Tensor
    input_weights: Tensor
    leak: Tensor

    def __init__(
        self,
        size: int,
        inputs: int,
        *,
        structure: str = "sparse",
        density: float = 0.1,
        blocks: int = 8,
        spectral_radius: float = 0.9,
        input_scale: float = 1.0,
        leak: tuple[float, float] = (0.3, 1.0),
        amplitude: float = 1.0,
        decay: float = 0.1,
        frequency: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.amplitude, self.decay, self.frequency = amplitude, decay, frequency
        generator = torch.Generator().manual_seed(seed)
        if structure == "blocks":
            recurrent = block_weights(size, blocks, spectral_radius, generator)
        else:
            recurrent = sparse_weights(size, density, spectral_radius, generator)
        self.register_buffer("recurrent", recurrent)
        # Codes have unit length, so each unit's drive has the standard deviation `input_scale`.
        weights = torch.randn(size, inputs, generator=generator)
        self.register_buffer("input_weights", weights * input_scale)
        low, high = torch.tensor(leak).log()
        share = torch.rand(size, generator=generator)
        self.register_buffer("leak", (low + (high - low) * share).exp())

    @classmethod
    def from_config(cls: type[_R], config: DualCNNConfig, **parts: Any) -> _R:
        """Build the reservoir of a configuration; ``parts`` are arguments of a subclass."""
        return cls(
            config.reservoir_size,
            config.code_width,
            structure=config.reservoir_structure,
            density=config.reservoir_density,
            blocks=config.reservoir_blocks,
            spectral_radius=config.spectral_radius,
            input_scale=config.input_scale,
            leak=(config.leak_min, config.leak_max),
            amplitude=config.sine_amplitude,
            decay=config.sine_decay,
            frequency=config.sine_frequency,
            seed=config.seed,
            **parts,
        )

    @property
    def size(self) -> int:
        """Units N."""
        return self.recurrent.shape[0]

    def activation(self, z: Tensor) -> Tensor:
        """``A exp(-alpha |z|) sin(omega z)``, element by element."""
        # Skip factors of 1: dispatch dominates the cost of such a short step.
        wave = torch.sin(z if self.frequency == 1 else self.frequency * z)
        if self.decay:
            wave = wave * torch.exp(-self.decay * z.abs())
        return wave if self.amplitude == 1 else self.amplitude * wave

    def drive(self, codes: Tensor) -> Tensor:
        """Compute the input drive of each token of the vocabulary.

        Args:
            codes: Token codes, ``[V, w]``.

        Returns:
            ``W_in c`` for each token, ``[V, N]``.
        """
        return codes @ self.input_weights.T

    def step(self, state: Tensor, drive: Tensor) -> Tensor:
        """Advance a state ``[B, N]`` by one step with drive ``[B, N]``."""
        z = torch.addmm(drive, state, self.recurrent.T)
        return torch.lerp(state, self.activation(z), self.leak)

    @torch.no_grad()
    def run(self, state: Tensor, drive: Tensor) -> Tensor:
        """Drive the reservoir through a chunk.

        Gradients are not tracked, since nothing before the reservoir is trained.

        Args:
            state: State before the chunk, ``[B, N]``.
            drive: Input drive, ``[B, T, N]``.

        Returns:
            The state after each token, ``[B, T, N]``.
        """
        if torch.compiler.is_exporting():
            # The exporter would unroll a Python loop to the length of its example.
            _, states = scan(self._scan_step, state, drive.transpose(0, 1))
            assert isinstance(states, Tensor)
            return states.transpose(0, 1)
        states = torch.empty_like(drive.transpose(0, 1), memory_format=torch.contiguous_format)
        recurrent = self.recurrent.T.contiguous()
        for step, after in zip(drive.unbind(1), states, strict=True):
            z = torch.addmm(step, state, recurrent)
            state = torch.lerp(state, self.activation(z), self.leak, out=after)
        return states.transpose(0, 1)

    def _scan_step(self, state: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.addmm(drive, state, self.recurrent.T)
        # An interpolation, which the exporter writes in twice as many nodes.
        state = state * (1 - self.leak) + self.activation(z) * self.leak
        # The body of a scan must not return the same tensor twice.
        return state, state.clone()


def sparse_weights(
    size: int, density: float, spectral_radius: float, generator: torch.Generator
) -> Tensor:
    """Draw a Gaussian matrix with weights at random places, scaled to the spectral radius.

    Returns:
        ``[N, N]``.
    """
    weights = torch.randn(size, size, generator=generator, dtype=torch.float64)
    kept = torch.rand(size, size, generator=generator) < density
    return _scale(weights * kept, spectral_radius)


def block_weights(
    size: int, blocks: int, spectral_radius: float, generator: torch.Generator
) -> Tensor:
    """Draw dense blocks whose outputs are shuffled over all blocks.

    As in ShuffleNet (Zhang et al., 2018), a product with the matrix is a grouped product
    followed by a shuffle.

    Returns:
        ``[N, N]``, of which a share of 1 / blocks is nonzero.
    """
    width = size // blocks
    dense = torch.randn(blocks, width, width, generator=generator, dtype=torch.float64)
    weights = torch.zeros(size, size, dtype=torch.float64)
    for block, place in zip(dense, range(0, size, width), strict=True):
        weights[place : place + width, place : place + width] = block
    shuffle = torch.arange(size).view(blocks, width).T.reshape(-1)
    return _scale(weights[shuffle], spectral_radius)


def _scale(weights: Tensor, spectral_radius: float) -> Tensor:
    radius = torch.linalg.eigvals(weights).abs().max()
    # A matrix without cycles has no eigenvalue other than 0, and forgets without scaling.
    if radius > 1e-9:
        weights = weights * (spectral_radius / radius)
    return weights.float()
