"""The files that let onnxruntime-genai, 0.16 and later, drive a model unmodified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from ...runtime.files import sha256_bytes, write_atomic
from ...runtime.state_table import FORMAT, FORMAT_VERSION
from ...runtime.tokenizer import Tokenizer
from ...train.checkpoint import Checkpoint
from ..graphs.build import decode_graph, prefill_graph
from ..graphs.genai_graph import CONV, RECURRENT, Learn, StateLayout, genai_graph
from ..graphs.metadata import exporter_versions, weights_sha256

__all__ = ["GENAI_FILES", "write_genai"]

GENAI_FILES = ("model.onnx", "genai_config.json", "tokenizer.json", "tokenizer_config.json")
"""What :func:`write_genai` writes."""

_CHUNK = 256
"""Tokens of a prompt that are read at a time: attention's mask grows with their square."""

_LONGEST = 1 << 24
"""A stream may be of any length; onnxruntime-genai wants a number, and allocates as asked."""

_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0}


def write_genai(
    checkpoint: Checkpoint,
    folder: Path,
    graphs: tuple[onnx.ModelProto, onnx.ModelProto] | None = None,
    learn: Learn = "read",
    sampling: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write what onnxruntime-genai needs beside, or instead of, a bundle's own files.

    Args:
        checkpoint: The trained model and its tokenizer.
        folder: An existing folder. Of a bundle's own files only ``tokenizer.json`` has a
            name that is written here, and its content is the same.
        graphs: The decoding and the prefill graph, where they have been made already.
        learn: What the stream's memory learns; see :func:`.genai_graph.genai_graph`.
        sampling: Default sampling by Hugging Face's names, as in
            ``generation_config.json``; keys that do not belong to it are left out.

    Returns:
        Names of the files written.

    Raises:
        ParityError: A graph does not keep to the step contract.
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
    settings = {key: (sampling or {}).get(key, value) for key, value in _SAMPLING.items()}
    contents = (
        graph.SerializeToString(deterministic=True),
        _json(_genai_config(tokenizer, settings)),
        tokenizer.source.encode(),
        _json(_tokenizer_config(tokenizer)),
    )
    for name, content in zip(GENAI_FILES, contents, strict=True):
        write_atomic(folder / name, content)
    return list(GENAI_FILES)


def _genai_config(tokenizer: Tokenizer, sampling: dict[str, Any]) -> dict[str, Any]:
    # The end token is one more than the vocabulary has. onnxruntime-genai takes the padding token,
    # 0 by default, for the end where it is given none, and writes to its logit to keep texts long.
    end = tokenizer.vocab_size
    start = tokenizer.encode("\n") or tokenizer.encode(" ") or [0]
    conv, recurrent = (name.replace("0.", "%d.") for name in (CONV, RECURRENT))
    return {
        "model": {
            "type": "decoder",
            "bos_token_id": start[0],
            "eos_token_id": end,
            "pad_token_id": end,
            "vocab_size": end + 1,
            "context_length": _LONGEST,
            "decoder": {
                "filename": GENAI_FILES[0],
                "num_hidden_layers": 1,
                # One thread is best for small models, and the package takes all that there are.
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
    """What onnxruntime-genai's tokenizer must be told beside ``tokenizer.json``.

    It takes every BPE file for one over bytes, in which a space is ``Ġ``. In a file over
    characters it then finds only those that a byte-level vocabulary writes as themselves;
    the others it finds when they are listed as added tokens, by their own numbers.
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


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
