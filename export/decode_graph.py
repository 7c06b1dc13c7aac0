"""The model, written for decoding: one step, no control flow, weights folded.

It computes what :class:`rillet.train.DualCNN` computes at T = 1, in fewer and cheaper
nodes, since on a small model dispatch costs more than arithmetic. The parity gate is
the proof that it does. Each ``past`` tensor has readers that all come before the writer
of its ``present``, so that both may share a buffer (checked by :mod:`.buffer_safety`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..train.attention import AttentiveReservoir
from ..train.memory import least_weight
from ..train.model import DualCNN
from ..train.readout_cnn import ReadoutCNN
from ..train.reservoir import SparseReservoir
from ..train.state import State, in_table_order
from ..train.stream_memory import StreamMemory, combine
from ..train.wave_cnn import WaveBlock, WaveCNN

__all__ = ["DecodeStep"]


class DecodeStep(nn.Module):
    """One step of a trained model, ``input_ids [B, 1]`` to ``logits [B, 1, V]``.

    Parts that the model's configuration leaves out are ``None``.

    Args:
        model: The trained model; its tensors are copied or shared, never changed.
    """

    def __init__(self, model: DualCNN) -> None:
        super().__init__()
        self.config = model.config
        reservoir = model.reservoir
        self.reservoir = None if reservoir is None else _Reservoir(reservoir, model.embedder.codes)
        self.attention = (
            _Attention(reservoir) if isinstance(reservoir, AttentiveReservoir) else None
        )
        self.read = model.read
        self.embedding = model.embedder.embedding
        self.wave_cnn = _Waves(model.wave_cnn)
        # Without a second CNN the first one's own prediction is the final one.
        self.head = model.wave_cnn.head if model.readout_cnn is None else None
        self.readout_cnn = None if model.readout_cnn is None else _Readout(model.readout_cnn)
        self.memory = None if model.memory is None else _Memory(model.memory)

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        """One step; ``learn [B]`` as in :meth:`rillet.train.DualCNN.forward`."""
        present: State = {}
        token = input_ids.squeeze(1)  # [B]
        x, both = self.embedding(token), None
        if self.reservoir is not None:
            both = self.reservoir(token, past["reservoir"])  # [B, 2, N]: before and after
            present["reservoir"] = both[:, 1]
        if self.attention is not None:
            x, present["attention_window"] = self.attention(
                present["reservoir"], x, past["attention_window"]
            )
        elif self.read is not None:
            x = x + self.read(present["reservoir"])
        wave, present["wave_context"] = self.wave_cnn(x, past["wave_context"])
        if self.readout_cnn is not None:
            logits, features, present["wave_buffer"] = self.readout_cnn(wave, past["wave_buffer"])
        else:
            assert self.head is not None
            logits, features = self.head(wave), wave
        if self.memory is None:
            present["position"] = past["position"] + 1
            final = torch.log_softmax(logits, dim=-1)
        else:
            final = self.memory(input_ids, learn, both, logits, features, past, present)
        return final.unsqueeze(1), in_table_order(self.config, present)


class _Reservoir(nn.Module):
    """The reservoir's step, with the input drive of each token looked up."""

    drive: Tensor
    recurrent: Tensor
    kept: Tensor
    gain: Tensor

    def __init__(self, inner: SparseReservoir, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("drive", inner.drive(codes))
        self.register_buffer("recurrent", inner.recurrent.T.contiguous())
        self.register_buffer("kept", 1 - inner.leak)
        self.register_buffer("gain", inner.leak * inner.amplitude)
        self.decay, self.frequency = inner.decay, inner.frequency

    def forward(self, token: Tensor, state: Tensor) -> Tensor:
        z = state @ self.recurrent + F.embedding(token, self.drive)
        wave = torch.sin(z if self.frequency == 1 else z * self.frequency)
        if self.decay:
            wave = torch.exp(z.abs() * -self.decay) * wave
        after = state * self.kept + wave * self.gain
        return torch.stack([state, after], dim=1)


class _Attention(nn.Module):
    """Windowed attention without splitting heads, keys or values.

    A query is spread over the whole key-value width with zeros outside its head's
    keys, and the output projection picks each head's values, so that one product with
    the window as it is stored serves all heads.
    """

    projection: Tensor
    output: Tensor
    bias: Tensor

    def __init__(self, inner: AttentiveReservoir) -> None:
        super().__init__()
        heads, width = inner.heads, inner.norm.normalized_shape[0]
        size = width // heads
        self.heads, self.width = heads, width
        self.read, self.norm = inner.read, inner.norm
        query = torch.zeros(heads, 2 * width, width)
        output = torch.zeros(heads, 2 * width, width)
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            query[head, own] = inner.query.weight.detach()[own] * size**-0.5
            values = slice(width + head * size, width + (head + 1) * size)
            output[head, values] = inner.output.weight.detach().T[own]
        projection = torch.cat([query.flatten(0, 1), inner.key_value.weight.detach()])
        self.register_buffer("projection", projection.T.contiguous())  # [d, (H + 1) 2d]
        self.register_buffer("output", output.flatten(0, 1).contiguous())  # [H 2d, d]
        # The window is in order of time: the newest, distance 0, stands last.
        self.register_buffer("bias", inner.distance_bias.detach().flip(1).contiguous())

    def forward(self, state: Tensor, embedded: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        x = self.read(state) + embedded
        projected = (self.norm(x) @ self.projection).view(-1, self.heads + 1, 2 * self.width)
        query, newest = torch.split(projected, [self.heads, 1], dim=1)  # [B, H, 2d], [B, 1, 2d]
        window = torch.cat([past, newest], dim=1)  # [B, A, 2d]
        weights = torch.softmax(query @ window.transpose(1, 2) + self.bias, dim=-1)
        mixed = (weights @ window).view(-1, self.heads * 2 * self.width)
        return mixed @ self.output + x, window[:, 1:]


class _Waves(nn.Module):
    """The first CNN's step: each block's window is multiplied by its taps and summed."""

    def __init__(self, inner: WaveCNN) -> None:
        super().__init__()
        self.blocks, self.emit, self.norm = inner.blocks, inner.emit, inner.norm

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        contexts = []
        for block, past in zip(self.blocks, context.chunk(len(self.blocks), dim=2), strict=True):
            assert isinstance(block, WaveBlock)
            seen = torch.cat([past, block.norm(x).unsqueeze(1)], dim=1)  # [B, k, d]
            x = block.gated((seen * block.taps).sum(1)) + x
            contexts.append(seen[:, 1:])
        return self.norm(self.emit(x)), torch.cat(contexts, dim=2)


class _Readout(nn.Module):
    """The second CNN's step over the wave window."""

    filters: Tensor
    up: Tensor

    def __init__(self, inner: ReadoutCNN) -> None:
        super().__init__()
        # [W, K, F]: the filters of all features for one tap stand together.
        self.register_buffer("filters", inner.filters.detach().permute(2, 1, 0).contiguous())
        features, multiplier, _ = inner.filters.shape
        self.width = features * multiplier
        # The training form keeps the K outputs of a feature together; here filters come first.
        order = torch.arange(self.width).view(features, multiplier).T.reshape(-1)
        self.register_buffer("up", inner.mix.up.weight.detach()[:, order].T.contiguous())
        self.mix, self.norms, self.blocks, self.head = (
            inner.mix,
            inner.norms,
            inner.blocks,
            inner.head,
        )

    def forward(self, wave: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        window = torch.cat([past[:, 1:], wave.unsqueeze(1)], dim=1)  # [B, W, F]
        taps = (window.unsqueeze(2) * self.filters).sum(1).view(-1, self.width)  # [B, K F]
        gate, value = (taps @ self.up + self.mix.up.bias).chunk(2, dim=-1)
        x = self.mix.down(F.silu(gate) * value) + wave
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = block(norm(x)) + x
        features = self.norms[-1](x)
        return self.head(features), features, window


class _Memory(nn.Module):
    """Store (key of the state before, token), read with the new key, and combine."""

    half_beta: Tensor
    least: Tensor
    one_hot: Tensor
    columns: Tensor

    def __init__(self, inner: StreamMemory) -> None:
        super().__init__()
        self.memory, self.gate, self.capacity = inner, inner.gate, inner.capacity
        beta = inner.gate.log_beta.detach().exp()
        self.register_buffer("half_beta", -beta / 2)
        self.register_buffer("least", least_weight(beta))
        self.register_buffer("one_hot", torch.eye(inner.vocab_size))
        self.register_buffer("columns", torch.zeros(1, 1, inner.key_width).long())

    def forward(
        self,
        token: Tensor,
        learn: Tensor,
        both: Tensor | None,
        logits: Tensor,
        features: Tensor,
        past: State,
        present: State,
    ) -> Tensor:
        present["position"] = past["position"] + 1
        slot = ((present["position"] + (self.capacity - 1)) % self.capacity).unsqueeze(1)
        pair = self.memory.keys(token, both, past, present)  # [B, 2, n]: before and after
        before, query = torch.split(pair, 1, dim=1)
        before = before * learn.view(-1, 1, 1)
        keys = past["memory_keys"].scatter(1, slot.unsqueeze(2) + self.columns, before)
        tokens = past["memory_tokens"].scatter(1, slot, token)
        present["memory_keys"], present["memory_tokens"] = keys, tokens
        # The distance itself, not a product: near 1 a product has no digits to spare.
        distance = torch.linalg.vector_norm(keys - query, dim=2)  # [B, M]
        weights = torch.relu(torch.exp(distance * distance * self.half_beta) - self.least)
        found = weights.unsqueeze(1) @ F.embedding(tokens, self.one_hot)  # [B, 1, V]
        share, kept = self.gate(features, found.squeeze(1))
        return combine(logits, share, kept)
