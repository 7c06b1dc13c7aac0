"""All settings of the model."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...runtime.context_slots import slot_bytes
from ...runtime.errors import ConfigError
from .fields import (
    LARGEST_SEED,
    check_fields,
    check_names,
    check_types,
    choice,
    make_plain,
    number,
    parse_field,
    suggestion,
    whole,
)
from .training_config import TrainingConfig

__all__ = ["LARGEST_MEMORY", "LONGEST_CONTEXT", "DualCNNConfig", "parse_settings"]

_BY_KEY = -sys.maxsize
"""Stands for the size of memory that suits the key."""


@dataclass(frozen=True)
class DualCNNConfig:
    """Shape of a dual CNN over an attentive reservoir, and how to train it.

    Every field is a plain value, so a configuration is readable JSON, and two models with
    equal configurations have equal state tables. The symbols in brackets are those of the
    design: V vocabulary, N reservoir units, d model width, A attention window, F wave
    features, W wave window, M memory capacity, n key width.

    Attributes:
        architecture: ``dual_cnn``, or ``single_cnn``, in which the first CNN makes the final
            prediction and there is neither a wave buffer nor a second CNN.
        vocab_size: Number of tokens [V]. Training sets it from the tokenizer.
        code_width: Width of the fixed token codes that drive the reservoir.
        codes: ``fitted`` to the corpus, or ``random``.
        reservoir: ``attentive``; ``standard``, without attention; or ``none``, in which the
            CNNs see only the token embedding.
        reservoir_size: Reservoir units [N].
        reservoir_structure: ``sparse``, with weights at random places; or ``blocks``, equal
            dense blocks whose outputs are shuffled over all blocks.
        reservoir_density: Share of nonzero recurrent weights in a sparse reservoir.
        reservoir_blocks: Number of blocks; divides ``reservoir_size``.
        spectral_radius: Largest absolute eigenvalue of the recurrent matrix.
        input_scale: Scale of the input drive relative to the recurrent drive.
        leak_min: Slowest leak rate of a unit.
        leak_max: Fastest leak rate of a unit; rates are log-uniform in between.
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
        wave_overlap: Deprecated, and no part of the model: the second CNN reads a window at
            every step. Use the ``overlap`` of :class:`RollingWaveBuffer`.
        readout_filters: Filters over the wave window for each wave feature.
        readout_blocks: Gated blocks of the second CNN after the filters.
        hidden: Inner width of every gated block.
        memory: Slots of all contexts together, or past steps that a memory of another key holds
            [M]; 65,536 and 1,024 by default. 0 builds no memory.
        memory_key: What the memory is read by: hashed ``contexts``, that is, exact last tokens; the
            ``reservoir`` state, which finds similar ones; or the ``suffix``, the codes of the last
            tokens.
        contexts: The contexts, in words: numbers of last tokens, 1 to 8, and ``word``, the word
            so far.
        adaptation: Whether the trust in each context, and the temperature, follow what is read.
        key_width: Numbers in a memory key made from the reservoir [n].
        suffix_length: Tokens in a memory key made from the suffix.
        memory_sharpness: Initial value of beta in ``exp(beta (k.k_j - 1))``.
        gate_hidden: Hidden units of the memory's learned gate.
        dropout: Dropout inside the gated blocks during training; a share above 0 is rounded to
            1/256, from 1/256 to 255/256.
        input_dropout: Dropout of the token embedding during training, rounded likewise.
        seed: Seed of the fixed parts and of the initial trained weights.
        training: Settings of training.
        reasons: Why :func:`infer` chose these settings, one sentence each.
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
        0.9, above=0, below=1, why="or a difference in state would never decay: try 0.9"
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
    wave_overlap: int = field(default=0, compare=False, metadata={"least": 0})
    readout_filters: int = whole(2, 1)
    readout_blocks: int = whole(1, 1)
    hidden: int = whole(128, 1)
    memory: int = whole(_BY_KEY)
    memory_key: str = choice("contexts", ("contexts", "reservoir", "suffix"))
    contexts: str = "2 3 4 word 5 7"
    adaptation: bool = True
    key_width: int = whole(32, 1)
    suffix_length: int = whole(8, 1)
    memory_sharpness: float = number(60.0, above=0, most=1000)
    gate_hidden: int = whole(16, 1)
    dropout: float = number(0.1, least=0, below=1)
    input_dropout: float = number(0.0, least=0, below=1)
    seed: int = whole(0, 0, LARGEST_SEED)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    reasons: tuple[str, ...] = field(default=(), compare=False)

    infer: ClassVar[Callable[..., DualCNNConfig]]
    """Choose a configuration for a corpus; see :func:`rillet.train.infer`, which sets this."""

    def __post_init__(self) -> None:
        make_plain(self)
        if self.memory == _BY_KEY:
            object.__setattr__(self, "memory", _default_memory(self.memory_key))
        if self.wave_overlap:
            warnings.warn(
                "wave_overlap is deprecated: it changes no model; use "
                "RollingWaveBuffer.from_config(config, overlap=...) instead",
                DeprecationWarning,
                stacklevel=3,
            )

    @property
    def attends(self) -> bool:
        """Whether the model attends over the reservoir's states."""
        return self.reservoir == "attentive"

    @property
    def dual(self) -> bool:
        """Whether the model has a wave buffer and a second CNN."""
        return self.architecture == "dual_cnn"

    @property
    def keys(self) -> int:
        """Numbers in a memory key of either kind [n]."""
        widths = {"reservoir": self.key_width, "suffix": self.suffix_length * self.code_width}
        return widths.get(self.memory_key, 0)

    @property
    def entries(self) -> int:
        """Past steps that a memory with keys holds; 0 for another memory, or none."""
        return 0 if self.memory_key == "contexts" else self.memory

    @property
    def adapts(self) -> bool:
        """Whether the memory has online weights."""
        return self.memory > 0 and self.memory_key == "contexts" and self.adaptation

    @property
    def context_list(self) -> tuple[str, ...]:
        """The contexts of the memory: ``word``, or a number of tokens, each."""
        return tuple(self.contexts.split())

    @property
    def context_slots(self) -> int:
        """Slots of each context."""
        return self.memory // max(1, len(self.context_list))

    def conflicts(self) -> list[str]:
        """List everything that prevents building or training the model, each with its remedy.

        Returns:
            One sentence per conflict; empty if the configuration is valid.
        """
        wrong = check_types(self)
        if isinstance(self.training, TrainingConfig):
            wrong += check_types(self.training)
        else:
            wrong.append(f"training is {self.training!r}; it must be a TrainingConfig")
        if wrong:  # reported alone, since what follows compares numbers
            return list(dict.fromkeys(wrong))
        conflicts = check_fields(self) + self.training.conflicts()
        if self.leak_min > self.leak_max:
            conflicts.append(
                f"leak_min is {self.leak_min} but leak_max is {self.leak_max}; "
                "leak_min must not exceed leak_max"
            )
        if self.attends and self.attention_heads > 0 and self.width % self.attention_heads:
            conflicts.append(
                f"attention_heads is {self.attention_heads} but width is {self.width}; the heads "
                "must divide the width: try "
                f"attention_heads={_divisor(self.width, self.attention_heads)}"
            )
        blocks = self.reservoir_blocks
        if self.reservoir_structure == "blocks" and blocks > 0 and self.reservoir_size % blocks:
            conflicts.append(
                f"reservoir_blocks is {blocks} but reservoir_size is {self.reservoir_size}; the "
                "blocks must divide the units: try "
                f"reservoir_blocks={_divisor(self.reservoir_size, blocks)}"
            )
        if self.wave_overlap and self.wave_overlap >= self.wave_window:
            conflicts.append(
                f"wave_overlap is {self.wave_overlap} but wave_window is {self.wave_window}; the "
                f"overlap must be smaller: try wave_overlap={max(0, self.wave_window // 2)}"
            )
        chunk = self.training.chunk
        windows = {"attention_window": self.attends, "wave_window": self.dual}
        for name in (name for name, used in windows.items() if used):
            if getattr(self, name) > chunk:
                conflicts.append(
                    f"{name} is {getattr(self, name)} but chunk, the training length, is {chunk}; "
                    f"a window cannot be longer than a chunk: try chunk={getattr(self, name)}"
                )
        # Both configurations have a seed.
        return list(dict.fromkeys(conflicts + self._memory_conflicts()))

    def _memory_conflicts(self) -> list[str]:
        if self.memory <= 0:
            return []
        conflicts = []
        if self.memory_key == "contexts":
            return self._context_conflicts()
        if self.memory_key == "reservoir" and self.reservoir == "none":
            conflicts.append(
                "memory_key is reservoir but reservoir is none, so there is no state to make keys "
                "from: try memory_key=suffix, or memory=0"
            )
        elif self.memory_key == "reservoir" and self.key_width > self.reservoir_size:
            conflicts.append(
                f"key_width is {self.key_width} but reservoir_size is {self.reservoir_size}; a key "
                f"cannot be wider than the reservoir: try key_width={self.reservoir_size}"
            )
        size = 4 * self.memory * self.keys
        if size > LARGEST_MEMORY:
            fitting = LARGEST_MEMORY // (4 * max(1, self.keys))
            conflicts.append(
                f"memory is {self.memory} with keys of {self.keys} numbers, which takes "
                f"{size / 1e9:.1f} GB per stream; the limit is {LARGEST_MEMORY / 1e9:.1f} GB: "
                f"try memory={fitting}"
            )
        return conflicts

    def _context_conflicts(self) -> list[str]:
        conflicts = []
        contexts = self.context_list
        lengths = [str(length) for length in range(1, LONGEST_CONTEXT + 1)]
        unknown = [context for context in contexts if context not in (*lengths, "word")]
        if unknown or not contexts or len(set(contexts)) < len(contexts):
            conflicts.append(
                f"contexts is {self.contexts!r}; it must be different contexts, each word or a "
                f"number of tokens from 1 to {LONGEST_CONTEXT}: try contexts='2 4 word 7'"
            )
        least, most = 16 * len(contexts), LARGEST_MEMORY // slot_bytes(self.vocab_size)
        if not least <= self.memory <= most:
            conflicts.append(
                f"memory is {self.memory}, slots for {len(contexts)} contexts together; it must "
                f"be {least} to {most}: try memory=65536"
            )
        return conflicts

    def validate(self) -> DualCNNConfig:
        """Check the configuration as a whole.

        Returns:
            The configuration itself, so that calls can be chained.

        Raises:
            ConfigError: Settings conflict; the message lists every conflict.
        """
        if conflicts := self.conflicts():
            raise ConfigError("; ".join(conflicts))
        return self

    def replace(self, **changes: Any) -> DualCNNConfig:
        """Return a validated copy with some fields changed.

        Fields of ``training`` can be passed by their own names; ``seed`` changes both seeds. A
        memory of the default size gets that of a new ``memory_key``.

        Raises:
            ConfigError: A field is unknown, or settings conflict.
        """
        own, training = _by_owner(changes)
        base = own.get("training", self.training)
        if training and isinstance(base, TrainingConfig):  # else refused below
            own["training"] = dataclasses.replace(base, **training)
        if "memory_key" in own and self.memory == _default_memory(self.memory_key):
            own.setdefault("memory", _BY_KEY)
        return dataclasses.replace(self, **own).validate()

    def replace_text(self, changes: dict[str, str]) -> DualCNNConfig:
        """Like :meth:`replace`, for values as a user types them.

        Raises:
            ConfigError: A name is no setting, or settings conflict. The vocabulary's size is none:
                it follows from the text.
        """
        return self.replace(**parse_settings(changes))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        values = dataclasses.asdict(self)
        values["reasons"] = list(self.reasons)
        return values

    def to_json(self) -> str:
        """Return the fields as JSON, in order of definition."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DualCNNConfig:
        """Build a configuration from JSON values, checking names and types.

        A ``wave_overlap`` in an older file is read and dropped: it changed no model. One without
        ``memory_key`` has a memory read by the reservoir's state.

        Raises:
            ConfigError: A name is unknown, a value has the wrong type, or settings conflict.
        """
        plain = {key: value for key, value in values.items() if key not in ("training", "reasons")}
        training, reasons = values.get("training", {}), values.get("reasons", [])
        if not isinstance(training, dict):
            raise ConfigError(f"training is {training!r}; it must be a JSON object")
        if not isinstance(reasons, list) or not all(isinstance(text, str) for text in reasons):
            raise ConfigError(f"reasons is {reasons!r}; it must be a list of sentences")
        check_names(cls, plain)
        check_names(TrainingConfig, training)
        return cls(
            **{"memory_key": "reservoir"} | plain | {"wave_overlap": 0},
            training=TrainingConfig(**training),
            reasons=tuple(reasons),
        ).validate()

    @classmethod
    def from_json(cls, text: str) -> DualCNNConfig:
        """Build a configuration from the JSON that :meth:`to_json` writes.

        Raises:
            ConfigError: The text is not JSON, or not a valid configuration.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the model configuration is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigError("the model configuration is not a JSON object")
        return cls.from_dict(values)


def _default_memory(key: str) -> int:
    return 65_536 if key == "contexts" else 1024


LONGEST_CONTEXT = 8
"""Tokens of the longest context of the memory, and of the longest word that it knows."""

_NO_SETTINGS = {"training", "reasons", "vocab_size", "wave_overlap"}
"""Fields that follow from others or from the text, or that change nothing."""

LARGEST_MEMORY = 1_000_000_000
"""Maximum size of one stream's memory in bytes, so that a saved state stays portable."""


def _by_owner(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split changes into those of the model and those of its training."""
    own = {entry.name for entry in dataclasses.fields(DualCNNConfig)}
    training = {entry.name for entry in dataclasses.fields(TrainingConfig)}
    _check_names(changes, own | training)
    return (
        {name: value for name, value in changes.items() if name in own},
        {name: value for name, value in changes.items() if name in training},
    )


def parse_settings(changes: dict[str, str]) -> dict[str, Any]:
    """The values of settings as a user types them, by name.

    Raises:
        ConfigError: A name is no setting, or a value has another type. The vocabulary's size is no
            setting: it follows from the text.
    """
    _check_names(changes, _settings())
    own, training = _by_owner(changes)
    values = {name: parse_field(DualCNNConfig, name, text) for name, text in own.items()}
    return values | {
        name: parse_field(TrainingConfig, name, text) for name, text in training.items()
    }


def _settings() -> set[str]:
    """What a user may set."""
    both = (*dataclasses.fields(DualCNNConfig), *dataclasses.fields(TrainingConfig))
    return {entry.name for entry in both} - _NO_SETTINGS


def _check_names(changes: Iterable[str], known: set[str]) -> None:
    if unknown := sorted(set(changes) - known):
        shown = sorted(known - {"training", "reasons", "wave_overlap"})
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting{suggestion(unknown, shown)}; choose from "
            f"{', '.join(shown)}"
        )


def _divisor(number: int, near: int) -> int:
    """Find the divisor of a number that is nearest to another number."""
    # Numbers from an untrusted file can be huge: beyond a few thousand, any divisor will do.
    divisors = (d for d in range(1, min(max(1, number), 10_000) + 1) if number % d == 0)
    return min(divisors, key=lambda d: abs(d - near), default=1)
