"""The golden record: PyTorch's results, against which a device checks itself without PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...runtime.engines.base import Values
from ...runtime.files import sha256_bytes
from ...runtime.text_sample import TextSample
from ...runtime.tokenizer import Tokenizer
from ...train.model.dual_cnn import DualCNN
from ...train.model.state import State
from .start import torch_state
from .texts import real_text

__all__ = ["golden_record"]

_LENGTH = 160
"""Length of the prompt in tokens."""

_STEPS = (0, 1, 40, 159)
"""Steps of the prompt after which logits and state are recorded."""

_GREEDY = 64
_LIKELIEST = 10
_VALUES = 6
"""Number of largest values recorded of each state tensor."""


@torch.no_grad()
def golden_record(
    model: DualCNN,
    tokenizer: Tokenizer,
    sample: TextSample | None = None,
    start: Values | None = None,
) -> dict[str, Any]:
    """Record what every engine must reproduce, computed by PyTorch in float64 and float32.

    Args:
        model: The trained model.
        tokenizer: Its tokenizer.
        sample: A sample of the run's text, of which the prompt is the beginning.
        start: The state that streams begin with, for one row; zeros by default.

    Returns:
        A prompt, what it is taken from, PyTorch's greedy continuation, and, after some steps of the
        prompt, the logits of the likeliest tokens and each state tensor: the largest values of a
        float tensor, the hash of an integer tensor.
    """
    text = real_text(sample, tokenizer, model, _LENGTH)
    prompt = torch.from_numpy(text.repeated(_LENGTH))
    exact = copy.deepcopy(model).double().eval()
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        wide = _walk(exact, prompt, start)
    finally:
        torch.set_default_dtype(default)
    narrow = _walk(model, prompt, start)
    return {
        "text": text.description,
        "prompt": prompt[0].tolist(),
        "greedy": _greedy(model, prompt, start),
        "steps": [
            _record(step, narrow[step], wide[step]) for step in _STEPS if step < prompt.shape[1]
        ],
    }


def _walk(model: DualCNN, prompt: Tensor, start: Values | None) -> dict[int, tuple[Tensor, State]]:
    """Compute logits and state after each recorded step."""
    state = {
        name: value.to(torch.get_default_dtype()) if value.is_floating_point() else value
        for name, value in torch_state(model.zero_state(), start).items()
    }
    recorded = {}
    at = 0
    for step in _STEPS:
        logits, state = model(prompt[:, at : step + 1], state)
        recorded[step] = (logits[0, -1], state)
        at = step + 1
    return recorded


def _greedy(model: DualCNN, prompt: Tensor, start: Values | None) -> list[int]:
    logits, state = model(prompt, torch_state(model.zero_state(), start))
    tokens: list[int] = []
    for _ in range(_GREEDY):
        tokens.append(int(logits[0, -1].argmax()))
        logits, state = model(torch.tensor([[tokens[-1]]]), state, torch.zeros(1))
    return tokens


def _record(step: int, narrow: tuple[Tensor, State], wide: tuple[Tensor, State]) -> dict[str, Any]:
    likeliest = np.argsort(-narrow[0].numpy(), kind="stable")[:_LIKELIEST]
    return {
        "step": step,
        "logits": {
            str(token): [_rounded(wide[0][token]), _rounded(narrow[0][token])]
            for token in likeliest.tolist()
        },
        "state": {name: _tensor(tensor[0], wide[1][name][0]) for name, tensor in narrow[1].items()},
    }


def _tensor(narrow: Tensor, wide: Tensor) -> dict[str, Any]:
    """Record a state tensor: ``[place, float64, float32]`` of its largest values, or a hash."""
    if not narrow.is_floating_point():
        return {"sha256": sha256_bytes(narrow.numpy().astype("<i8").tobytes())}
    flat, flat_wide = narrow.flatten(), wide.flatten()
    places = np.argsort(-np.abs(flat.numpy()), kind="stable")[:_VALUES]
    return {
        "values": [
            [place, _rounded(flat_wide[place]), _rounded(flat[place])]
            for place in sorted(places.tolist())
        ]
    }


def _rounded(value: Tensor) -> float:
    return round(float(value), 7)
