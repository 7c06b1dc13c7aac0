"""Alternative forms of parts of the decode step: the same function in different nodes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillet.export.graphs.decode_cnns import DecodeReadout, DecodeWaves, GatedLayer
from rillet.export.graphs.decode_memory import DecodeMemory
from rillet.export.graphs.decode_step import DecodeStep
from rillet.train import DualCNN
from rillet.train.model.readout_cnn import ReadoutCNN
from rillet.train.model.recall import split_key
from rillet.train.model.state import State
from rillet.train.model.stream_memory import StreamMemory
from rillet.train.model.wave_cnn import WaveCNN

__all__ = [
    "FilterVariant",
    "MemoryVariant",
    "ReservoirVariant",
    "ScatterAdd",
    "SeparateContexts",
    "parts_width",
]


class FilterVariant(DecodeReadout):
    """The second CNN with its filters as a ``sum`` or a grouped convolution, ``conv``."""

    def __init__(self, inner: ReadoutCNN, form: str) -> None:
        super().__init__(inner)
        self.form, self.features = form, len(inner.filters)
        if form == "conv":
            # A grouped convolution keeps the outputs of a feature together, as in training.
            self.filters = inner.filters.detach().reshape(self.width, 1, -1)
            self.mix = GatedLayer(inner.mix)

    def forward(self, wave: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step, as :meth:`.DecodeReadout.forward` does."""
        window = torch.cat([past[:, 1:], wave.unsqueeze(1)], dim=1)
        if self.form == "conv":
            taps = F.conv1d(window.transpose(1, 2), self.filters, groups=self.features).squeeze(2)
        else:
            taps = (torch.cat([window] * self.multiplier, dim=2) * self.filters).sum(1)
        x = self.mix(taps, wave)
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = block(norm(x), x)
        return self.norms[-1](x), window


class SeparateContexts(nn.Module):
    """The first CNN with a context tensor for each block."""

    def __init__(self, inner: WaveCNN) -> None:
        super().__init__()
        self.waves = DecodeWaves(inner)

    def forward(self, x: Tensor, context: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take one step: ``x [B, d]`` and, for each block, ``context [B, k - 1, d]``."""
        waves, present = self.waves, []
        ones = torch.ones(1, len(waves.taps) + 1)
        taps = waves.taps.chunk(len(waves.norms), dim=1)
        for index, (norm, gated) in enumerate(zip(waves.norms, waves.gated, strict=True)):
            seen = torch.cat([context[index], norm(x).unsqueeze(1)], dim=1)  # [B, k, d]
            all_taps = torch.cat([taps[index], waves.newest[index : index + 1]])
            x = gated((ones @ (seen * all_taps)).squeeze(1), x)
            present.append(seen[:, 1:])
        return waves.norm(waves.emit(x)), tuple(present)


class ReservoirVariant(nn.Module):
    """The reservoir with its product in blocks, ``matmul`` or ``conv``, or left out, ``none``."""

    kernel: Tensor

    def __init__(self, model: DualCNN, form: str) -> None:
        super().__init__()
        exported = DecodeStep(model).reservoir
        assert exported is not None
        self.exported, self.form, self.count = exported, form, model.config.reservoir_blocks
        recurrent = exported.recurrent
        size = len(recurrent)
        self.width = size // self.count
        shuffle = torch.arange(size).view(self.count, self.width).T.reshape(-1)
        dense = torch.empty_like(recurrent)
        dense[shuffle] = recurrent.T
        starts = range(0, size, self.width)
        blocks = [dense[i : i + self.width, i : i + self.width] for i in starts]
        kernel = torch.cat(blocks).unsqueeze(2) if form == "conv" else torch.stack(blocks).mT
        self.register_buffer("kernel", kernel.contiguous())

    def forward(self, token: Tensor, state: Tensor) -> Tensor:
        """Take one step: ``token [B]`` and ``state [B, N]`` to both states, ``[B, 2 N]``."""
        z = F.embedding(token, self.exported.drive)
        if self.form == "matmul":
            blocks = state.view(-1, self.count, 1, self.width) @ self.kernel
            z = z + blocks.transpose(1, 3).reshape(-1, self.count * self.width)
        elif self.form == "conv":
            blocks = F.conv1d(state.unsqueeze(2), self.kernel, groups=self.count)
            blocks = blocks.view(-1, self.count, self.width).transpose(1, 2)
            z = z + blocks.reshape(-1, self.count * self.width)
        wave = torch.exp(z.abs() * -self.exported.decay) * torch.sin(z)
        return torch.cat([state, state * self.exported.kept + wave * self.exported.gain], dim=1)


class ScatterAdd(nn.Module):
    """The memory's read as a scatter that adds."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, weights: Tensor, tokens: Tensor) -> Tensor:
        """Sum weights ``[B, 1, M]`` by token ``[B, M]`` into ``[B, V]``."""
        start = weights.new_zeros(weights.shape[0], self.vocab_size)
        return start.scatter_add(1, tokens, weights.squeeze(1))


class MemoryVariant(DecodeMemory):
    """The memory with another way to write entries, or to store keys.

    Args:
        model: The trained model.
        form: ``shift`` moves all entries by one slot. ``transposed`` stores keys as ``[B, n, M]``.
            ``parts`` stores what :func:`.closeness` computes from each key, namely its coarse
            part, the rest and half of their squares, ``[B, M, 2 n + 2]``, so that the distance is
            one product with two columns; ``parts, transposed`` is ``[B, 2 n + 2, M]``. ``product``
            uses the plain product of keys, whose rounding errors show.
    """

    def __init__(self, model: DualCNN, form: str) -> None:
        assert isinstance(model.memory, StreamMemory)
        assert model.readout_cnn is not None
        super().__init__(model.memory, model.readout_cnn.head)
        self.form = form
        self.beta = float(-2 * self.fall[0, 0])
        width = parts_width(self.key_width) if form.startswith("parts") else self.key_width
        self.columns = torch.zeros(1, 1, width).long()

    def forward(
        self,
        token: Tensor,
        learn: Tensor,
        reservoir: Tensor | None,
        features: Tensor,
        past: State,
        present: State,
    ) -> Tensor:
        """Take one step, as :meth:`.DecodeMemory.forward` does."""
        before, query = self._keys(token, reservoir, past, present).chunk(2, dim=1)
        present["position"] = past["position"] + 1
        slot = ((present["position"] + (self.capacity - 1)) % self.capacity).view(-1, 1, 1)
        before = before * learn.view(-1, 1, 1)
        if self.form == "shift":
            keys = torch.cat([past["memory_keys"][:, 1:], before], dim=1)
            tokens = torch.cat([past["memory_tokens"][:, 1:], token], dim=1)
            exponent = self._exponent(keys, query)
        else:
            tokens = past["memory_tokens"].scatter(1, slot.squeeze(2), token)
            keys, exponent = self._stored(past["memory_keys"], slot, before, query)
        present["memory_keys"], present["memory_tokens"] = keys, tokens
        weights = torch.relu(torch.exp(exponent) - self.least)
        return self._combine(features, self.followed(weights, tokens))

    def _stored(
        self, keys: Tensor, slot: Tensor, before: Tensor, query: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The keys with the new one stored, and the exponents ``[B, 1, M]``."""
        if self.form == "transposed":
            keys = keys.scatter(2, slot + self.columns.mT, before.mT)
            apart = keys - query.mT
            return keys, self.fall @ (apart * apart)
        if self.form == "product":
            keys = keys.scatter(1, slot + self.columns, before)
            return keys, (query * self.beta) @ keys.mT - self.beta
        coarse, rest = split_key(before)
        row = torch.cat([coarse, rest, *_halves(coarse, rest)], dim=2)
        coarse, rest = split_key(query)
        none, one = torch.zeros_like(coarse), torch.ones_like(coarse[:, :, :1])
        exact = torch.cat([coarse, none, one, none[:, :, :1]], dim=2)
        small = torch.cat([rest, query, none[:, :, :1], one], dim=2)
        both = torch.cat([exact, small], dim=1)  # [B, 2, 2 n + 2]
        own = torch.cat(_halves(coarse, rest), dim=1)  # [B, 2, 1]
        if self.form == "parts, transposed":
            keys = keys.scatter(2, slot + self.columns.mT, row.mT)
            halves = both @ keys + own
        else:
            keys = keys.scatter(1, slot + self.columns, row)
            halves = both @ keys.mT + own
        return keys, halves.sum(1, keepdim=True) * self.beta


def parts_width(width: int) -> int:
    """Width of a key of width n that is stored in parts, 2 n + 2."""
    return 2 * width + 2


def _halves(coarse: Tensor, rest: Tensor) -> list[Tensor]:
    """Minus half the square of the coarse part, and minus half of what the rest adds to it."""
    exact = coarse.pow(2).sum(2, keepdim=True) * -0.5
    return [exact, (rest * (coarse + rest * 0.5)).sum(2, keepdim=True) * -1.0]
