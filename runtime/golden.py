"""A quick look, when a model is loaded, at whether the engine computes what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EngineError

if TYPE_CHECKING:
    from .model import Model

__all__ = ["self_test"]


_STEPS = 64
"""Tokens read at most."""


def self_test(model: Model) -> float | None:
    """Read the golden record's prompt step by step and compare the predictions on the way.

    An engine that computes something else is found, and so is a state that is not carried from
    step to step. It takes some sixty steps; `rillet verify` looks at everything.

    Args:
        model: A loaded bundle.

    Returns:
        The largest |difference| of a log-probability from PyTorch's; ``None`` where the bundle
        has no record that can be compared with.

    Raises:
        EngineError: The engine gives something else.
    """
    from .verify import SELF_TOLERANCE

    manifest: Any = model.bundle.manifest
    tolerance = SELF_TOLERANCE.get(str(manifest.get("precision")))
    try:
        prompt, wanted = _record(manifest["golden"])
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
        return None
    tokens = {*prompt, *(token for values in wanted.values() for token in values)}
    if tolerance is None or not wanted or not all(0 <= t < model.vocab_size for t in tokens):
        return None
    state, worst = model.engine.zero_state(), 0.0
    for step, token in enumerate(prompt[: max(wanted) + 1]):
        logits = model.engine.step(np.asarray([token]), state)[0]
        for number, value in wanted.get(step, {}).items():
            difference = abs(float(logits[number]) - value)
            if not difference <= tolerance:
                raise EngineError(
                    f"{model.engine.provider} does not compute what {model.bundle.path} should: "
                    f"after {step + 1} tokens a log-probability is off by {difference:.1e}, and "
                    f"{tolerance:.0e} is allowed; use another provider, and see `rillet verify`"
                )
            worst = max(worst, difference)
    return worst


def _record(golden: Any) -> tuple[list[int], dict[int, dict[int, float]]]:
    """The prompt, and by step what PyTorch gave some tokens after it."""
    prompt = [int(token) for token in golden["prompt"]]
    wanted = {}
    for entry in golden["steps"]:
        values = {int(token): float(pair[0]) for token, pair in entry["logits"].items()}
        if 0 <= entry["step"] < min(_STEPS, len(prompt)):
            wanted[int(entry["step"])] = values
    return prompt, wanted
