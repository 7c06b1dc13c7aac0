"""A bundle's check of itself, with nothing but the engine: no PyTorch on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import BundleError, ParityError
from .model import Model
from .sampler import Sampler, SamplingParams

__all__ = ["SELF_TOLERANCE", "verify_golden"]

SELF_TOLERANCE = {"fp32": 1e-3}
"""Largest |difference| of a log-probability from PyTorch's, by precision. Another
processor rounds otherwise than the one that the bundle was made on, so that this is wider
than the exporter's gate."""


def verify_golden(model: Model) -> dict[str, float]:
    """Repeat what PyTorch generated when the bundle was made.

    The prompt is read twice, by the prefill graph and step by step; both must give the
    recorded log-probabilities, and greedy decoding the recorded tokens.

    Args:
        model: A loaded bundle.

    Returns:
        The largest |difference| of a log-probability, for each graph.

    Raises:
        BundleError: The bundle has no golden record.
        ParityError: The engine gives something else.
    """
    prompt, wanted, greedy = _record(model)
    tolerance = SELF_TOLERANCE[str(model.bundle.manifest.get("precision"))]
    deltas: dict[str, float] = {}
    for graph in ("prefill", "decode"):
        session = model.session()
        if graph == "prefill":
            session.feed_tokens(prompt)
        else:
            for token in prompt:
                session.feed_tokens([token])
        logits = session.logits
        assert logits is not None
        delta = max(abs(float(logits[token]) - value) for token, value in wanted.items())
        if not delta <= tolerance:
            raise ParityError(
                f"the {graph} graph gives log-probabilities that differ by {delta:.1e} from "
                f"PyTorch's record, and {tolerance:.0e} is allowed"
            )
        deltas[graph] = delta
        found = list(session.stream_tokens(Sampler(SamplingParams(temperature=0)), len(greedy)))
        same = int(np.argmin(np.append(np.equal(found, greedy), False)))
        if same < len(greedy):
            raise ParityError(
                f"after the {graph} graph read the prompt, greedy decoding gives another token "
                f"than PyTorch at step {same + 1} of {len(greedy)}"
            )
    return deltas


def _record(model: Model) -> tuple[list[int], dict[int, float], list[int]]:
    golden: Any = model.bundle.manifest.get("golden")
    try:
        prompt = [int(token) for token in golden["prompt"]]
        greedy = [int(token) for token in golden["greedy"]]
        wanted = {int(key): float(v) for key, v in golden["logits_after_prompt"].items()}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleError(f"{model.bundle.path} has no golden record; export it again") from error
    if not prompt or not wanted or not all(0 <= token < model.vocab_size for token in wanted):
        raise BundleError(f"{model.bundle.path} has no golden record; export it again")
    return prompt, wanted, greedy
