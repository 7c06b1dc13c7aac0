"""Choose a configuration from a corpus and a budget, and say why."""

from __future__ import annotations

import dataclasses
import re
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from ..runtime.errors import UsageError
from .config.model_config import DualCNNConfig
from .config.presets import PRESETS
from .data.corpus import Corpus
from .data.streams import Streams, Text
from .data.token_file import Tokens
from .data.tokenizers import MAX_CHARACTERS
from .loop.batch_step import BatchStep
from .loop.distributed import Group
from .model.dual_cnn import DualCNN
from .model.precision import autocast_dtype

__all__ = ["Budget", "infer", "seconds_per_step"]

_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_BYTES = {"kb": 1e3, "mb": 1e6, "gb": 1e9}

_MAX_EPOCHS = 25
"""The presets were tuned over some twenty epochs."""

_MIN_STEPS = 400
"""A larger preset is preferred only if the time allows as many steps as the ablation ran."""

_MIN_TOKENS = {"micro": 500_000, "small": 5_000_000}
"""Tokens from which a larger preset has enough to learn from."""

_REPETITIVE = 5
"""Compression ratio above which a text counts as repetitive."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits set by the user.

    Attributes:
        seconds: Training time; ``None`` for no limit.
        size: Size of the weights in bytes; ``None`` for no limit.
    """

    seconds: float | None = None
    size: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Budget:
        """Parse ``30min``, ``2h``, ``500kB``, ``2MB``, or a time and a size with a comma.

        Raises:
            UsageError: The text is none of these.
        """
        limits: dict[str, float] = {}
        for part in (text or "").replace(" ", "").lower().split(","):
            if not part:
                continue
            match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", part)
            number, unit = (float(match[1]), match[2]) if match else (0.0, "")
            if unit in _SECONDS and number > 0:
                limits["seconds"] = number * _SECONDS[unit]
            elif unit in _BYTES and number > 0:
                limits["size"] = number * _BYTES[unit]
            else:
                raise UsageError(
                    f"the budget is {text!r}; give a time or a size, such as 30min or 2MB"
                )
        return cls(**limits)


def infer(
    corpus: str | Path | Sequence[str | Path] | Corpus, budget: str | Budget | None = None
) -> DualCNNConfig:
    """Choose tokenizer, model size, chunk length, batch, steps and memory for a corpus.

    Args:
        corpus: The text.
        budget: The time or size allowed, such as ``30min`` or ``2MB``.

    Returns:
        A configuration; its ``reasons`` explain every choice.

    Raises:
        CorpusError: The text cannot be used.
        UsageError: The budget cannot be parsed, or is too small for any model.
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    facts = corpus.scan()
    symbols = len(facts.symbols)
    reasons = []
    plain = symbols <= MAX_CHARACTERS and not corpus.any_bytes
    tokenizer, vocab = ("char", symbols) if plain else ("byte", 256)
    reasons.append(
        "tokenizer=byte: as asked for; bytes can represent any text"
        if corpus.any_bytes
        else f"tokenizer={tokenizer}: the text has {symbols:,} distinct characters"
        + ("" if plain else f", more than {MAX_CHARACTERS}; bytes can represent any text")
    )
    tokens = facts.characters if plain else corpus.size
    chunk = 256 if tokens >= 50_000 else 64
    batch = max(1, min(32, tokens // (4 * chunk)))
    reasons.append(
        f"chunk={chunk}, batch={batch}: {tokens:,} tokens give each stream {tokens // batch:,}"
    )
    shape: dict[str, str | int] = {
        "tokenizer": tokenizer,
        "vocab_size": vocab,
        "chunk": chunk,
        "batch": batch,
    }
    config, why = _choose_preset(tokens, limits, shape)
    reasons.append(why)
    repetition = _compression_ratio(corpus)
    if repetition > _REPETITIVE:
        config = config.replace(memory=min(4096, 2 * config.memory))
        reasons.append(
            f"memory={config.memory}: the text is repetitive (it compresses to "
            f"1/{repetition:.1f}), so looking further back pays off"
        )
    else:
        reasons.append(
            f"memory={config.memory}: the text compresses to 1/{repetition:.1f}, as prose does"
        )
    return dataclasses.replace(config, reasons=tuple(reasons))


DualCNNConfig.infer = staticmethod(infer)  # attached here: the configuration imports no model


def seconds_per_step(config: DualCNNConfig, steps: int = 2) -> float:
    """Measure the time of a training step on this machine, with random tokens.

    Args:
        config: The configuration to train.
        steps: Steps to average over, after one warm-up step.

    Returns:
        Seconds per step.
    """
    model = DualCNN(config)
    model.autocast = autocast_dtype(config.training.precision, torch.device("cpu"))
    model.train()
    length = config.training.batch * config.training.chunk * 2
    tokens = torch.randint(
        0, config.vocab_size, (length,), generator=torch.Generator().manual_seed(0)
    )
    streams = Streams(Text(Tokens.of(tokens)), config.training)
    batch = BatchStep(model, config.training, Group(), streams, None, lambda note: None)
    batch.backward(0)  # warm-up: the first step is slower
    start = time.monotonic()
    for step in range(steps):
        batch.backward(step)
    return (time.monotonic() - start) / steps


def _choose_preset(
    tokens: int, limits: Budget, shape: dict[str, str | int]
) -> tuple[DualCNNConfig, str]:
    """Choose the largest preset that corpus and budget allow, its steps, and the reason."""
    chosen: DualCNNConfig | None = None
    why = ""
    for name, preset in PRESETS.items():
        config = preset.replace(**_fit_windows(preset, shape))
        parameters = DualCNN(config).parameter_count()
        needed = _MIN_TOKENS.get(name, 0)
        if chosen is not None and tokens < needed:
            why += f"; {name} needs {needed:,} tokens"
            break
        if limits.size is not None and 4 * parameters > limits.size:
            why += f"; {name} has {4 * parameters / 1e6:.1f} MB of weights"
            break
        chunk, batch = config.training.chunk, config.training.batch
        steps = min(config.training.steps, max(_MIN_STEPS, _MAX_EPOCHS * tokens // (chunk * batch)))
        timed = ""
        if limits.seconds is not None:
            each = seconds_per_step(config)
            allowed = int(0.9 * limits.seconds / each)
            if allowed < _MIN_STEPS and chosen is not None:
                why += f"; {name} would get only {allowed} steps in the time allowed"
                break
            steps = max(1, min(steps, allowed))
            timed = f" of {each * 1000:.0f} ms, measured"
        chosen = config.replace(steps=steps, validate_every=max(1, min(200, steps // 4)))
        why = f"{name} with {parameters:,} trained parameters, {steps:,} steps{timed}"
    if chosen is None:
        raise UsageError(f"no preset fits the budget{why}; raise the budget")
    return chosen, why


def _fit_windows(preset: DualCNNConfig, shape: dict[str, str | int]) -> dict[str, str | int]:
    """The shape of the text, with windows no longer than its chunks."""
    chunk = int(shape["chunk"])
    windows = {
        name: min(chunk, getattr(preset, name)) for name in ("attention_window", "wave_window")
    }
    return {**shape, **windows}


def _compression_ratio(corpus: Corpus) -> float:
    """How well the beginning of the text compresses: 2 to 3 for prose, 5 and more for logs."""
    sample = "".join(islice(corpus.blocks(), 1))[:500_000]
    # Numbered by frequency, since an alphabet of two or three bytes a letter would compress better.
    frequent = Counter(sample).most_common()
    numbers = {ord(character): number for number, (character, _) in enumerate(frequent)}
    data = sample.translate(numbers).encode("utf-8", "surrogatepass")
    return len(data) / max(1, len(zlib.compress(data, 6)))
