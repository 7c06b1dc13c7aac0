"""Driving a graph that is not in a bundle yet through a stream of tokens."""

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
    """Read tokens from zeros on one thread, in chunks, or one by one where T is 1.

    Args:
        model: A step graph or a prefill graph.
        tokens: ``[B, T]``.
        state: The state table.
        chunk: Tokens a call of a prefill graph.
        names: Outputs to give out beside the state.

    Yields:
        The place of each call's first token; and by name what was asked for, the inputs, and
        the state after the call.
    """
    session: Any = create_session(model.SerializeToString(), "cpu", 1)
    shape = next(e for e in model.graph.input if e.name == "input_ids").type.tensor_type.shape
    length = chunk if shape.dim[1].dim_param else 1
    feeds: dict[str, npt.NDArray[Any]] = {row.past: row.zeros(len(tokens)) for row in state}
    feeds["learn"] = np.ones(len(tokens), np.float32)
    wanted = [*(row.present for row in state), *names]
    for start in range(0, tokens.shape[1], length):
        feeds["input_ids"] = tokens[:, start : start + length]
        found = dict(zip(wanted, session.run(wanted, feeds), strict=True))
        yield start, {**feeds, **found}
        feeds |= {row.past: found[row.present] for row in state}
