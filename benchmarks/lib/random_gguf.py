"""A transformer of nanoGPT's size with random weights, as llama.cpp reads it.

    python benchmarks/lib/random_gguf.py FILE

Six layers of 384 with six heads, 10.7 million parameters, and a token for each printable character.
It needs gguf alone, and runs in llama.cpp's environment.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

LAYERS, WIDTH, HEADS, INNER, CONTEXT = 6, 384, 6, 1_024, 512


def main(path: str) -> None:
    """Write the file."""
    import gguf

    characters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    tokens = ["<|endoftext|>", *characters, "th"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for name, shape in shapes(len(tokens)):
        writer.add_tensor(name, weights(name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def shapes(vocabulary: int) -> list[tuple[str, tuple[int, ...]]]:
    """Every tensor's name and shape."""
    found: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (vocabulary, WIDTH)),
        ("output.weight", (vocabulary, WIDTH)),
        ("output_norm.weight", (WIDTH,)),
    ]
    for layer in range(LAYERS):
        names = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "ffn_down": (WIDTH, INNER)}
        names |= dict.fromkeys(("ffn_gate", "ffn_up"), (INNER, WIDTH))
        names |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
        found += [(f"blk.{layer}.{name}.weight", shape) for name, shape in names.items()]
    return found


def weights(name: str, shape: tuple[int, ...]) -> Any:
    """Random numbers, the same each time; ones for a norm."""
    if "norm" in name:
        return np.ones(shape, np.float32)
    random = np.random.default_rng(len(name) + shape[0])
    return (0.02 * random.standard_normal(shape)).astype(np.float32)


if __name__ == "__main__":
    main(sys.argv[1])
