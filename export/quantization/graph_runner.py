"""Run a graph that is not part of a bundle over a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.engines.ort.providers import create_session
from ...runtime.state_table import StateTensor

__all__ = ["stream_graph"]


def stream_graph(
    model: onnx.ModelProto,
    tokens: npt.NDArray[np.int64],
    state: Sequence[StateTensor],
    chunk: int,
    names: Sequence[str],
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """Read tokens from the zero state on one thread, in chunks, or one by one if T is 1.

    Args:
        model: A step graph or a prefill graph.
        tokens: ``[B, T]``.
        state: The state table.
        chunk: Tokens per call of a prefill graph.
        names: Outputs to return in addition to the state.

    Yields:
        The position of each call's first token, and the call's inputs, requested outputs and new
        state by name.
    """
    session: Any = create_session(model.SerializeToString(), "cpu", 1)
    shape = next(e for e in model.graph.input if e.name == "input_ids").type.tensor_type.shape
    length = chunk if shape.dim[1].dim_param else 1
    feeds: dict[str, npt.NDArray[Any]] = {row.past: row.zeros(len(tokens)) for row in state}
    feeds["learn"] = np.ones(len(tokens), np.float32)
    fetched = [*(row.present for row in state), *names]
    for start in range(0, tokens.shape[1], length):
        feeds["input_ids"] = tokens[:, start : start + length]
        outputs = dict(zip(fetched, session.run(fetched, feeds), strict=True))
        yield start, {**feeds, **outputs}
        feeds |= {row.past: outputs[row.present] for row in state}
