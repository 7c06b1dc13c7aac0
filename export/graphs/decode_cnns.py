"""Both CNNs as a single decoding step with folded weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...train.model.readout_cnn import ReadoutCNN
from ...train.model.wave_cnn import GatedBlock, WaveBlock, WaveCNN

__all__ = ["DecodeReadout", "DecodeWaves", "GatedLayer"]

_OPEN = 10.0
"""Input of a gate that is wide open, where the sigmoid is flat."""


class GatedLayer(nn.Module):
    """A gated layer with its residual, in two matrix products.

    The second product's bias becomes the weight of a hidden unit that is always 1. The residual
    then takes the place of the bias, which saves a node.

    Args:
        inner: The trained layer.
        up: Matrix of the first product, ``[inputs, 2 hidden]``; the trained one by default.
    """

    up: Tensor
    up_bias: Tensor
    down: Tensor

    def __init__(self, inner: GatedBlock, up: Tensor | None = None) -> None:
        super().__init__()
        up = inner.up.weight.detach().T if up is None else up
        gate, value = up.chunk(2, dim=1)
        gate_bias, value_bias = inner.up.bias.detach().chunk(2)
        zeros, one = torch.zeros(len(up), 1), torch.ones(1)
        constant = F.silu(one * _OPEN)
        up = torch.cat([gate, zeros, value, zeros], dim=1)
        self.register_buffer("up", up.contiguous())
        bias = torch.cat([gate_bias, one * _OPEN, value_bias, 1 / constant])
        self.register_buffer("up_bias", bias)
        down = torch.cat([inner.down.weight.detach().T, inner.down.bias.detach().unsqueeze(0)])
        self.register_buffer("down", down.contiguous())

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer to ``x [B, inputs]`` and add ``residual [B, outputs]``."""
        gate, value = torch.addmm(self.up_bias, x, self.up).chunk(2, dim=-1)
        return torch.addmm(residual, F.silu(gate) * value, self.down)


class DecodeWaves(nn.Module):
    """One step of the first CNN.

    Each block's convolution splits into the newest input's share and the past's share. The past's
    share is computed for all blocks at once.

    Args:
        inner: The trained first CNN.
    """

    taps: Tensor
    newest: Tensor
    ones: Tensor

    def __init__(self, inner: WaveCNN) -> None:
        super().__init__()
        blocks = [block for block in inner.blocks if isinstance(block, WaveBlock)]
        taps = [block.taps.detach() for block in blocks]  # each [k, d], oldest first
        self.register_buffer("taps", torch.cat([tap[:-1] for tap in taps], dim=1).contiguous())
        self.register_buffer("ones", torch.ones(1, len(self.taps)))
        self.norms = nn.ModuleList(block.norm for block in blocks)
        self.register_buffer("newest", torch.stack([tap[-1] for tap in taps]))
        self.gated = nn.ModuleList(GatedLayer(block.gated) for block in blocks)
        self.emit, self.norm = inner.emit, inner.norm

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x [B, d]`` and ``context [B, k - 1, blocks x d]`` to the wave and next context."""
        if len(self.norms) == 1:
            return self._single(x, context)
        # A product with ones is several times faster than a sum over the first of two axes.
        earlier = (self.ones @ (context * self.taps)).squeeze(1)  # [B, blocks x d]
        inputs = []
        parts = earlier.chunk(len(self.norms), dim=1)
        for index, (norm, gated) in enumerate(zip(self.norms, self.gated, strict=True)):
            inputs.append(norm(x))
            x = gated(inputs[-1] * self.newest[index] + parts[index], x)
        row = torch.cat(inputs, dim=1).unsqueeze(1)
        return self.norm(self.emit(x)), torch.cat([context[:, 1:], row], dim=1)

    def _single(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The step of a single block, which must read the past before it writes the present."""
        seen = torch.cat([context, self.norms[0](x).unsqueeze(1)], dim=1)  # [B, k, d]
        taps = torch.cat([self.taps, self.newest])
        x = self.gated[0]((seen * taps).sum(1), x)
        return self.norm(self.emit(x)), seen[:, 1:]


class DecodeReadout(nn.Module):
    """One step of the second CNN over the wave window.

    Args:
        inner: The trained second CNN.
    """

    filters: Tensor
    ones: Tensor

    def __init__(self, inner: ReadoutCNN) -> None:
        super().__init__()
        features, self.multiplier, window = inner.filters.shape
        self.width = features * self.multiplier
        # [W, K F]: for each tap, the filters of all features side by side.
        filters = inner.filters.detach().permute(2, 1, 0).reshape(window, self.width)
        self.register_buffer("filters", filters.contiguous())
        self.register_buffer("ones", torch.ones(1, window))
        # Training groups the K outputs by feature; here they are grouped by filter.
        order = torch.arange(self.width).view(features, self.multiplier).T.reshape(-1)
        self.mix = GatedLayer(inner.mix, inner.mix.up.weight.detach()[:, order].T)
        self.norms = inner.norms
        self.blocks = nn.ModuleList(
            GatedLayer(block) for block in inner.blocks if isinstance(block, GatedBlock)
        )

    def forward(self, wave: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``wave [B, F]`` and ``past [B, W, F]`` to normalised features and the window."""
        window = torch.cat([past[:, 1:], wave.unsqueeze(1)], dim=1)  # [B, W, F]
        weighted = torch.cat([window] * self.multiplier, dim=2) * self.filters  # [B, W, K F]
        taps = (self.ones @ weighted).squeeze(1)
        x = self.mix(taps, wave)
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = block(norm(x), x)
        features: Tensor = self.norms[-1](x)
        return features, window
