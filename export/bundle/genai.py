"""The files with which onnxruntime-genai 0.16 and later runs a model unmodified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from ...runtime.files import sha256_bytes, write_atomic
from ...runtime.state_table import FORMAT, FORMAT_VERSION
from ...runtime.tokenizer import Tokenizer
from ...train.checkpoint import Checkpoint, weights_sha256
from ...train.generate import start_token
from ..graphs.build import decode_graph, prefill_graph
from ..graphs.genai import CONV, RECURRENT, Learn, StateLayout, genai_graph
from ..graphs.metadata import exporter_versions
from .defaults import SAMPLING
from .json_file import write_json

__all__ = ["GENAI_FILES", "write_genai"]

GENAI_FILES = ("model.onnx", "genai_config.json", "tokenizer.json", "tokenizer_config.json")
"""The files that :func:`write_genai` writes."""

_CHUNK = 256
"""Tokens of a prompt per call: the attention mask grows with their square."""

_LONGEST = 1 << 24
"""Context length to declare. Streams are unlimited, but onnxruntime-genai requires a number."""


def write_genai(
    checkpoint: Checkpoint,
    folder: Path,
    graphs: tuple[onnx.ModelProto, onnx.ModelProto] | None = None,
    learn: Learn = "read",
    sampling: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write the files that onnxruntime-genai needs, in a bundle or a folder of their own.

    Args:
        checkpoint: The trained model and its tokenizer.
        folder: An existing folder. If it is a bundle, only ``tokenizer.json`` is overwritten, with
            the same content.
        graphs: The step graph and the prefill graph, if they have been built already.
        learn: What the stream's memory stores; see :func:`.graphs.genai.genai_graph`.
        sampling: Default sampling by Hugging Face's names, as in ``generation_config.json``;
            other keys are ignored.

    Returns:
        Names of the files written.

    Raises:
        ParityError: A graph violates the step contract.
    """
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    decode, prefill = graphs or (decode_graph(model), prefill_graph(model))
    graph = genai_graph(decode, prefill, model.config.memory, learn)
    properties = {
        "rillet.format": FORMAT,
        "rillet.format_version": FORMAT_VERSION,
        "rillet.graph": "genai",
        "rillet.packing": StateLayout.of(decode.graph).to_json(),
        "rillet.learn": learn,
        "rillet.exporter": json.dumps(exporter_versions()),
        "rillet.weights_sha256": weights_sha256(model),
        "rillet.tokenizer_sha256": sha256_bytes(tokenizer.source.encode()),
    }
    onnx.helper.set_model_props(graph, properties)
    settings = {key: (sampling or {}).get(key, value) for key, value in SAMPLING.items()}
    write_atomic(folder / "model.onnx", graph.SerializeToString(deterministic=True))
    write_json(folder / "genai_config.json", _genai_config(tokenizer, settings))
    write_atomic(folder / "tokenizer.json", tokenizer.source.encode())
    write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))
    return list(GENAI_FILES)


def _genai_config(tokenizer: Tokenizer, sampling: dict[str, Any]) -> dict[str, Any]:
    # Without an end token, onnxruntime-genai would end a text at the padding token, 0 by default,
    # and suppress it to enforce a minimum length. So declare one beyond the vocabulary.
    end = tokenizer.vocab_size
    conv, recurrent = (name.replace("0.", "%d.") for name in (CONV, RECURRENT))
    return {
        "model": {
            "type": "decoder",
            "bos_token_id": start_token(tokenizer),
            "eos_token_id": end,
            "pad_token_id": end,
            "vocab_size": end + 1,
            "context_length": _LONGEST,
            "decoder": {
                "filename": GENAI_FILES[0],
                "num_hidden_layers": 1,
                # One thread is fastest for small models; the package would use all of them.
                "session_options": {"intra_op_num_threads": 1, "provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "past_conv_names": f"past.{conv}",
                    "past_recurrent_names": f"past.{recurrent}",
                },
                "outputs": {
                    "logits": "logits",
                    "present_conv_names": f"present.{conv}",
                    "present_recurrent_names": f"present.{recurrent}",
                },
            },
        },
        "search": {
            **sampling,
            "max_length": 4096,
            "chunk_size": _CHUNK,
            "past_present_share_buffer": True,
        },
    }


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Settings that onnxruntime-genai's tokenizer needs in addition to ``tokenizer.json``.

    It treats every BPE vocabulary as byte-level, where a space is written ``Ġ``. In a vocabulary
    of characters it therefore finds only those that a byte-level vocabulary writes unchanged. The
    others are listed as added tokens with their own numbers.
    """
    file = json.loads(tokenizer.source)
    added: dict[str, Any] = {}
    if (file.get("decoder") or {}).get("type") != "ByteLevel":
        vocabulary: dict[str, int] = file["model"]["vocab"]
        for symbol, number in sorted(vocabulary.items(), key=lambda item: item[1]):
            if not all("!" <= character <= "~" for character in symbol):
                plain = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
                added[str(number)] = {"content": symbol, **plain, "special": False}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": added,
    }
