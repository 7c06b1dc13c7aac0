"""Choosing a configuration from what a corpus is and what the user allows, with reasons."""

from __future__ import annotations

import dataclasses
import re
import time
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from ...runtime.errors import UsageError
from ..data.corpus import Corpus
from ..data.streams import Streams, Text
from ..data.token_file import Tokens
from ..data.tokenizers import MOST_CHARACTERS
from ..loop.batch_step import BatchStep
from ..loop.distributed import Group
from ..model.dual_cnn import DualCNN
from ..model.precision import autocast_dtype
from .model_config import DualCNNConfig
from .presets import PRESETS

__all__ = ["Budget", "infer", "seconds_per_step"]

_TIME = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_SIZE = {"kb": 1e3, "mb": 1e6, "gb": 1e9}
_EPOCHS = 25
"""Readings of a text at most: the presets were trained for some twenty."""
_LEAST_STEPS = 400
"""Steps that a larger preset must get to be preferred: as many as the ablation's."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a user allows.

    Attributes:
        seconds: Of training; ``None`` without a limit.
        size: Bytes of the weights; ``None`` without a limit.
    """

    seconds: float | None = None
    size: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Budget:
        """Read ``30min``, ``2h``, ``500kB``, ``2MB``, or a time and a size with a comma.

        Raises:
            UsageError: It is none of these.
        """
        limits: dict[str, float] = {}
        for part in (text or "").replace(" ", "").lower().split(","):
            if not part:
                continue
            found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", part)
            number, unit = (float(found[1]), found[2]) if found else (0.0, "")
            if unit in _TIME and number > 0:
                limits["seconds"] = number * _TIME[unit]
            elif unit in _SIZE and number > 0:
                limits["size"] = number * _SIZE[unit]
            else:
                raise UsageError(f"the budget is {text!r}; give a time or a size, as 30min or 2MB")
        return cls(**limits)


def infer(
    corpus: str | Path | Sequence[str | Path] | Corpus, budget: str | Budget | None = None
) -> DualCNNConfig:
    """Choose tokenizer, sizes, lengths and batch for a corpus.

    Args:
        corpus: The text.
        budget: The time or the size allowed, such as ``30min`` or ``2MB``.

    Returns:
        A configuration; its ``reasons`` explain each choice.

    Raises:
        CorpusError: The text cannot be used.
        UsageError: The budget cannot be read, or is too small for any model.
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    facts = corpus.scan()
    symbols = len(facts.symbols)
    reasons = []
    plain = symbols <= MOST_CHARACTERS
    tokenizer, vocab = ("char", symbols) if plain else ("byte", 256)
    reasons.append(
        f"tokenizer={tokenizer}: the text has {symbols:,} distinct characters"
        + ("" if plain else f", more than {MOST_CHARACTERS}; with bytes nothing is ever unknown")
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
    config = _size(tokens, limits, shape, reasons)
    repetition = _repetition(corpus)
    if repetition > 5:
        config = config.replace(memory=min(4096, 2 * config.memory))
        reasons.append(
            f"memory={config.memory}: the text repeats itself (it packs to 1/{repetition:.1f}), so "
            "that looking further back pays"
        )
    else:
        reasons.append(
            f"memory={config.memory}: the text packs to 1/{repetition:.1f}, as prose does"
        )
    return dataclasses.replace(config, reasons=tuple(reasons))


def seconds_per_step(config: DualCNNConfig, steps: int = 2) -> float:
    """Time of a training step on this machine, measured on random tokens."""
    model = DualCNN(config)
    model.autocast = autocast_dtype(config.training.precision, torch.device("cpu"))
    model.train()
    length = config.training.batch * config.training.chunk * 2
    drawn = torch.randint(
        0, config.vocab_size, (length,), generator=torch.Generator().manual_seed(0)
    )
    streams = Streams(Text(Tokens.of(drawn)), config.training)
    batch = BatchStep(model, config.training, Group(), streams, None, lambda note: None)
    batch.backward(0)  # the first step is slower
    start = time.monotonic()
    for step in range(steps):
        batch.backward(step)
    return (time.monotonic() - start) / steps


def _size(
    tokens: int, limits: Budget, shape: dict[str, str | int], reasons: list[str]
) -> DualCNNConfig:
    """The largest preset that the corpus feeds and the budget allows, and its steps."""
    fitting: DualCNNConfig | None = None
    why = ""
    for name, preset in PRESETS.items():
        config = preset.replace(**_narrow(preset, shape))
        parameters = DualCNN(config).parameter_count()
        wanted = _FED.get(name, 0)
        if fitting is not None and tokens < wanted:
            why += f"; {name} wants {wanted:,} tokens"
            break
        if limits.size is not None and 4 * parameters > limits.size:
            why += f"; {name} has {4 * parameters / 1e6:.1f} MB of weights"
            break
        chunk, batch = config.training.chunk, config.training.batch
        steps = min(config.training.steps, max(_LEAST_STEPS, _EPOCHS * tokens // (chunk * batch)))
        timed = ""
        if limits.seconds is not None:
            each = seconds_per_step(config)
            allowed = int(0.9 * limits.seconds / each)
            if allowed < _LEAST_STEPS and fitting is not None:
                why += f"; {name} would get {allowed} steps in the time allowed"
                break
            steps = max(1, min(steps, allowed))
            timed = f" of {each * 1000:.0f} ms, measured"
        fitting = config.replace(steps=steps, validate_every=max(1, min(200, steps // 4)))
        why = f"{name} with {parameters:,} trained parameters, {steps:,} steps{timed}"
    if fitting is None:
        raise UsageError(f"no preset fits the budget{why}; allow more")
    reasons.append(why)
    return fitting


_FED = {"micro": 500_000, "small": 5_000_000}
"""Tokens from which a larger preset has enough to learn from."""


def _narrow(preset: DualCNNConfig, shape: dict[str, str | int]) -> dict[str, str | int]:
    """The shape of the text, and windows that are no longer than its chunks."""
    chunk = int(shape["chunk"])
    windows = {
        name: min(chunk, getattr(preset, name)) for name in ("attention_window", "wave_window")
    }
    return {**shape, **windows}


def _repetition(corpus: Corpus) -> float:
    """How many times smaller the text's beginning packs: prose 2 to 3, logs 5 and more."""
    sample = "".join(islice(corpus.blocks(), 1)).encode("utf-8", "replace")[:500_000]
    return len(sample) / max(1, len(zlib.compress(sample, 6)))
