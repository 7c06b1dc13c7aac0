"""Packed weights as a C file, and what else the C files must know of a model."""

from __future__ import annotations

import string

import numpy as np

from ..tokenizer import Tokenizer, text_bytes
from .packing import Packed

__all__ = ["weights_header", "weights_source"]

_WORDS = 12
"""Numbers in a line."""

_PROMPT = 32
"""Tokens that the self-test reads first."""


def weights_header(packed: Packed) -> str:
    """``weights.h``: sizes, defaults, and what tells the model from others."""
    manifest, sampling = packed.bundle.manifest, packed.sampling
    strings = {
        "WEIGHTS_SHA256": manifest.get("weights_sha256", ""),
        "TOKENIZER_SHA256": manifest.get("tokenizer_sha256", ""),
        "PRECISION": manifest.get("precision", ""),
        "PROMPT": _prompt(packed),
    }
    numbers = {
        "MODEL_STATE": packed.state_size,
        "MODEL_SCRATCH": packed.scratch_size,
        "MODEL_VOCABULARY": packed.bundle.vocab_size,
        "MODEL_PIECE": packed.decode_size,
        "MODEL_START": packed.start_token,
        "MODEL_TOP_K": min(sampling.top_k, packed.bundle.vocab_size),
        "SLOT_BYTES": packed.slot_size,
        "MODEL_WEIGHTS_BYTES": len(packed.weights),
        "MODEL_TOKENIZER_BYTES": len(packed.tokenizer),
    }
    reals = {
        "MODEL_TEMPERATURE": float(sampling.temperature),
        "MODEL_TOP_P": float(sampling.top_p),
        "MODEL_MIN_P": float(sampling.min_p),
    }
    return "\n".join(
        [
            f"/* {packed.bundle.path.name}, as weights.c holds it. */",
            "#ifndef WEIGHTS_H",
            "#define WEIGHTS_H",
            "",
            "#include <stdint.h>",
            "",
            "enum {",
            *(f"    {name} = {value}," for name, value in numbers.items()),
            "};",
            "",
            "/* How tokens are drawn. */",
            *(f"#define {name} {value!r}" for name, value in reals.items()),
            "",
            "/* What saved streams say of the model that they are of. */",
            *(f"#define MODEL_{name} {_quoted(str(text))}" for name, text in strings.items()),
            "",
            "extern const uint32_t model_weights[MODEL_WEIGHTS_BYTES / 4];",
            "extern const uint32_t model_tokenizer[MODEL_TOKENIZER_BYTES / 4];",
            "",
            "#endif",
            "",
        ]
    )


def weights_source(packed: Packed) -> str:
    """``weights.c``: constants for flash memory, in words of a little-endian processor."""
    lines = [
        '#include "weights.h"',
        "",
        "#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__",
        '#error "these weights are packed for little-endian processors"',
        "#endif",
        "",
        "#define BLOCK __attribute__((aligned(64)))",
    ]
    for name, content in (("weights", packed.weights), ("tokenizer", packed.tokenizer)):
        lines += ["", f"BLOCK const uint32_t model_{name}[MODEL_{name.upper()}_BYTES / 4] = {{"]
        words = np.frombuffer(content, "<u4").tolist()
        lines += [
            "    " + ", ".join(f"{word:#x}" for word in words[at : at + _WORDS]) + ","
            for at in range(0, len(words), _WORDS)
        ]
        lines.append("};")
    return "\n".join([*lines, ""])


def _prompt(packed: Packed) -> str:
    """What the self-test reads first: how the golden record begins."""
    golden = packed.bundle.manifest.get("golden")
    tokens = golden.get("prompt") if isinstance(golden, dict) else None
    tokenizer = Tokenizer.load(packed.bundle.file("tokenizer.json"))
    return tokenizer.decode(tokens[:_PROMPT]) if isinstance(tokens, list) else "\n"


def _quoted(text: str) -> str:
    """A C string. What is no plain character is octal, which takes three digits and no more."""
    plain = set(string.ascii_letters + string.digits + " !#$%&'()*+,-./:;<=>@[]^_`{|}~")
    letters = (chr(byte) if chr(byte) in plain else f"\\{byte:03o}" for byte in text_bytes(text))
    return f'"{"".join(letters)}"'
