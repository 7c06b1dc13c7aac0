"""What a bundle becomes on a device: packed weights, a tokenizer's table, and sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

from ..bundle import WEIGHTS_FILE, Bundle
from ..engines.native.engine import NativeEngine
from ..engines.native.packed_tokenizer import PackedTokenizer
from ..errors import UsageError
from ..sampling.params import SamplingParams
from ..start_state import START_STATE_FILE
from ..state_table import StateTensor
from ..tokenizer import Tokenizer

__all__ = ["Packed", "pack"]

SLACK = 4
"""Steps between two moves of the windows: each takes the memory of one more entry."""

_PAGE = 4096
"""Flash is erased in sectors of this size, or of a part of it."""

_HEADER = 256 + _PAGE
"""What a saved stream takes besides its numbers, at most: a page of the slot, and its header."""


@dataclass(frozen=True)
class Packed:
    """A model as a device holds it."""

    bundle: Bundle
    weights: bytes
    flags: str
    """What the library is compiled with for this model."""
    tokenizer: bytes
    state_size: int
    scratch_size: int
    slot_size: int
    decode_size: int
    memory: int
    """Slots of all contexts, or past steps; 0 without a memory."""
    products: int
    """Products of a weight and an input that a token takes."""
    sampling: SamplingParams
    start_token: int

    @property
    def static_ram(self) -> int:
        """Bytes of RAM for one stream, without the stack."""
        return self.state_size + self.scratch_size + self.prediction_size

    @property
    def prediction_size(self) -> int:
        """Bytes of a prediction, and of which tokens were seen."""
        return _prediction_size(self.bundle)


_OPTIONS = {"temperature", "top_k", "top_p", "min_p", "seed", "max_new_tokens", "top_logprobs"}
"""The sampling options that firmware knows, or that change no token."""


def pack(bundle: Bundle, memory: int | None = None) -> Packed:
    """Pack a bundle.

    Args:
        bundle: An open bundle.
        memory: Slots of all contexts, or past steps; ``None`` keeps the bundle's.

    Raises:
        UsageError: This model cannot have so much memory, or begins with a taught one.
        EngineError: The bundle has no weights that the native library can run.
    """
    if START_STATE_FILE in bundle.hashes():
        raise UsageError(
            f"streams of {bundle.path} begin with what it was taught, which firmware cannot hold; "
            "export the model again without --teach"
        )
    sampling = _default_sampling(bundle)
    engine = NativeEngine(bundle)  # checks that the weights are the graphs'
    model = engine.model
    if not model.shrink(memory or 0, SLACK):
        # Each context has a slot at least.
        most, least = _memory(engine.state_table), _contexts(bundle)
        raise UsageError(
            f"--memory is {memory}, and {bundle.path} can have {least:,} to {most:,}; give one of "
            "these, or leave the option out"
        )
    text = Tokenizer.load(bundle.file("tokenizer.json"))
    pairs = text.is_byte_level and not text.reads_any_bytes
    tokenizer = PackedTokenizer(bundle.file("tokenizer.json").read_bytes())
    numbers = sum(_bytes(row.shape, row.dtype) for row in model.state_table)
    slot = _HEADER + numbers + _prediction_size(bundle)
    return Packed(
        bundle=bundle,
        weights=model.packed(),
        flags=model.build_flags + ("" if pairs else " -DRL_PLAIN_TOKENS"),
        tokenizer=tokenizer.packed(),
        state_size=model.state_size,
        scratch_size=model.scratch_size(1),
        slot_size=-(-slot // _PAGE) * _PAGE,
        decode_size=tokenizer.decode_size,
        memory=_memory(model.state_table),
        products=_products(bundle.file(WEIGHTS_FILE).read_bytes()),
        sampling=sampling,
        start_token=int(bundle.generation_defaults().get("bos_token_id", 0)),
    )


def _default_sampling(bundle: Bundle) -> SamplingParams:
    """How a bundle samples by default.

    Raises:
        UsageError: Firmware would ignore some of it.
    """
    defaults = bundle.generation_defaults()
    neutral = SamplingParams()
    known = SamplingParams.__dataclass_fields__
    given = {name: v for name, v in defaults.items() if name in known and v is not None}
    params = SamplingParams(**given)
    lacking = [
        name
        for name in sorted(set(given) - _OPTIONS)
        if getattr(params, name) != getattr(neutral, name)
    ]
    if lacking:
        raise UsageError(
            f"generation_config.json of {bundle.path} samples with {', '.join(lacking)}, which "
            "firmware lacks; export the model without them"
        )
    return params


def _prediction_size(bundle: Bundle) -> int:
    return 5 * bundle.vocab_size


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _products(weights: bytes) -> int:
    """Weights of the layers that a step multiplies: all but tables, and a head that none reads."""
    tensors = safetensors.numpy.load(weights)
    unread = "wave_cnn.head." if "readout_cnn.head.weight" in tensors else "embedder."
    return sum(
        value.size
        for name, value in tensors.items()
        if value.ndim == 2
        and name.endswith(".weight")
        and not name.startswith(("embedder.", unread))
    )


def _contexts(bundle: Bundle) -> int:
    model = bundle.manifest["model"]
    return len(model["contexts"].split()) if model["memory_key"] == "contexts" else 1


def _memory(table: list[StateTensor]) -> int:
    sizes = [row.shape[0] for row in table if row.name in ("memory_slots", "memory_tokens")]
    return int(sizes[0]) if sizes else 0
