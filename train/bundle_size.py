"""The size of the bundle that a model will be exported to, without exporting it."""

from __future__ import annotations

import math

from .config.model_config import DualCNNConfig
from .model.dual_cnn import DualCNN

__all__ = ["bundle_size"]

_FLOAT = 4

_NODES = 40_000
"""Bytes of a graph besides its weights, at most."""

_RECORD = 55_000
"""Bytes of ``bundle.json``, the sampling defaults and the model card, at most."""

_HEADER = 8_000
"""Bytes of ``weights.safetensors`` besides the weights, at most."""

_SAMPLED = 4
"""Bytes of a token in ``text_sample.json``."""

_ENTRY = 40
"""Bytes of a learned token in ``tokenizer.json``, with its merge."""


def bundle_size(model: DualCNN) -> int:
    """Estimate the size of a model's bundle in float32, as ``rillet export`` writes it.

    The graphs fold some weights for speed: the token codes are multiplied into the reservoir's
    input, the attention's heads into its projections.

    Args:
        model: The model, trained or not.

    Returns:
        Bytes on disk, some percent too many rather than too few.
    """
    config = model.config
    own: int = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    weights = own + _drive(config) + _NODES
    prefill = weights + _one_hot(config)
    decode = weights + _attention(config) + _keys(config)  # generate.onnx holds it once more
    others = own + _HEADER + _SAMPLED * config.training.held_out_sample
    return prefill + 2 * decode + others + _RECORD + _ENTRY * config.vocab_size


def _drive(config: DualCNNConfig) -> int:
    """What each token adds to the reservoir, in place of the codes and the input weights."""
    units, codes = config.reservoir_size, config.code_width
    if config.reservoir == "none":
        return 0
    return _FLOAT * (config.vocab_size * (units - codes) - units * codes)


def _one_hot(config: DualCNNConfig) -> int:
    """The memory's one-hot vectors, as numbers or, of a larger vocabulary, as booleans."""
    each = _FLOAT if config.vocab_size < 256 else 1
    return each * config.vocab_size * config.vocab_size if config.memory else 0


def _attention(config: DualCNNConfig) -> int:
    """The projections of every head, folded with those of keys and values."""
    more = 4 * config.attention_heads - 2
    return _FLOAT * config.width * config.width * more if config.attends else 0


def _keys(config: DualCNNConfig) -> int:
    """The memory's two keys in one product, and its tokens as two digits."""
    if not config.memory:
        return 0
    keys = 3 * config.reservoir_size * config.key_width if config.memory_key == "reservoir" else 0
    small = config.vocab_size <= 128  # read one-hot, a larger vocabulary as two digits
    digits = config.vocab_size if small else 2 * (math.isqrt(config.vocab_size - 1) + 1)
    return _FLOAT * (keys + config.vocab_size * digits)
