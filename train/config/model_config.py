"""The one place where every number that shapes the model is written down."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ...runtime.errors import ConfigError
from .fields import check_fields, choice, number, parse_field, read_fields, whole
from .training_config import TrainingConfig

__all__ = ["DualCNNConfig"]


@dataclass(frozen=True)
class DualCNNConfig:
    """Shape of a dual CNN over an attentive reservoir, and how to train it.

    Every field is plain, so a configuration is readable JSON and two models with
    equal configurations have equal state tables. Symbols in brackets are those of
    the design: V vocabulary, N reservoir units, d model width, A attention window,
    F wave features, W wave window, M memory capacity, n key width.

    Attributes:
        architecture: ``dual_cnn``; or ``single_cnn``, whose first CNN makes the final
            prediction: no wave buffer, no second CNN.
        vocab_size: Number of tokens [V]. Set from the tokenizer when training.
        code_width: Width of the fixed token codes that drive the reservoir.
        codes: ``fitted`` to the corpus, or ``random``.
        reservoir: ``attentive``; ``standard``, without attention; or ``none``, where the
            CNNs see the token embedding alone.
        reservoir_size: Reservoir units [N].
        reservoir_structure: ``sparse``, weights at random places; or ``blocks``, equal
            dense blocks whose outputs are dealt out over all blocks.
        reservoir_density: Share of recurrent weights that are not zero, when sparse.
        reservoir_blocks: Number of blocks; divides ``reservoir_size``.
        spectral_radius: Largest absolute eigenvalue of the recurrent matrix.
        input_scale: Size of the input drive beside the recurrent one.
        leak_min: Slowest leak rate of a unit.
        leak_max: Fastest leak rate of a unit; rates are log-uniform between.
        sine_amplitude: A in ``f(z) = A exp(-alpha |z|) sin(omega z)``.
        sine_decay: alpha in the same formula.
        sine_frequency: omega in the same formula.
        width: Model width [d].
        attention_heads: Heads of the windowed attention; divides ``width``.
        attention_window: States that attention sees, the current one included [A].
        wave_blocks: Gated convolution blocks of the first CNN.
        wave_kernel: Taps of each of those blocks.
        wave_features: Features of an emitted wave [F].
        wave_window: Waves that the second CNN sees, the newest included [W].
        wave_overlap: Waves that two successive views of a :class:`RollingWaveBuffer`
            share. The second CNN looks at each step and needs none of it.
        readout_filters: Filters over the wave window for each wave feature.
        readout_blocks: Gated blocks of the second CNN after the filters.
        hidden: Inner width of every gated block.
        memory: Past steps that the memory holds [M]; 0 builds no memory.
        memory_key: What finds an entry: the ``reservoir``'s state, or the ``suffix``, the
            last tokens themselves.
        key_width: Numbers in a memory key [n], when it is the reservoir's.
        suffix_length: Tokens in a key, when it is the suffix.
        memory_sharpness: Starting value of beta in ``exp(beta (k.k_j - 1))``.
        gate_hidden: Hidden units of the learned gate of the memory.
        dropout: Dropout inside the gated blocks while training.
        input_dropout: Dropout of the token embedding while training.
        seed: Seed of the fixed parts and of the trained parts' first values.
        training: How to train.
        reasons: Why :func:`infer` chose what it chose, a sentence each.
    """

    architecture: str = choice("dual_cnn", ("dual_cnn", "single_cnn"))
    vocab_size: int = whole(65, 1)
    code_width: int = whole(32, 1)
    codes: str = choice("fitted", ("fitted", "random"))
    reservoir: str = choice("attentive", ("attentive", "standard", "none"))
    reservoir_size: int = whole(128, 1)
    reservoir_structure: str = choice("sparse", ("sparse", "blocks"))
    reservoir_density: float = number(0.1, above=0, most=1)
    reservoir_blocks: int = whole(8, 1)
    spectral_radius: float = number(
        0.9, above=0, below=1, why="or a difference in state would never die out: try 0.9"
    )
    input_scale: float = number(1.0, above=0, most=100)
    leak_min: float = number(0.3, above=0, most=1)
    leak_max: float = number(1.0, above=0, most=1)
    sine_amplitude: float = number(1.0, above=0, most=10)
    sine_decay: float = number(0.1, least=0, most=10)
    sine_frequency: float = number(1.0, above=0, most=10)
    width: int = whole(64, 1)
    attention_heads: int = whole(4, 1)
    attention_window: int = whole(32, 2)
    wave_blocks: int = whole(2, 1)
    wave_kernel: int = whole(4, 2)
    wave_features: int = whole(64, 1)
    wave_window: int = whole(32, 2)
    wave_overlap: int = whole(0)
    readout_filters: int = whole(2, 1)
    readout_blocks: int = whole(1, 1)
    hidden: int = whole(128, 1)
    memory: int = whole(1024)
    memory_key: str = choice("reservoir", ("reservoir", "suffix"))
    key_width: int = whole(32, 1)
    suffix_length: int = whole(8, 1)
    memory_sharpness: float = number(60.0, above=0, most=1000)
    gate_hidden: int = whole(16, 1)
    dropout: float = number(0.1, least=0, below=1)
    input_dropout: float = number(0.0, least=0, below=1)
    seed: int = whole(0)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    reasons: tuple[str, ...] = field(default=(), compare=False)

    @property
    def attends(self) -> bool:
        """Whether there is attention over the reservoir's states."""
        return self.reservoir == "attentive"

    @property
    def dual(self) -> bool:
        """Whether there is a wave buffer and a second CNN."""
        return self.architecture == "dual_cnn"

    @property
    def keys(self) -> int:
        """Numbers in a memory key, whatever it is made of [n]."""
        suffix = self.suffix_length * self.code_width
        return self.key_width if self.memory_key == "reservoir" else suffix

    def conflicts(self) -> list[str]:
        """Every reason why no model can be built or trained, each with its repair.

        Returns:
            One sentence for each conflict; empty when the configuration is sound.
        """
        found = check_fields(self) + self.training.conflicts()
        if self.leak_min > self.leak_max:
            found.append(
                f"leak_min is {self.leak_min} and leak_max {self.leak_max}; "
                "leak_min must not be the larger"
            )
        if self.attends and self.attention_heads > 0 and self.width % self.attention_heads:
            found.append(
                f"attention_heads is {self.attention_heads} and width {self.width}; "
                f"the heads must divide the width: try {_divisor(self.width, self.attention_heads)}"
            )
        blocks = self.reservoir_blocks
        if self.reservoir_structure == "blocks" and blocks > 0 and self.reservoir_size % blocks:
            found.append(
                f"reservoir_blocks is {blocks} and reservoir_size {self.reservoir_size}; the "
                f"blocks must divide the units: try {_divisor(self.reservoir_size, blocks)}"
            )
        if self.wave_overlap >= self.wave_window:
            found.append(
                f"wave_overlap is {self.wave_overlap} and wave_window {self.wave_window}; the "
                f"overlap must be the smaller: try {max(0, self.wave_window // 2)}"
            )
        chunk = self.training.chunk
        windows = {"attention_window": self.attends, "wave_window": self.dual}
        for name in (name for name, used in windows.items() if used):
            if getattr(self, name) > chunk:
                found.append(
                    f"{name} is {getattr(self, name)} and chunk, the training length, {chunk}; "
                    f"a window cannot be longer: try chunk={getattr(self, name)}"
                )
        return found + self._memory_conflicts()

    def _memory_conflicts(self) -> list[str]:
        if not self.memory:
            return []
        found = []
        if self.memory_key == "reservoir" and self.reservoir == "none":
            found.append(
                "memory_key is reservoir and reservoir none; there is no state to make a key of: "
                "try memory_key=suffix, or memory=0"
            )
        elif self.memory_key == "reservoir" and self.key_width > self.reservoir_size:
            found.append(
                f"key_width is {self.key_width} and reservoir_size {self.reservoir_size}; a key is "
                f"read off the reservoir and cannot be wider: try {self.reservoir_size}"
            )
        size = 4 * self.memory * self.keys
        if size > _LARGEST_MEMORY:
            fitting = _LARGEST_MEMORY // (4 * max(1, self.keys))
            found.append(
                f"memory is {self.memory} and a key has {self.keys} numbers: {size / 1e9:.1f} GB "
                f"for each stream, and {_LARGEST_MEMORY / 1e9:.1f} GB is the most: try "
                f"memory={fitting}"
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
        """A copy with some fields changed, validated.

        A field of ``training`` may be given by its own name; ``seed`` changes both seeds.

        Raises:
            ConfigError: A field is unknown, or there are conflicts.
        """
        own, training = _by_owner(changes)
        if training:
            base = own.get("training", self.training)
            own["training"] = dataclasses.replace(base, **training)
        return dataclasses.replace(self, **own).validate()

    def replace_text(self, changes: dict[str, str]) -> DualCNNConfig:
        """Like :meth:`replace`, with values as a user types them."""
        own, training = _by_owner(changes)
        values = {name: parse_field(DualCNNConfig, name, text) for name, text in own.items()}
        values |= {name: parse_field(TrainingConfig, name, text) for name, text in training.items()}
        return self.replace(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold."""
        values = dataclasses.asdict(self)
        values["reasons"] = list(self.reasons)
        return values

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
        plain = {key: value for key, value in values.items() if key not in ("training", "reasons")}
        training, reasons = values.get("training", {}), values.get("reasons", [])
        if not isinstance(training, dict):
            raise ConfigError(f"training is {training!r}; it must be a JSON object")
        if not isinstance(reasons, list) or not all(isinstance(text, str) for text in reasons):
            raise ConfigError(f"reasons is {reasons!r}; it must be a list of sentences")
        return cls(
            **read_fields(cls, plain),
            training=TrainingConfig(**read_fields(TrainingConfig, training)),
            reasons=tuple(reasons),
        ).validate()

    @classmethod
    def infer(cls, corpus: Any, budget: str | None = None) -> DualCNNConfig:
        """Choose a configuration for a corpus; see :func:`rillet.train.config.auto.infer`."""
        from .auto import infer  # it builds models, and they need this module

        return infer(corpus, budget)

    @classmethod
    def from_json(cls, text: str) -> DualCNNConfig:
        """Build a configuration from the JSON that :meth:`to_json` writes.

        Raises:
            ConfigError: The text is not JSON, or not a sound configuration.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the model configuration is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigError("the model configuration is not a JSON object")
        return cls.from_dict(values)


_LARGEST_MEMORY = 1_000_000_000
"""Bytes of keys that one stream may hold: a state is meant to be carried about."""


def _by_owner(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of the model, and changes of its training."""
    own = {entry.name for entry in dataclasses.fields(DualCNNConfig)}
    training = {entry.name for entry in dataclasses.fields(TrainingConfig)}
    unknown = sorted(set(changes) - own - training)
    if unknown:
        known = sorted((own | training) - {"training", "reasons"})
        raise ConfigError(f"{', '.join(unknown)}: no such setting; there are {', '.join(known)}")
    return (
        {name: value for name, value in changes.items() if name in own},
        {name: value for name, value in changes.items() if name in training},
    )


def _divisor(number: int, near: int) -> int:
    """The divisor of a number that is nearest to another."""
    # Numbers from a stranger's file may be huge: beyond some thousand, any divisor will do.
    divisors = (d for d in range(1, min(max(1, number), 10_000) + 1) if number % d == 0)
    return min(divisors, key=lambda d: abs(d - near), default=1)
