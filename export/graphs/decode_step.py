"""The model as a single decoding step: no control flow, weights folded.

It computes what :class:`rillet.train.DualCNN` computes at T = 1, in fewer and cheaper nodes,
because dispatch costs a small model more than arithmetic. The parity gate proves that the two
agree. Every ``past`` tensor is read before its ``present`` is written, so the two may share a
buffer; :mod:`.buffer_safety` checks this.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...train.model.attention import AttentiveReservoir
from ...train.model.context_memory import ContextMemory
from ...train.model.dual_cnn import DualCNN
from ...train.model.reservoir import SparseReservoir
from ...train.model.state import State, in_table_order
from .decode_cnns import DecodeReadout, DecodeWaves
from .decode_contexts import DecodeContexts
from .decode_memory import DecodeMemory

__all__ = ["DecodeReservoir", "DecodeStep"]


class DecodeStep(nn.Module):
    """One step of a trained model: ``input_ids [B, 1]`` to ``logits [B, 1, V]``.

    Parts that the model's configuration omits are ``None``.

    Args:
        model: The trained model. Its tensors are copied or shared, never modified.
    """

    def __init__(self, model: DualCNN) -> None:
        super().__init__()
        self.config = model.config
        reservoir, embedding = model.reservoir, model.embedder.embedding.weight.detach()
        codes = model.embedder.codes
        self.reservoir = None if reservoir is None else DecodeReservoir(reservoir, codes)
        self.attention = self.read = None
        if isinstance(reservoir, AttentiveReservoir):
            self.attention = _Attention(reservoir)
            self.read = _Read(reservoir.read)
        elif model.read is not None:
            self.read = _Read(model.read)
        if self.read is not None:
            # Fold the bias of the reservoir's readout into the embedding.
            embedding = embedding + self.read.bias
        rows, width = embedding.shape
        self.embedding = nn.Embedding(rows, width, _weight=embedding)
        self.wave_cnn = DecodeWaves(model.wave_cnn)
        # Without a second CNN, the first CNN's prediction is the final one.
        last = model.readout_cnn
        self.readout_cnn = None if last is None else DecodeReadout(last)
        head = model.wave_cnn.head if last is None else last.head
        # With a memory, the head and the gate share one matrix product.
        self.head = head if model.memory is None else None
        self.memory: DecodeMemory | DecodeContexts | None = None
        if isinstance(model.memory, ContextMemory):
            self.memory = DecodeContexts(model.memory, head)
        elif model.memory is not None:
            self.memory = DecodeMemory(model.memory, head)

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        """Run one step; ``learn [B]`` as in :meth:`rillet.train.DualCNN.forward`."""
        present: State = {}
        token = input_ids.squeeze(1)  # [B]
        x, both = self.embedding(token), None
        if self.reservoir is not None:
            after = self.reservoir(token, past["reservoir"])
            if isinstance(self.memory, DecodeMemory):
                # The present is sliced from a copy of the past, so the two may share a buffer.
                both = torch.cat([past["reservoir"], after], dim=1)  # [B, 2 N]
                after = both[:, self.config.reservoir_size :]
            present["reservoir"] = after
        if self.read is not None:
            x = self.read(present["reservoir"], x)
        if self.attention is not None:
            x, present["attention_window"] = self.attention(x, past["attention_window"])
        features, present["wave_context"] = self.wave_cnn(x, past["wave_context"])
        if self.readout_cnn is not None:
            features, present["wave_buffer"] = self.readout_cnn(features, past["wave_buffer"])
        if isinstance(self.memory, DecodeContexts):
            final = self.memory(input_ids, learn, features, past, present)
        elif self.memory is not None:
            final = self.memory(input_ids, learn, both, features, past, present)
        else:
            assert self.head is not None
            present["position"] = past["position"] + 1
            final = torch.log_softmax(self.head(features), dim=-1)
        return final.unsqueeze(1), in_table_order(self.config, present)


class _Read(nn.Module):
    """Projects the reservoir's state to the model width; the caller folds in the bias."""

    weight: Tensor

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.bias = inner.bias.detach()
        self.register_buffer("weight", inner.weight.detach().T.contiguous())

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(x, state, self.weight)


class DecodeReservoir(nn.Module):
    """One step of the reservoir; the input drive of each token is a table lookup.

    Args:
        inner: The trained reservoir.
        codes: The fixed token codes, ``[V, code width]``.
    """

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
        """Map ``token [B]`` and ``state [B, N]`` to the state after the token, ``[B, N]``."""
        z = torch.addmm(F.embedding(token, self.drive), state, self.recurrent)
        wave = torch.sin(z if self.frequency == 1 else z * self.frequency)
        if self.decay:
            wave = torch.exp(z.abs() * -self.decay) * wave
        return state * self.kept + wave * self.gain


class _Attention(nn.Module):
    """Windowed attention that never splits heads, keys or values.

    Each query spans the whole key-value width, with zeros outside its head's keys, and the output
    projection picks each head's values. One product with the stored window serves all heads.
    """

    projection: Tensor
    output: Tensor
    bias: Tensor

    def __init__(self, inner: AttentiveReservoir) -> None:
        super().__init__()
        heads, width = inner.heads, inner.norm.normalized_shape[0]
        size = width // heads
        self.heads, self.width = heads, width
        self.norm = inner.norm
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
        # The window is in time order: the newest entry, distance 0, is last.
        self.register_buffer("bias", inner.distance_bias.detach().flip(1).contiguous())

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        projected = (self.norm(x) @ self.projection).view(-1, self.heads + 1, 2 * self.width)
        query, newest = torch.split(projected, [self.heads, 1], dim=1)  # [B, H, 2d], [B, 1, 2d]
        window = torch.cat([past, newest], dim=1)  # [B, A, 2d]
        weights = torch.softmax(query @ window.transpose(1, 2) + self.bias, dim=-1)
        mixed = (weights @ window).view(-1, self.heads * 2 * self.width)
        return torch.addmm(x, mixed, self.output), window[:, 1:]
