"""Two language models to compare with: a GPT of nanoGPT's shape, and a GRU."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "GPT",
    "GRU",
    "Baseline",
    "Recurrent",
    "TransformerBlock",
    "initialise",
    "match_width",
    "matched_gpt",
    "matched_gru",
    "nearest_width",
]

_TOLERANCE = 0.03
"""How far a matched model's parameter count may be from the target, relatively."""


class Baseline(nn.Module):
    """A language model with an embedding ``tokens``, transposed its head (Press and Wolf, 2017)."""

    tokens: nn.Embedding

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What the head reads, ``[B, T, d]``, of a chunk ``[B, T]``, and the next state."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``[..., V]`` of features ``[..., d]``."""
        return F.linear(features, self.tokens.weight)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits ``[B, T, V]`` of a chunk ``[B, T]``, and the next state."""
        features, state = self.features(tokens, state)
        return self.logits(features), state

    def head_layer(self) -> nn.Linear:
        """The head as a layer with a bias, which is zero."""
        layer = nn.Linear(self.tokens.embedding_dim, self.tokens.num_embeddings)
        layer.weight = self.tokens.weight
        nn.init.zeros_(layer.bias)
        return layer

    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())


B = TypeVar("B", bound=Baseline)


class TransformerBlock(nn.Module):
    """Pre-norm attention and a GELU MLP of four times the width, each with a residual.

    Args:
        width: Width d.
        heads: Attention heads H.
        dropout: Dropout of each branch.
        size: Width e of a head; a share of the width by default.
    """

    def __init__(self, width: int, heads: int, dropout: float, size: int | None = None) -> None:
        super().__init__()
        self.heads, self.size, self.dropout = heads, size or width // heads, dropout
        inner = self.heads * self.size
        # No biases, as in nanoGPT's recipes: "a bit better and faster".
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * inner, bias=False)
        self.attention_output = nn.Linear(inner, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, d]`` to ``[B, T, d]``."""
        projected = self.query_key_value(self.attention_norm(x))
        # [B, T, 3 H e] to q, k, v: each [B, H, T, e]
        q, k, v = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # No dropout of attention weights: it would rule out PyTorch's fused CPU kernel.
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = self.attention_output(mixed.transpose(1, 2).flatten(2))
        return self.feed_forward(x + F.dropout(mixed, self.dropout, self.training))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block, ``[..., d]`` to ``[..., d]``."""
        y: Tensor = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + F.dropout(y, self.dropout, self.training)


def initialise(model: nn.Module, layers: int) -> None:
    """Draw the matrices of a transformer of :class:`TransformerBlock` as nanoGPT does."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            # Every branch adds to the residual stream: scale down so that its variance stays.
            branch = name.endswith(("attention_output.weight", "down.weight"))
            nn.init.normal_(weight, std=0.02 * ((2 * layers) ** -0.5 if branch else 1))


class GPT(Baseline):
    """A transformer of nanoGPT's shape.

    Args:
        vocab: Number of tokens V.
        context: Longest window that it reads.
        width: Width d.
        layers: Number of blocks.
        heads: Attention heads; the width is a multiple of their number.
        dropout: Dropout of the embeddings and of each residual branch.
    """

    def __init__(
        self, vocab: int, context: int, width: int, layers: int, heads: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.context, self.heads, self.dropout = context, heads, dropout
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        initialise(self, layers)

    def features(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """What the head reads of a window ``[B, T]``, and no state: windows are independent."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(positions)
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.norm(x), None


class Recurrent(Baseline):
    """Recurrent layers between an embedding and its transpose.

    Args:
        vocab: Number of tokens V.
        width: Width d of the embedding and of each layer.
        layers: Number of recurrent layers.
        dropout: Dropout of the inputs of each layer and of the head.
    """

    cell: type[nn.GRU | nn.LSTM]

    def __init__(self, vocab: int, width: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.tokens = nn.Embedding(vocab, width)
        # Wide enough for logits of outputs below one, narrower than torch's 1: after 160 steps on
        # the tales, 0.3 was ahead of 0.1, of 0.02, and of a head of its own.
        nn.init.normal_(self.tokens.weight, std=0.3)
        self.layers = self.cell(
            width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )


class GRU(Recurrent):
    """Gated recurrent layers (Cho et al., 2014)."""

    cell = nn.GRU

    def zero_state(self, batch: int = 1) -> Tensor:
        """The initial state, ``[layers, B, d]``."""
        return torch.zeros(self.layers.num_layers, batch, self.layers.hidden_size)

    def features(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the head reads, ``[B, T, d]``, and the next state ``[layers, B, d]``."""
        x = F.dropout(self.tokens(tokens), self.dropout, self.training)
        # In float32: a gate near one, rounded to bfloat16, forgets at another speed.
        with torch.autocast(x.device.type, enabled=False):
            x, state = self.layers(x, state)
        return F.dropout(x, self.dropout, self.training), state


def matched_gpt(parameters: int, vocab: int, context: int, dropout: float = 0.1) -> GPT:
    """Build a :class:`GPT` with a given number of trained parameters, within 3 %.

    Among the depths that can match, it takes the one whose ratio of width to depth is nearest
    to 16: nanoGPT's recipes have 32 and 64, and smaller models gain from depth. Heads are 16
    wide or somewhat wider, as in the project's own model.

    Raises:
        ValueError: No shape comes that close.
    """

    def build(width: int, layers: int) -> GPT:
        heads = max(n for n in range(1, 1 + max(1, width // 16)) if width % n == 0)
        return GPT(vocab, context, width, layers, heads, dropout)

    widths: dict[int, int] = {}
    for layers in range(1, 13):
        # Even widths only: an odd one slows the matrix products.
        width = _matching_width(range(8, 1025, 2), parameters, partial(build, layers=layers))
        if width is not None:
            widths[layers] = width
    if not widths:
        raise ValueError(f"no GPT with {vocab} tokens has about {parameters:,} parameters")
    layers = min(widths, key=lambda n: max(widths[n] / n / 16, 16 * n / widths[n]))
    return build(widths[layers], layers)


def matched_gru(parameters: int, vocab: int, dropout: float = 0.1) -> GRU:
    """Build a :class:`GRU` of two layers with a given number of parameters, within 3 %.

    Raises:
        ValueError: No width comes that close.
    """
    return match_width("GRU", parameters, vocab, lambda width: GRU(vocab, width, 2, dropout))


def match_width(kind: str, parameters: int, vocab: int, build: Callable[[int], B]) -> B:
    """Build the model of the width that gives a number of parameters, within 3 %.

    Raises:
        ValueError: No width comes that close.
    """
    width = _matching_width(range(4, 2049), parameters, build)
    if width is None:
        raise ValueError(f"no {kind} with {vocab} tokens has about {parameters:,} parameters")
    return build(width)


def _matching_width(widths: range, parameters: int, build: Callable[[int], Baseline]) -> int | None:
    """The width that gives the nearest number of parameters; ``None`` if that is not within 3 %."""

    def count(width: int) -> int:
        with torch.device("meta"):  # allocates nothing
            return build(width).parameter_count()

    width = nearest_width(widths, parameters, count)
    return width if abs(count(width) - parameters) <= _TOLERANCE * parameters else None


def nearest_width(widths: range, target: float, measure: Callable[[int], float]) -> int:
    """The width whose measure, which grows with it, is nearest to a target."""
    index = bisect_left(widths, target, key=measure)
    return min(widths[max(0, index - 1) : index + 1], key=lambda d: abs(measure(d) - target))
