"""An LSTM language model (Hochreiter and Schmidhuber, 1997), to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .baselines import Recurrent, match_width

__all__ = ["LSTM", "matched_lstm"]


class LSTM(Recurrent):
    """LSTM layers."""

    cell = nn.LSTM

    def __init__(self, vocab: int, width: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__(vocab, width, layers, dropout)
        for index in range(layers):
            # The forget gate begins open (Gers et al., 2000), so that gradients reach far back.
            bias = getattr(self.layers, f"bias_ih_l{index}")
            nn.init.ones_(bias.data[width : 2 * width])

    def zero_state(self, batch: int = 1) -> Tensor:
        """The initial state, hidden and cell of each layer, ``[2 layers, B, d]``."""
        return torch.zeros(2 * self.layers.num_layers, batch, self.layers.hidden_size)

    def features(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the head reads, ``[B, T, d]``, and the next state ``[2 layers, B, d]``."""
        x = F.dropout(self.tokens(tokens), self.dropout, self.training)
        if state is None:
            state = self.zero_state(tokens.shape[0]).to(x.device)
        hidden, cell = state.split(self.layers.num_layers)
        # In float32: autocast would round the cells, which sum over the whole stream, to bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            x, (hidden, cell) = self.layers(x, (hidden.contiguous(), cell.contiguous()))
        return F.dropout(x, self.dropout, self.training), torch.cat([hidden, cell])


def matched_lstm(parameters: int, vocab: int, dropout: float = 0.1) -> LSTM:
    """Build an :class:`LSTM` of two layers with a given number of parameters, within 3 %.

    Raises:
        ValueError: No width comes that close.
    """
    return match_width("LSTM", parameters, vocab, lambda width: LSTM(vocab, width, 2, dropout))
