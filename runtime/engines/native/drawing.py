"""Tokens that the library draws: many for one call."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import Drawing, EngineState
from ..checks import check_finite, own_state
from .state import NativeState

__all__ = ["NativeGenerator", "Sampling"]


class Sampling(ctypes.Structure):
    """``rillet_sampling``."""

    _fields_ = (
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("top_k", ctypes.c_int32),
    )

    @classmethod
    def of(cls, how: Drawing, vocab_size: int) -> Sampling:
        """What the library takes; a top-k beyond the vocabulary keeps all."""
        return cls(how.temperature, how.top_p, how.min_p, min(how.top_k, vocab_size))


class NativeGenerator:
    """Draws as the host's sampler does, and reads as single steps do, to the bit."""

    @property
    def knows_min_p(self) -> bool:
        """Whether :meth:`generate` takes ``min_p``: always."""
        return True

    def generate(
        self,
        state: EngineState,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        *,
        end_token: int = -1,
        learn: float = 0.0,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Draw tokens and read them; see :meth:`.TokenGenerator.generate`."""
        own = own_state(state, NativeState)
        sampling = Sampling.of(how, logits.shape[-1])
        undo = own.whole_undo_point()
        try:
            tokens, _, last = own.generate(logits, sampling, uniforms.T, learn, end_token)
            check_finite(last)
        except BaseException:
            undo()
            raise
        return tokens.T.astype(np.int64), last

    def draft(
        self,
        state: EngineState,
        source: EngineState,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        learn: float,
    ) -> tuple[list[int], list[float], npt.NDArray[Any]]:
        """Draw tokens on a copy of a stream; see :meth:`.Drafter.draft`."""
        own = own_state(state, NativeState)
        own.copy_row(0, source, 0)
        sampling = Sampling.of(how, len(logits))
        tokens, logprobs, last = own.generate(logits, sampling, uniforms[:, None], learn)
        check_finite(last)
        return tokens[:, 0].tolist(), logprobs[:, 0].tolist(), last[0]
