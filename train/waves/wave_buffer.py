"""The rolling wave buffer of one stream, as a thing to hold, look into and save."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.errors import BundleError, ConfigError, UsageError
from ...runtime.files import write_atomic
from ..config.model_config import DualCNNConfig
from ..model.state import State
from .wave_output import WaveOutput

__all__ = ["RollingWaveBuffer"]

_FORMAT = "rillet-wave-buffer"
_LARGEST = 1 << 30


class RollingWaveBuffer:
    """Circular storage of the last waves of a stream, with what each was found by.

    The wave of step ``p`` stands in slot ``p mod capacity``, as in the state of the model
    (:mod:`.ring`): :meth:`to_state` gives the state tensors that the model would hold, and
    :meth:`from_state` reads them back.

    Args:
        capacity: Waves that are kept; the memory's M in a model.
        window: Waves that the second CNN sees, the newest included [W].
        overlap: Waves that two successive views of :meth:`windows` share; below ``window``.
        features: Features of a wave [F].
        keys: Numbers in a memory key [n]; 0 without a memory.

    Raises:
        ConfigError: The sizes have conflicts; the message lists all of them.
    """

    def __init__(
        self, capacity: int, window: int, overlap: int = 0, features: int = 64, keys: int = 0
    ) -> None:
        found = [
            f"{name} is {value}; it must be at least {least}"
            for name, value, least in (
                ("capacity", capacity, 1),
                ("window", window, 1),
                ("overlap", overlap, 0),
                ("features", features, 1),
                ("keys", keys, 0),
            )
            if value < least
        ]
        if window > capacity:
            found.append(
                f"window is {window} and capacity {capacity}; a window cannot hold more: try "
                f"capacity={window}"
            )
        if overlap >= max(1, window):
            found.append(
                f"overlap is {overlap} and window {window}; the overlap must be the smaller: try "
                f"{max(0, window // 2)}"
            )
        if 4 * capacity * (features + keys) > _LARGEST:
            found.append(
                f"capacity is {capacity}: {4 * capacity * (features + keys) / 1e9:.1f} GB, and "
                f"{_LARGEST / 1e9:.1f} GB is the most"
            )
        if found:
            raise ConfigError("; ".join(found))
        self.capacity, self.window, self.overlap = capacity, window, overlap
        self.features, self.keys = features, keys
        self._waves: list[WaveOutput] = []
        self._oldest = 0

    @classmethod
    def from_config(cls, config: DualCNNConfig) -> RollingWaveBuffer:
        """An empty buffer of the sizes that a configuration asks for."""
        return cls(
            max(config.memory, config.wave_window),
            config.wave_window,
            config.wave_overlap,
            config.wave_features,
            config.keys if config.memory else 0,
        )

    def __len__(self) -> int:
        return len(self._waves)

    def __iter__(self) -> Iterator[WaveOutput]:
        """The stored waves, oldest first."""
        for index in range(len(self._waves)):
            yield self._waves[(self._oldest + index) % len(self._waves)]

    def __getitem__(self, index: int) -> WaveOutput:
        """A stored wave, counted from the oldest; from the newest when negative."""
        count = len(self._waves)
        if not -count <= index < count:
            raise IndexError(f"index is {index}, and {count} waves are stored")
        return self._waves[(self._oldest + index) % count]

    @property
    def position(self) -> int:
        """Steps that the stream has read: one more than the newest wave's."""
        return self[-1].position + 1 if self._waves else 0

    @property
    def utilisation(self) -> float:
        """Share of the capacity that is filled."""
        return len(self._waves) / self.capacity

    @property
    def memory_bytes(self) -> int:
        """Bytes of features and keys when full: fixed, whatever the stream's length."""
        return 4 * self.capacity * (self.features + self.keys)

    def append(self, wave: WaveOutput) -> None:
        """Store a wave; when full, it takes the place of the oldest.

        Raises:
            UsageError: Its sizes are not the buffer's, or it does not follow the newest.
        """
        sizes = (tuple(wave.features.shape), wave.key.numel())
        if sizes != ((self.features,), self.keys):
            raise UsageError(
                f"the wave has features {list(wave.features.shape)} and a key of "
                f"{wave.key.numel()} numbers; this buffer holds [{self.features}] and {self.keys}"
            )
        if self._waves and wave.position != self.position:
            raise UsageError(
                f"the wave is of step {wave.position}, and step {self.position} comes next; clear "
                "the buffer before another stream"
            )
        if len(self._waves) < self.capacity:
            self._waves.append(wave)
        else:
            self._waves[self._oldest] = wave
            self._oldest = (self._oldest + 1) % self.capacity

    def clear(self) -> None:
        """Forget everything."""
        self._waves, self._oldest = [], 0

    def window_view(self) -> Tensor:
        """The newest waves, as the second CNN reads them, ``[W, F]``; zeros before the start."""
        newest = [wave.features for wave in list(self)[-self.window :]]
        seen = torch.stack(newest) if newest else torch.zeros(0, self.features)
        return F.pad(seen, (0, 0, self.window - len(newest), 0))

    def windows(self) -> Iterator[Tensor]:
        """Views of ``window`` stored waves each, ``[W, F]``, oldest first.

        Two successive views share ``overlap`` waves; the last ends with the newest wave.
        """
        waves = [wave.features for wave in self]
        stride = self.window - self.overlap
        first = (len(waves) - self.window) % stride
        for start in range(first, len(waves) - self.window + 1, stride):
            yield torch.stack(waves[start : start + self.window])

    def to_state(self, config: DualCNNConfig) -> State:
        """The state tensors of the model that this buffer holds, for one stream.

        Returns:
            ``wave_buffer [1, W, F]``, and ``memory_keys [1, M, n]`` and ``memory_tokens
            [1, M]`` where there is a memory: each entry is a token and the key of the state
            *before* it.
        """
        state: State = {"position": torch.tensor([self.position])}
        if config.dual:
            state["wave_buffer"] = self.window_view().unsqueeze(0)
        if config.memory:
            keys = torch.zeros(1, config.memory, config.keys)
            tokens = torch.zeros(1, config.memory, dtype=torch.int64)
            waves = list(self)
            # The first stored wave's entry needs a key that is no longer here, unless the
            # stream began with it: then that key is zero, as the state was.
            for before, wave in zip([None, *waves], waves, strict=False):
                slot = wave.position % config.memory
                if before is not None:
                    keys[0, slot] = before.key
                if before is not None or wave.position == 0:
                    tokens[0, slot] = wave.token
            state["memory_keys"], state["memory_tokens"] = keys, tokens
        return state

    def to_json(self) -> str:
        """Everything as JSON; numbers survive the round trip exactly."""
        waves = [wave.to_dict() for wave in self]
        return json.dumps({"format": _FORMAT, **self._sizes(), "waves": waves})

    @classmethod
    def from_json(cls, text: str) -> RollingWaveBuffer:
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: It is something else, or does not fit together.
        """
        try:
            values = json.loads(text)
            if values["format"] != _FORMAT:
                raise ValueError("another format")
            buffer = cls(**{name: int(values[name]) for name in _SIZES})
            waves = list(values["waves"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"this is no wave buffer ({error}); write it anew") from error
        for wave in waves:
            buffer.append(WaveOutput.from_dict(wave))
        return buffer

    def save(self, path: Path) -> None:
        """Write everything to a safetensors file, atomically."""
        waves = list(self)
        rows = {
            "features": torch.stack([w.features for w in waves]) if waves else _NONE,
            "keys": torch.stack([w.key for w in waves]) if waves else _NONE,
            "position": torch.tensor([w.position for w in waves], dtype=torch.int64),
            "token": torch.tensor([w.token for w in waves], dtype=torch.int64),
            "attention_peak": torch.tensor([w.attention_peak for w in waves], dtype=torch.int64),
            "confidence": torch.tensor([w.confidence for w in waves], dtype=torch.float64),
            "attention_entropy": torch.tensor(
                [w.attention_entropy for w in waves], dtype=torch.float64
            ),
        }
        header = json.dumps({"format": _FORMAT, **self._sizes()})
        write_atomic(path, safetensors.torch.save(rows, {"rillet": header}))

    @classmethod
    def load(cls, path: Path) -> RollingWaveBuffer:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: The file is missing, damaged or something else.
        """
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("rillet", "null"))
                rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header["format"] != _FORMAT:
                raise ValueError("another format")
            buffer = cls(**{name: int(header[name]) for name in _SIZES})
            for index in range(len(rows["position"])):
                buffer.append(_wave(rows, index))
        except (
            safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, IndexError,
            RuntimeError, RecursionError, OverflowError,
        ) as error:  # fmt: skip
            raise BundleError(f"{path} holds no wave buffer ({error}); save it anew") from error
        return buffer

    def _sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _SIZES}


_SIZES = ("capacity", "window", "overlap", "features", "keys")
_NONE = torch.zeros(0, 0)


def _wave(rows: dict[str, Tensor], index: int) -> WaveOutput:
    def scalar(name: str) -> Any:
        return rows[name][index].item()

    return WaveOutput(
        position=int(scalar("position")),
        token=int(scalar("token")),
        features=rows["features"][index].clone(),
        confidence=float(scalar("confidence")),
        attention_entropy=float(scalar("attention_entropy")),
        attention_peak=int(scalar("attention_peak")),
        key=rows["keys"][index].clone(),
    )
