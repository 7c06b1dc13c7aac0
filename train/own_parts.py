"""Parts of a model that are the user's own, and not those that its configuration describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..runtime.errors import UsageError
from .config.model_config import DualCNNConfig
from .model.dropout_noise import Noise
from .model.dual_cnn import DualCNN
from .model.parts import PARTS, build_part, has_part

__all__ = ["Parts", "build_own", "check_same_parts", "described", "model_with", "own_parts"]

Parts = dict[str, "nn.Module | Callable[[DualCNNConfig], nn.Module | None] | None"]
"""Replacements for parts of a model, by name: modules, functions that build one, or ``None``."""


_SETTINGS = {
    "reservoir": ("reservoir=none", "reservoir=attentive"),
    "read": ("reservoir=attentive", "reservoir=standard"),
    "readout_cnn": ("architecture=single_cnn", "architecture=dual_cnn"),
    "memory": ("memory=0", "memory=65536"),
}
"""The settings that leave a part out, and that ask for one."""


def build_own(
    name: str, config: DualCNNConfig, noise: Noise, parts: Parts | None
) -> nn.Module | None:
    """Build one part: the user's own if there is one, and otherwise the configuration's.

    Raises:
        UsageError: It is no module, or the settings and it disagree on whether there is one.
    """
    if not parts or name not in parts:
        return build_part(name, config, noise)
    part = parts[name]
    if part is not None and not isinstance(part, nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            part = part(config)
    if part is None and has_part(name, config):
        leaves_out = name in _SETTINGS and f"set {_SETTINGS[name][0]} to leave it out"
        instead = leaves_out or "no model is without it"
        raise UsageError(f"it is None, but the settings ask for a module; {instead}")
    if part is not None and not has_part(name, config):
        raise UsageError(f"the settings leave it out; set {_SETTINGS[name][1]} to have one")
    if part is not None and not isinstance(part, nn.Module):
        raise UsageError(f"it is a {type(part).__name__}; it must be a torch.nn.Module")
    return part


def model_with(config: DualCNNConfig, parts: Parts | None) -> DualCNN:
    """Build a model with some parts replaced.

    Raises:
        UsageError: ``parts`` has an unknown name.
    """
    noise = Noise()
    own = {name: build_own(name, config, noise, parts) for name in parts or {} if name in PARTS}
    unknown: dict[str, Any] = dict.fromkeys((parts or {}).keys() - own.keys())
    return DualCNN(config, noise, **own, **unknown)


def own_parts(model: DualCNN) -> dict[str, str]:
    """The class of each part that the configuration would build otherwise, by name."""
    noise = Noise()
    return {
        name: "none" if part is None else f"{type(part).__module__}.{type(part).__qualname__}"
        for name in PARTS
        if _form(part := getattr(model, name)) != _form(build_part(name, model.config, noise))
    }


def described(parts: dict[str, str]) -> str:
    """Name own parts and their classes in a message."""
    return ", ".join(f"{name} ({kind})" for name, kind in parts.items()) or "none"


def check_same_parts(where: object, recorded: dict[str, str], model: DualCNN) -> None:
    """Refuse a model whose own parts are not those that the weights were trained with.

    Raises:
        UsageError: A part differs; modules may have moved, so only the names of classes count.
    """
    given = own_parts(model)
    before, now = (
        {name: kind.rpartition(".")[2] for name, kind in parts.items()}
        for parts in (recorded, given)
    )
    if before != now:
        raise UsageError(
            f"{where} was trained with these parts in place of rillet's: {described(recorded)}; "
            f"here they are: {described(given)}; pass the same ones in Python, as in "
            "DualCNNPipeline.load(RUN, parts={...})"
        )


def _form(part: nn.Module | None) -> object:
    """What two modules share if they compute the same function of their tensors."""
    if part is None:
        return None
    return [
        (name, type(module), _numbers(module), _shapes(module))
        for name, module in part.named_modules()
    ]


def _numbers(module: nn.Module) -> dict[str, object]:
    hidden = {name: value for name, value in vars(module).items() if name != "training"}
    return {name: value for name, value in hidden.items() if isinstance(value, int | float | str)}


def _shapes(module: nn.Module) -> dict[str, object]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
