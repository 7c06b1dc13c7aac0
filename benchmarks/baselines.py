"""Two language models to compare with: a GPT of nanoGPT's shape, and a GRU.

Both are trained by :func:`train_baseline` the way the project's own model is: the same
streams, batches, optimiser, schedule, average of the weights and number format.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillet.train.config.training_config import TrainingConfig
from rillet.train.data.streams import Streams, Text
from rillet.train.data.token_file import Tokens
from rillet.train.loop.optimizer import WeightAverage, learning_rate, make_optimizer
from rillet.train.model.dropout_noise import step_seed
from rillet.train.model.precision import autocast_dtype

__all__ = ["GPT", "GRU", "Baseline", "BaselineTrainer", "held_out", "matched_gpt", "matched_gru"]
__all__ += ["nearest_width", "train_baseline"]

_TOLERANCE = 0.03
"""How far the trained parameters of a matched model may be from what was asked for."""


class Baseline(nn.Module):
    """What both have: ``tokens``, their embedding, and a number of trained parameters."""

    tokens: nn.Embedding

    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())


class _Block(nn.Module):
    """Pre-norm attention and a GELU layer of four times the width, each with a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        # No biases, as in nanoGPT's recipes: "a bit better and faster".
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_output = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, d]`` to ``[B, T, d]``."""
        batch, length, width = x.shape
        projected = self.query_key_value(self.attention_norm(x))
        # [B, T, 3 d] to q, k, v: each [B, H, T, d / H]
        q, k, v = projected.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # No dropout of attention weights: it would keep PyTorch from its fused kernel on a CPU.
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = self.attention_output(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + F.dropout(mixed, self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + F.dropout(y, self.dropout, self.training)


class GPT(Baseline):
    """A transformer of nanoGPT's shape.

    Args:
        vocab: Number of tokens V.
        context: Most tokens that it reads at a time.
        width: Width d.
        layers: Number of blocks.
        heads: Attention heads; they divide the width.
        dropout: Dropout of the embeddings and of every residual branch.
    """

    def __init__(
        self, vocab: int, context: int, width: int, layers: int, heads: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.context, self.dropout = context, dropout
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # Each branch adds to the residual: its share keeps the sum's size.
                branch = name.endswith(("attention_output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 * ((2 * layers) ** -0.5 if branch else 1))

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Logits ``[B, T, V]`` of a window ``[B, T]``, and no state: nothing is carried over."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight), None  # the head is the embedding


class GRU(Baseline):
    """Embedding, gated recurrent layers (Cho et al., 2014), head.

    Args:
        vocab: Number of tokens V.
        width: Width of the embedding and of every layer d.
        layers: Number of recurrent layers.
        dropout: Dropout of what goes into each layer, and into the head.
    """

    def __init__(self, vocab: int, width: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.tokens = nn.Embedding(vocab, width)
        self.layers = nn.GRU(
            width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.head = nn.Linear(width, vocab)

    def zero_state(self, batch: int = 1) -> Tensor:
        """The state of streams that have read nothing, ``[layers, B, d]``."""
        return torch.zeros(self.layers.num_layers, batch, self.layers.hidden_size)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits ``[B, T, V]`` of a chunk ``[B, T]``; the state after it, ``[layers, B, d]``."""
        x = F.dropout(self.tokens(tokens), self.dropout, self.training)
        x, state = self.layers(x, state)
        return self.head(F.dropout(x, self.dropout, self.training)), state


def matched_gpt(parameters: int, vocab: int, context: int, dropout: float = 0.1) -> GPT:
    """A :class:`GPT` with as many trained parameters as asked for, to 3 %.

    Of the depths that can be matched, the one whose width is nearest to 16 for each block:
    nanoGPT's recipes have 32 and 64, and the smaller a model is the better it is when deep.
    Heads are of 16 or somewhat more, as in the project's own model.

    Raises:
        ValueError: No shape is that near.
    """

    def build(width: int, layers: int) -> GPT:
        heads = max(n for n in range(1, 1 + max(1, width // 16)) if width % n == 0)
        return GPT(vocab, context, width, layers, heads, dropout)

    found = {}
    for layers in range(1, 13):
        # Of even width: an odd one would slow the matrix products.
        width = nearest_width(range(8, 1025, 2), parameters, lambda d, n=layers: build(d, n))
        if width is not None:
            found[layers] = width
    if not found:
        raise ValueError(f"no GPT with {vocab} tokens has about {parameters:,} parameters")
    layers = min(found, key=lambda n: max(found[n] / n / 16, 16 * n / found[n]))
    return build(found[layers], layers)


def matched_gru(parameters: int, vocab: int, dropout: float = 0.1) -> GRU:
    """A :class:`GRU` of two layers with as many trained parameters as asked for, to 3 %.

    Raises:
        ValueError: No width is that near.
    """
    width = nearest_width(range(4, 2049), parameters, lambda d: GRU(vocab, d, 2, dropout))
    if width is None:
        raise ValueError(f"no GRU with {vocab} tokens has about {parameters:,} parameters")
    return GRU(vocab, width, 2, dropout)


def nearest_width(widths: range, parameters: int, build: Callable[[int], Baseline]) -> int | None:
    """The width of the model with the nearest number of parameters; ``None`` if none is near."""

    def count(width: int) -> int:
        with torch.device("meta"):  # nothing is allocated
            return build(width).parameter_count()

    place = bisect_left(widths, parameters, key=count)
    width = min(widths[max(0, place - 1) : place + 1], key=lambda d: abs(count(d) - parameters))
    return width if abs(count(width) - parameters) <= _TOLERANCE * parameters else None


class BaselineTrainer:
    """Trains a baseline step by step, as :class:`rillet.train.DualCNNTrainer` trains ours.

    Args:
        model: The baseline; trained in place.
        text: The text to train on.
        config: How to train. What concerns the memory and the two CNNs is not used.

    Attributes:
        average: The moving average of the weights.

    Raises:
        ValueError: A chunk is longer than the context of the model.
    """

    def __init__(self, model: Baseline, text: Text, config: TrainingConfig) -> None:
        if isinstance(model, GPT) and config.chunk > model.context:
            raise ValueError(f"chunk is {config.chunk} and the GPT's context {model.context}")
        self.model, self.config, self.streams = model.train(), config, Streams(text, config)
        self.optimizer = make_optimizer(model, config)
        self.average = WeightAverage(model, config.average)
        self._state: Tensor | None = None
        torch.manual_seed(config.seed)  # of dropout

    def step(self, step: int) -> float:
        """One step of the optimiser; returns its loss in nats per token."""
        config, model = self.config, self.model
        device = model.tokens.weight.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        inputs, targets = self.streams.chunk(step, range(config.batch))
        if self._state is not None:
            # A random few streams start anew, as ours do.
            generator = torch.Generator().manual_seed(step_seed(config.seed, step))
            kept = torch.rand(config.batch, generator=generator) >= config.reset
            self._state = self._state.detach() * kept.to(device).view(1, -1, 1)
        dtype = autocast_dtype(config.precision, device)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits, self._state = model(inputs.to(device), self._state)
        target = targets.to(device).reshape(-1)
        loss = F.cross_entropy(logits.float().flatten(0, 1), target)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        self.optimizer.step()
        self.average.update(step)
        return float(loss.detach())


def train_baseline(
    model: Baseline,
    text: Text,
    config: TrainingConfig,
    on_look: Callable[[int, float, Baseline], object] | None = None,
    deadline_steps: int | None = None,
) -> Baseline:
    """Train a baseline as ours is trained.

    Args:
        model: The baseline; trained in place.
        text: The text to train on.
        config: How to train.
        on_look: Called every ``validate_every`` steps, and after the last, with the steps done,
            the seconds that they took, and the model with the averaged weights.
        deadline_steps: Stop after this step; the schedule stays that of ``config.steps``.

    Returns:
        A model with the averaged weights, in evaluation mode.
    """
    trainer, seconds = BaselineTrainer(model, text, config), 0.0
    last = min(config.steps, deadline_steps or config.steps)
    for step in range(last):
        start = time.perf_counter()
        trainer.step(step)
        seconds += time.perf_counter() - start
        if on_look is not None and ((step + 1) % config.validate_every == 0 or step + 1 == last):
            on_look(step + 1, seconds, trainer.average.model)
    return trainer.average.model


@torch.no_grad()
def held_out(model: Baseline, tokens: Tensor | Tokens) -> float:
    """Nats per token of a baseline on a text.

    The GRU reads it as one stream from zeros. The GPT reads windows of its context, each
    half a context after the one before, and is measured on the second half of each, so that
    every prediction but the first few sees at least half a context.

    Args:
        model: The baseline, in evaluation mode.
        tokens: The text, ``[length]``; each token but the first is predicted once.
    """
    text = Tokens.of(tokens)
    count = len(text) - 1
    device = model.tokens.weight.device
    total = torch.zeros((), dtype=torch.float64)
    state = None
    half = model.context // 2 if isinstance(model, GPT) else 0
    size, stride = (2 * half, half) if half else (1024, 1024)
    starts = torch.arange(0, max(1, count - half), stride)
    for some in starts.split(32 if half else 1):
        # Past the end the text begins again: those predictions are not counted.
        window = text.windows(some, size + 1).to(device)
        logits, state = model(window[:, :-1], state)
        losses = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].reshape(-1), reduction="none")
        offsets = torch.arange(size)
        scored = (offsets >= half) | (some == 0).unsqueeze(1)
        scored = scored & (some.unsqueeze(1) + offsets < count)
        total += losses.double().cpu()[scored.reshape(-1)].sum()
    return float(total / count)
