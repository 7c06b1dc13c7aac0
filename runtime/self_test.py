"""A quick look, when a model is loaded, at whether the engine computes what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EngineError

if TYPE_CHECKING:
    from .model import Model

__all__ = ["self_test"]


def self_test(model: Model) -> float | None:
    """Read the golden record's prompt step by step and compare the prediction after it.

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

    golden: Any = model.bundle.manifest.get("golden")
    tolerance = SELF_TOLERANCE.get(str(model.bundle.manifest.get("precision")))
    try:
        prompt = [int(token) for token in golden["prompt"]]
        wanted = {int(token): float(v) for token, v in golden["logits_after_prompt"].items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    exist = all(0 <= token < model.vocab_size for token in (*prompt, *wanted))
    if tolerance is None or not prompt or not wanted or not exist:
        return None
    state = model.engine.zero_state()
    for token in prompt:
        logits = model.engine.step(np.asarray([token]), state)[0]
    difference = max(abs(float(logits[token]) - value) for token, value in wanted.items())
    if not difference <= tolerance:
        raise EngineError(
            f"{model.engine.provider} does not compute what {model.bundle.path} should: after "
            f"{len(prompt)} tokens a log-probability is off by {difference:.1e}, and "
            f"{tolerance:.0e} is allowed; use another provider, and see `rillet verify`"
        )
    return difference
