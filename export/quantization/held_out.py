"""The text that a lowered precision is measured on, and its loss there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle import Bundle
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...runtime.errors import CorpusError, UsageError
from ...runtime.files import sha256_bytes
from ...runtime.tokenizer import Tokenizer
from ..parity.gate import gate_tokens

__all__ = ["CALIBRATION", "TOKENS", "MeasuredText", "check_limit", "measured_text"]
__all__ += ["prefill_loss", "step_loss"]

TOKENS = 20_000
"""Tokens that are measured by default: some seconds, where a whole held-out text takes longer."""

CALIBRATION = 4_096
"""Tokens that give the ranges of static quantisation; none of them is measured."""

_CHUNK = 256
_LEAST = 64


@dataclass(frozen=True)
class MeasuredText:
    """What is read to measure, and what before it to calibrate.

    Attributes:
        name: The file's name, or what the text is.
        sha256: Hash of the text as UTF-8.
        part: Which part of it is measured, in words.
        calibration: Tokens ``[1, C]``.
        tokens: Tokens ``[1, T]`` to measure.
    """

    name: str
    sha256: str
    part: str
    calibration: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]


def measured_text(
    bundle: Bundle, tokenizer: Tokenizer, file: str | Path | None, limit: int | None
) -> MeasuredText:
    """Choose what to measure.

    Of the corpus that the model was trained on, the part that training held out; of any other
    text, all but the beginning, which calibrates. Without a text, the one that every Python
    brings along.

    Args:
        bundle: The bundle; tells what it was trained on.
        tokenizer: Its tokenizer.
        file: A UTF-8 text; ``None`` for the one that is always there.
        limit: Tokens to measure at most; ``None`` for all.

    Raises:
        CorpusError: The file cannot be read, or is too short.
    """
    if file is None:
        length = CALIBRATION + TOKENS + 1
        numbers = gate_tokens(tokenizer, length)[0]
        digest = sha256_bytes(numbers.astype("<i8").tobytes())
        return _parts("Python's reference texts", digest, numbers, None, limit)
    path = Path(file)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as UTF-8 text ({error}); give another") from error
    numbers = np.asarray(tokenizer.encode(text), np.int64)
    digest = sha256_bytes(text.encode())
    training: Any = bundle.manifest.get("training")
    held_out = None
    if isinstance(training, dict) and training.get("corpus_sha256") == digest:
        held_out = int(len(numbers) * float(training.get("config", {}).get("held_out", 0)))
    return _parts(path.name, digest, numbers, held_out, limit)


def _parts(
    name: str,
    digest: str,
    numbers: npt.NDArray[np.int64],
    held_out: int | None,
    limit: int | None,
) -> MeasuredText:
    if held_out and held_out > _LEAST:
        start, part = len(numbers) - held_out, "the part that training held out"
    else:
        start, part = min(CALIBRATION, len(numbers) // 4), "all but the calibrating beginning"
    measured = numbers[start:]
    if len(measured) < _LEAST:
        raise CorpusError(
            f"{name} has {len(numbers)} tokens, which is too short to measure a loss; give a text "
            f"of at least {2 * _LEAST}"
        )
    if limit is not None and len(measured) > limit + 1:
        measured, part = measured[: limit + 1], f"the beginning of {part}"
    before = numbers[max(0, start - CALIBRATION) : start]
    return MeasuredText(name, digest, part, before[None], measured[None])


def prefill_loss(
    engine: OnnxEngine,
    tokens: npt.NDArray[np.int64],
    progress: Callable[[int], object] | None = None,
) -> float:
    """Nats per token of a stream ``[1, T]`` read from its beginning in chunks."""
    state, nats, inputs = engine.zero_state(), 0.0, tokens[:, :-1]
    for start in range(0, inputs.shape[1], _CHUNK):
        chunk = inputs[:, start : start + _CHUNK]
        logits = engine.prefill(chunk, state)[0]
        targets = tokens[0, start + 1 : start + 1 + chunk.shape[1]]
        nats -= float(logits[np.arange(len(targets)), targets].sum(dtype=np.float64))
        if progress is not None:
            progress(chunk.shape[1])
    return nats / int(inputs.shape[1])


def step_loss(
    engine: OnnxEngine,
    tokens: npt.NDArray[np.int64],
    progress: Callable[[int], object] | None = None,
) -> float:
    """Nats per token of a stream ``[1, T]`` read from its beginning step by step."""
    state, nats, count = engine.zero_state(), 0.0, int(tokens.shape[1]) - 1
    for place in range(count):
        logits = engine.step(tokens[:, place], state)
        nats -= float(logits[0, tokens[0, place + 1]])
        if progress is not None and place % _CHUNK == _CHUNK - 1:
            progress(_CHUNK)
    if progress is not None:
        progress(count % _CHUNK)
    return nats / count


def check_limit(limit: int | None) -> None:
    """Refuse a number of tokens that cannot be measured."""
    if limit is not None and (type(limit) is not int or limit < _LEAST):
        raise UsageError(f"tokens is {limit!r}; give a whole number, {_LEAST} or above")
