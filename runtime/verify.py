"""A bundle's check of itself, with nothing but the engine: no PyTorch on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import BundleError, ParityError
from .model import Model

__all__ = ["SELF_TOLERANCE", "verify_golden"]

SELF_TOLERANCE = {"fp32": 1e-3}
"""Largest |difference| of a log-probability from PyTorch's, by precision. Another
processor rounds otherwise than the one that the bundle was made on, so that this is wider
than the exporter's gate."""


def verify_golden(model: Model) -> dict[str, float]:
    """Repeat what PyTorch generated when the bundle was made.

    The prompt is read twice, by the prefill graph and step by step; both must give the
    recorded log-probabilities, and after both, greedy decoding the recorded tokens.

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
    engine = model.engine
    deltas: dict[str, float] = {}
    for graph in ("prefill", "decode"):
        state = engine.zero_state()
        if graph == "prefill":
            logits = engine.prefill(np.asarray([prompt]), state)[0, -1]
        else:
            for token in prompt:
                logits = engine.step(np.asarray([token]), state)[0]
        delta = max(abs(float(logits[token]) - value) for token, value in wanted.items())
        if not delta <= tolerance:
            raise ParityError(
                f"the {graph} graph gives log-probabilities that differ by {delta:.1e} from "
                f"PyTorch's record, and {tolerance:.0e} is allowed"
            )
        deltas[graph] = delta
        for step, token in enumerate(greedy):
            # Where the two likeliest lie closer than the tolerance, either counts.
            if not logits.max() - logits[token] <= tolerance:
                raise ParityError(
                    f"after the {graph} graph read the prompt, greedy decoding gives another "
                    f"token than PyTorch at step {step + 1} of {len(greedy)}"
                )
            logits = engine.step(np.asarray([token]), state, learn=0.0)[0]
    return deltas


def _record(model: Model) -> tuple[list[int], dict[int, float], list[int]]:
    golden: Any = model.bundle.manifest.get("golden")
    try:
        prompt = [int(token) for token in golden["prompt"]]
        greedy = [int(token) for token in golden["greedy"]]
        wanted = {int(key): float(v) for key, v in golden["logits_after_prompt"].items()}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleError(f"{model.bundle.path} has no golden record; export it again") from error
    tokens_exist = all(0 <= token < model.vocab_size for token in (*prompt, *greedy, *wanted))
    precision_is_known = model.bundle.manifest.get("precision") in SELF_TOLERANCE
    if not prompt or not wanted or not tokens_exist or not precision_is_known:
        raise BundleError(f"{model.bundle.path} has no golden record; export it again")
    return prompt, wanted, greedy
