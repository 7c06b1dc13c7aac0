"""Tokens that the library draws: many for one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import Drawing, EngineState
from ..checks import check_finite, own_state
from .library import NOT_FINITE, block
from .state import NativeState, row_addresses

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

    def write_rows(
        self,
        states: Sequence[EngineState],
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        learn: npt.NDArray[Any],
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Draw tokens for many streams and read them; see :meth:`.RowWriter.write_rows`."""
        own = [own_state(state, NativeState) for state in states]
        model, rows = own[0].model, len(own)
        outputs = np.array(logits, np.float32, order="C")
        numbers = np.ascontiguousarray(uniforms, np.float64)
        learns = np.ascontiguousarray(learn, np.float32)
        tokens, logprobs = np.empty(numbers.shape, np.int32), np.empty(numbers.shape, np.float32)
        addresses = np.asarray([state.address(0) for state in own], np.uint64)
        places, scratch = row_addresses(outputs), block(model.scratch_size(rows))
        sampling, written = Sampling.of(how, outputs.shape[1]), ctypes.c_size_t()
        status = model.library.rillet_generate(
            *(model.address, rows, len(numbers), addresses.ctypes.data, places.ctypes.data),
            *(ctypes.addressof(sampling), numbers.ctypes.data, None, learns.ctypes.data, -1),
            *(tokens.ctypes.data, logprobs.ctypes.data, ctypes.addressof(written)),
            scratch.ctypes.data,
        )
        # The tokens that led to a prediction that is not finite were read.
        count = written.value + (status == NOT_FINITE)
        return tokens[:count], logprobs[:count], outputs
