"""The one place where every number that shapes the model is written down."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import ConfigError

__all__ = ["PRESETS", "DualCNNConfig"]


@dataclass(frozen=True)
class DualCNNConfig:
    """Shape of a dual CNN over an attentive reservoir.

    Every field is a plain number, so a configuration is readable JSON and two
    models with equal configurations have equal state tables. Symbols in
    brackets are those of the design: V vocabulary, N reservoir units, d model
    width, A attention window, F wave features, W wave window, M memory
    capacity, n key width.

    Attributes:
        vocab_size: Number of tokens [V]. Set from the tokenizer when training.
        code_width: Width of the fixed token codes that drive the reservoir.
        reservoir_size: Reservoir units [N].
        reservoir_density: Share of recurrent weights that are not zero.
        spectral_radius: Largest absolute eigenvalue of the recurrent matrix,
            below 1 so that differences in state die out.
        input_scale: Size of the input drive beside the recurrent one.
        leak_min: Slowest leak rate of a unit.
        leak_max: Fastest leak rate of a unit; rates are log-uniform between.
        sine_amplitude: A in ``f(z) = A exp(-alpha |z|) sin(omega z)``.
        sine_decay: alpha in the same formula.
        sine_frequency: omega in the same formula.
        width: Model width [d].
        attention_heads: Heads of the windowed attention; divides ``width``.
        attention_window: States that attention sees, the current one
            included [A].
        wave_blocks: Gated convolution blocks of the first CNN.
        wave_kernel: Taps of each of those blocks.
        wave_features: Features of an emitted wave [F].
        wave_window: Waves that the second CNN sees, the newest included [W].
        readout_filters: Filters over the wave window for each wave feature.
        readout_blocks: Gated blocks of the second CNN after the filters.
        hidden: Inner width of every gated block.
        memory: Past steps that the memory holds [M]; 0 builds no memory.
        key_width: Numbers in a memory key [n].
        memory_sharpness: Starting value of beta in ``exp(beta (k.k_j - 1))``.
        gate_hidden: Hidden units of the learned gate of the memory.
        dropout: Dropout inside the gated blocks while training.
        seed: Seed of the fixed parts and of the trained parts' first values.
    """

    vocab_size: int = 65
    code_width: int = 32
    reservoir_size: int = 128
    reservoir_density: float = 0.1
    spectral_radius: float = 0.9
    input_scale: float = 1.0
    leak_min: float = 0.3
    leak_max: float = 1.0
    sine_amplitude: float = 1.0
    sine_decay: float = 0.1
    sine_frequency: float = 1.0
    width: int = 64
    attention_heads: int = 4
    attention_window: int = 32
    wave_blocks: int = 2
    wave_kernel: int = 4
    wave_features: int = 64
    wave_window: int = 32
    readout_filters: int = 2
    readout_blocks: int = 1
    hidden: int = 128
    memory: int = 1024
    key_width: int = 32
    memory_sharpness: float = 60.0
    gate_hidden: int = 16
    dropout: float = 0.1
    seed: int = 0

    def conflicts(self) -> list[str]:
        """Every reason why no model can be built, each with its repair.

        Returns:
            One sentence for each conflict; empty when the configuration is sound.
        """
        found: list[str] = []
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value < least:
                found.append(f"{name} is {value}; it must be at least {least}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low < value <= high:
                found.append(f"{name} is {value}; it must lie above {low} and not above {high}")
        if not 0 < self.spectral_radius < 1:
            found.append(
                f"spectral_radius is {self.spectral_radius}; it must lie between 0 and 1, "
                "or a difference in state would never die out: try 0.9"
            )
        if not 0 <= self.dropout < 1:
            found.append(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.leak_min > self.leak_max:
            found.append(
                f"leak_min is {self.leak_min} and leak_max {self.leak_max}; "
                "leak_min must not be the larger"
            )
        if self.attention_heads > 0 and self.width % self.attention_heads:
            found.append(
                f"attention_heads is {self.attention_heads} and width {self.width}; "
                "the heads must divide the width"
            )
        if self.memory and self.key_width > self.reservoir_size:
            found.append(
                f"key_width is {self.key_width} and reservoir_size {self.reservoir_size}; "
                "a key is read off the reservoir and cannot be wider"
            )
        return found

    def validate(self) -> DualCNNConfig:
        """Check the configuration as a whole.

        Returns:
            The configuration itself, so that the call can be chained.

        Raises:
            ConfigError: There are conflicts; the message lists all of them.
        """
        found = self.conflicts()
        if found:
            raise ConfigError("; ".join(found))
        return self

    def replace(self, **changes: Any) -> DualCNNConfig:
        """A copy with some fields changed, validated."""
        return dataclasses.replace(self, **changes).validate()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The fields as JSON, in the order of their definition."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DualCNNConfig:
        """Build a configuration from JSON values, checking names and types.

        Raises:
            ConfigError: A name is unknown, a value has the wrong type, or the
                configuration has conflicts.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)}: no such setting; there are {', '.join(sorted(fields))}"
            )
        checked: dict[str, Any] = {}
        for name, value in values.items():
            wanted = type(fields[name].default)
            if wanted is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not wanted:
                raise ConfigError(f"{name} is {value!r}; it must be {_ARTICLE[wanted]}")
            checked[name] = value
        return cls(**checked).validate()

    @classmethod
    def from_json(cls, text: str) -> DualCNNConfig:
        """Build a configuration from the JSON that :meth:`to_json` writes.

        Raises:
            ConfigError: The text is not JSON, or not a sound configuration.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the model configuration is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigError("the model configuration is not a JSON object")
        return cls.from_dict(values)


_ARTICLE = {int: "a whole number", float: "a number"}

_LEAST = {
    "vocab_size": 1,
    "code_width": 1,
    "reservoir_size": 1,
    "width": 1,
    "attention_heads": 1,
    "attention_window": 2,
    "wave_blocks": 1,
    "wave_kernel": 2,
    "wave_features": 1,
    "wave_window": 2,
    "readout_filters": 1,
    "readout_blocks": 1,
    "hidden": 1,
    "memory": 0,
    "key_width": 1,
    "gate_hidden": 1,
    "seed": 0,
}

_RANGES = {
    "reservoir_density": (0.0, 1.0),
    "input_scale": (0.0, 100.0),
    "leak_min": (0.0, 1.0),
    "leak_max": (0.0, 1.0),
    "sine_amplitude": (0.0, 10.0),
    "sine_frequency": (0.0, 10.0),
    "memory_sharpness": (0.0, 1000.0),
}

PRESETS: dict[str, DualCNNConfig] = {
    "nano": DualCNNConfig(),
}
"""Configurations by size; ``nano`` is the default of every command."""
