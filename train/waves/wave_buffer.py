"""The rolling wave buffer of one stream, as an object to inspect and save."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.errors import BundleError, ConfigError, UsageError, brief
from ...runtime.files import as_path, write_atomic
from ...runtime.tensor_file import TensorFormat
from ..config.model_config import DualCNNConfig
from ..model.state import State
from .wave_output import WaveOutput

__all__ = ["RollingWaveBuffer"]

_FORMAT = TensorFormat("rillet-wave-buffer", None, "wave buffer", "save it again")
_MAX_BYTES = 1 << 30


class RollingWaveBuffer:
    """Circular storage of a stream's last waves and their memory keys.

    The wave of step ``p`` is stored in slot ``p mod capacity``, as in the model's state
    (:mod:`rillet.train.model.ring_buffer`); :meth:`to_state` builds the state tensors that
    the model would hold.

    Args:
        capacity: Waves kept; the memory's M in a model.
        window: Waves that the second CNN sees, the newest included [W].
        overlap: Waves shared by two successive views of :meth:`windows`; less than ``window``.
        features: Features of a wave [F].
        keys: Numbers in a memory key [n]; 0 without a memory.

    Raises:
        ConfigError: The sizes conflict; the message lists every conflict.
    """

    def __init__(
        self, capacity: int, window: int, overlap: int = 0, features: int = 64, keys: int = 0
    ) -> None:
        conflicts = [
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
            conflicts.append(
                f"window is {window} but capacity is {capacity}; the window must fit: try "
                f"capacity={window}"
            )
        if overlap >= max(1, window):
            conflicts.append(
                f"overlap is {overlap} but window is {window}; the overlap must be smaller: try "
                f"overlap={max(0, window // 2)}"
            )
        if 4 * capacity * (features + keys) > _MAX_BYTES:
            conflicts.append(
                f"capacity is {capacity}, which takes "
                f"{4 * capacity * (features + keys) / 1e9:.1f} GB; the limit is "
                f"{_MAX_BYTES / 1e9:.1f} GB: lower the capacity"
            )
        if conflicts:
            raise ConfigError("; ".join(conflicts))
        self.capacity, self.window, self.overlap = capacity, window, overlap
        self.features, self.keys = features, keys
        self._waves: list[WaveOutput] = []
        self._oldest = 0

    @classmethod
    def from_config(cls, config: DualCNNConfig, overlap: int = 0) -> RollingWaveBuffer:
        """Create an empty buffer with the sizes of a configuration.

        Args:
            config: The model's configuration.
            overlap: Waves shared by two successive views of :meth:`windows`.

        Raises:
            ConfigError: The sizes conflict; the message lists every conflict.
        """
        return cls(
            max(config.entries, config.wave_window),
            config.wave_window,
            overlap or config.wave_overlap,
            config.wave_features,
            config.keys if config.entries else 0,
        )

    def __len__(self) -> int:
        return len(self._waves)

    def __iter__(self) -> Iterator[WaveOutput]:
        """Iterate over the stored waves, oldest first."""
        for index in range(len(self._waves)):
            yield self._waves[(self._oldest + index) % len(self._waves)]

    def __getitem__(self, index: int) -> WaveOutput:
        """A stored wave, counted from the oldest, or from the newest if negative."""
        count = len(self._waves)
        if not -count <= index < count:
            raise IndexError(f"index is {index}, but {count} waves are stored")
        return self._waves[(self._oldest + index) % count]

    @property
    def position(self) -> int:
        """Steps the stream has read: one more than the newest wave's position."""
        return self[-1].position + 1 if self._waves else 0

    @property
    def utilisation(self) -> float:
        """Share of the capacity in use, 0 to 1."""
        return len(self._waves) / self.capacity

    @property
    def memory_bytes(self) -> int:
        """Bytes of features and keys of a full buffer, whatever the stream's length."""
        return 4 * self.capacity * (self.features + self.keys)

    def append(self, wave: WaveOutput) -> None:
        """Store a wave, replacing the oldest if the buffer is full.

        Raises:
            UsageError: Its sizes differ from the buffer's, or it does not follow the newest wave.
        """
        sizes = (tuple(wave.features.shape), wave.key.numel())
        if sizes != ((self.features,), self.keys):
            raise UsageError(
                f"the wave has features of shape {list(wave.features.shape)} and a key of "
                f"{wave.key.numel()} numbers, but this buffer holds [{self.features}] and "
                f"{self.keys}; use RollingWaveBuffer.from_config(model.config)"
            )
        if self._waves and wave.position != self.position:
            raise UsageError(
                f"the wave is of step {wave.position}, but step {self.position} comes next; clear "
                "the buffer before storing another stream"
            )
        if len(self._waves) < self.capacity:
            self._waves.append(wave)
        else:
            self._waves[self._oldest] = wave
            self._oldest = (self._oldest + 1) % self.capacity

    def clear(self) -> None:
        """Remove all waves."""
        self._waves, self._oldest = [], 0

    def window_view(self) -> Tensor:
        """The newest waves, as the second CNN reads them, ``[W, F]``; zeros before the start."""
        newest = [wave.features for wave in list(self)[-self.window :]]
        seen = torch.stack(newest) if newest else torch.zeros(0, self.features)
        return F.pad(seen, (0, 0, self.window - len(newest), 0))

    def windows(self) -> Iterator[Tensor]:
        """Iterate over views of ``window`` stored waves, each ``[W, F]``, oldest first.

        Two successive views share ``overlap`` waves; the last view ends with the newest wave.
        """
        waves = [wave.features for wave in self]
        stride = self.window - self.overlap
        first = (len(waves) - self.window) % stride
        for start in range(first, len(waves) - self.window + 1, stride):
            yield torch.stack(waves[start : start + self.window])

    def to_state(self, config: DualCNNConfig) -> State:
        """Build the model's state tensors that this buffer holds, for one stream.

        Returns:
            ``position [1]``; ``wave_buffer [1, W, F]`` for a dual CNN; and, with a memory that
            has keys, ``memory_keys [1, M, n]`` and ``memory_tokens [1, M]``, where each entry is a
            token and the key of the state *before* it.
        """
        state: State = {"position": torch.tensor([self.position])}
        if config.dual:
            state["wave_buffer"] = self.window_view().unsqueeze(0)
        if config.entries:
            keys = torch.zeros(1, config.entries, config.keys)
            tokens = torch.zeros(1, config.entries, dtype=torch.int64)
            waves = list(self)
            # The oldest wave's entry needs the key before it, which is gone, unless the stream
            # began with that wave: then the key is zero, like the initial state.
            for before, wave in zip([None, *waves], waves, strict=False):
                slot = wave.position % config.entries
                if before is not None:
                    keys[0, slot] = before.key
                if before is not None or wave.position == 0:
                    tokens[0, slot] = wave.token
            state["memory_keys"], state["memory_tokens"] = keys, tokens
        return state

    def to_json(self) -> str:
        """Serialize the buffer to JSON; numbers survive the round trip exactly."""
        waves = [wave.to_dict() for wave in self]
        return json.dumps({"format": _FORMAT.name, **self._sizes(), "waves": waves})

    @classmethod
    def from_json(cls, text: str) -> RollingWaveBuffer:
        """Build a buffer from the JSON that :meth:`to_json` returned.

        Raises:
            UsageError: The text is not a wave buffer, or is inconsistent.
        """
        try:
            values = json.loads(text)
            if values["format"] != _FORMAT.name:
                raise ValueError(f"format is {values['format']!r}")
            buffer = cls(**{name: int(values[name]) for name in _SIZES})
            waves = list(values["waves"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(
                f"the text is not a wave buffer ({brief(error)}); save it again"
            ) from error
        for wave in waves:
            buffer.append(WaveOutput.from_dict(wave))
        return buffer

    def save(self, path: str | Path) -> None:
        """Write the buffer to a safetensors file, atomically."""
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
        write_atomic(as_path(path), safetensors.torch.save(rows, _FORMAT.metadata(self._sizes())))

    @classmethod
    def load(cls, path: str | Path) -> RollingWaveBuffer:
        """Read a file that :meth:`save` wrote.

        Raises:
            BundleError: The file is missing, damaged, or not a wave buffer.
        """
        header, rows = _FORMAT.read(as_path(path), "pt")
        try:
            buffer = cls(**{name: int(header[name]) for name in _SIZES})
            for index in range(len(rows["position"])):
                buffer.append(_wave(rows, index))
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
            raise BundleError(
                f"{path} is a damaged wave buffer ({brief(error)}); save it again"
            ) from error
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
