"""The engine on the C library of our own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle import WEIGHTS_FILE, Bundle
from ...errors import EngineError
from ..base import EngineState, Learn, TokenGenerator
from ..checks import check_finite, check_tokens, own_state
from .drawing import NativeGenerator
from .library import NOT_FINITE, block
from .packed_model import PackedModel
from .state import NativeState

__all__ = ["NativeEngine"]

_ROWS = 512
"""Rows per call of a prefill: the addresses of a row take 24 bytes."""


class NativeEngine:
    """Runs a bundle's weights on the C library; a step allocates nothing.

    Args:
        bundle: The bundle.

    Raises:
        EngineError: The bundle holds no weights, or none that the library can run, or this
            installation has no library.
        BundleError: The file was replaced since the bundle was opened.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        if WEIGHTS_FILE not in bundle.hashes():
            precision = bundle.manifest.get("precision")
            advice = {
                "fp32": "export the model again to add them",
                "int8": "export the model again with precision int8 to add them",
            }.get(str(precision), f"it is in {precision}, which only its graphs hold")
            raise EngineError(f"{bundle.path} lacks the weights for the native engine; {advice}")
        self.model = PackedModel(bundle.checked_file(WEIGHTS_FILE))
        self.state_table = bundle.state
        self.vocab_size = bundle.vocab_size
        if self.model.state_table != bundle.state or self.model.vocab_size != self.vocab_size:
            raise EngineError(
                f"{bundle.path}: the weights for the native engine are of another model than the "
                "graphs; export the model again"
            )

    @property
    def last_logits(self) -> bool:
        """Whether a prefill predicts after its last token only: never."""
        return False

    @property
    def independent_rows(self) -> bool:
        """Whether a row gives what it gives alone: always, to the bit."""
        return True

    @property
    def provider(self) -> str:
        """What computes."""
        return "native"

    @property
    def version(self) -> str:
        """Name of the library and the instruction set it uses."""
        return f"native {self.model.kernels}"

    @property
    def threads(self) -> int:
        """Threads that one call uses."""
        return 1

    def zero_state(self, batch: int = 1) -> NativeState:
        """Return the state at the start of a stream: zeros."""
        return NativeState(self.model, batch)

    def step(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token per row; see :meth:`.Engine.step`."""
        state = own_state(state, NativeState)
        check_tokens(tokens, self.vocab_size)
        undo = state.undo_point()
        status, logits = state.advance(tokens, learn)
        if status == NOT_FINITE:
            undo()
            check_finite(logits)
        return logits

    def prefill(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]``; see :meth:`.Engine.prefill`."""
        state = own_state(state, NativeState)
        check_tokens(tokens, self.vocab_size)
        batch, length = tokens.shape
        logits = np.empty((batch, 1 if last else length, self.vocab_size), np.float32)
        learns = np.broadcast_to(np.asarray(learn, np.float32), (batch,))
        undo = state.whole_undo_point()
        try:
            for row in range(batch):
                for start in range(0, length, _ROWS):
                    part = tokens[row, start : start + _ROWS]
                    ends = start + len(part) == length
                    out = logits[row, start : start + _ROWS] if not last else logits[row]
                    self._read(part, state, row, float(learns[row]), out, last, ends)
            check_finite(logits)
        except BaseException:
            undo()
            raise
        return logits

    def _read(
        self,
        tokens: npt.NDArray[Any],
        state: NativeState,
        row: int,
        learn: float,
        out: npt.NDArray[np.float32],
        last: bool,
        ends: bool,
    ) -> None:
        """Read tokens of one row; predictions of all, or of the last if it ends the text."""
        count = len(tokens)
        addresses = np.zeros(count, np.uint64)
        if not last:
            addresses[:] = out.ctypes.data + np.arange(count) * out[0].nbytes
        elif ends:
            addresses[-1] = out.ctypes.data
        pointers = np.full(count, state.address(row), np.uint64)
        ids, learns = np.asarray(tokens, np.int32), np.full(count, learn, np.float32)
        scratch = block(self.model.scratch_size(count))
        self.model.library.rillet_read(
            self.model.address,
            count,
            *(array.ctypes.data for array in (pointers, ids, learns, addresses, scratch)),
        )

    def generator(self) -> TokenGenerator | None:
        """Return what draws tokens in the library."""
        return NativeGenerator()

    def close(self) -> None:
        """Release nothing: the weights go with the engine and its last stream."""
