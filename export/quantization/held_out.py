"""The text on which a lowered precision is calibrated and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle import Bundle
from ...runtime.errors import CorpusError
from ...runtime.files import as_path, sha256_bytes
from ...runtime.text_sample import TextSample
from ...runtime.tokenizer import Tokenizer, text_bytes
from ..parity.engines import measuring_engine
from ..parity.texts import real_text
from .drift import EngineAsModel

__all__ = ["FEWEST_TOKENS", "TOKENS", "MeasuredText", "measured_text"]

TOKENS = 20_000
"""Tokens measured by default: some seconds; a whole held-out text takes longer."""

FEWEST_TOKENS = 64
"""Fewest tokens that give a meaningful loss."""

_CALIBRATION = 4_096
"""Tokens that give the ranges of static quantisation; they are not measured."""


@dataclass(frozen=True)
class MeasuredText:
    """The tokens to measure, and the tokens before them to calibrate on.

    Attributes:
        name: The file's name, or a description of the text.
        sha256: Hash of the text as UTF-8.
        part: Description of the measured part.
        calibration: Tokens ``[1, C]``.
        tokens: Tokens ``[1, T]`` to measure.
    """

    name: str
    sha256: str
    part: str
    calibration: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]


def measured_text(
    bundle: Bundle,
    tokenizer: Tokenizer,
    file: str | Path | None,
    limit: int | None,
    sample: TextSample | None = None,
) -> MeasuredText:
    """Choose the tokens to measure and to calibrate on.

    Of the corpus that the model was trained on, measure the part that training held out. Of any
    other text, calibrate on the beginning and measure the rest.

    Args:
        bundle: The bundle, whose manifest identifies the training corpus.
        tokenizer: Its tokenizer.
        file: A text, UTF-8 unless the tokenizer reads any bytes; by default the sample of the run's
            text, or what :func:`.texts.real_text` chooses without one.
        limit: Most tokens to measure; ``None`` for all.
        sample: The sample, if the bundle does not carry it.

    Raises:
        CorpusError: The file cannot be read or is too short.
    """
    if file is None:
        model = EngineAsModel(measuring_engine(bundle))
        count = _CALIBRATION + TOKENS + 1
        kept = sample or bundle.text_sample()
        chosen = real_text(kept, tokenizer, model, count, 2 * FEWEST_TOKENS)
        digest = sha256_bytes(chosen.tokens.astype("<i8").tobytes())
        return _split(chosen.description, digest, chosen.tokens, None, limit)
    path = as_path(file)
    try:
        errors = "surrogateescape" if tokenizer.reads_any_bytes else "strict"
        text = path.read_bytes().decode("utf-8", errors)
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path} cannot be read as UTF-8 text ({error}); give another file"
        ) from error
    tokens = np.asarray(tokenizer.encode(text), np.int64)
    digest = sha256_bytes(text_bytes(text))
    training: Any = bundle.manifest.get("training")
    held_out = None
    if not isinstance(training, dict):
        training = {}
    # With a separate validation text, the whole corpus was trained on.
    if training.get("corpus_sha256") == digest and "validation_sha256" not in training:
        held_out = int(len(tokens) * float(training.get("config", {}).get("held_out", 0)))
    return _split(path.name, digest, tokens, held_out, limit)


def _split(
    name: str,
    digest: str,
    tokens: npt.NDArray[np.int64],
    held_out: int | None,
    limit: int | None,
) -> MeasuredText:
    if held_out and held_out > FEWEST_TOKENS:
        start, part = len(tokens) - held_out, "the part that training held out"
    else:
        start, part = min(_CALIBRATION, len(tokens) // 4), "all but the calibrating beginning"
    measured = tokens[start:]
    if len(measured) < FEWEST_TOKENS:
        raise CorpusError(
            f"{name} has {len(tokens)} tokens, too few to measure a loss; give a text of at least "
            f"{2 * FEWEST_TOKENS} tokens"
        )
    if limit is not None and len(measured) > limit + 1:
        measured, part = measured[: limit + 1], f"the beginning of {part}"
    before = tokens[max(0, start - _CALIBRATION) : start]
    return MeasuredText(name, digest, part, before[None], measured[None])
