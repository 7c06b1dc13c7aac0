"""Writing a bundle: graphs, tokenizer, defaults, card, and the gate before the last step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ..runtime.bundle import BUNDLE_FILE, Bundle, checksum
from ..runtime.contract import FORMAT, FORMAT_VERSION, state_table_json
from ..runtime.errors import UsageError
from ..runtime.files import replace_folder, sha256_bytes, sha256_file, write_atomic
from ..runtime.onnx_engine import OnnxEngine
from ..runtime.tokenizer import Tokenizer
from ..train.checkpoint import Checkpoint
from ..train.model import DualCNN
from .graphs import decode_graph, prefill_graph
from .metadata import exporter_versions, state_table, weights_sha256, write_metadata
from .model_card import model_card
from .parity import STEPS, Comparison, check, gate_tokens, run_gate

__all__ = ["write_bundle"]

_FILES = {
    BUNDLE_FILE,
    "decode.onnx",
    "prefill.onnx",
    "tokenizer.json",
    "generation_config.json",
    "README.md",
}
_GOLDEN = 64


def write_bundle(
    checkpoint: Checkpoint,
    target: Path,
    steps: int = STEPS,
    progress: Callable[[int], object] | None = None,
) -> list[Comparison]:
    """Export a checkpoint to a bundle, unless the graphs fail the parity gate.

    Args:
        checkpoint: The trained model and its tokenizer.
        target: The folder to write; an older bundle there is replaced as a whole.
        steps: Tokens of real text that the gate reads with each graph.
        progress: Called with the number of tokens that the gate has read.

    Returns:
        The gate's figures.

    Raises:
        UsageError: ``target`` is something else than a bundle.
        ParityError: A graph fails the gate; nothing was written.
    """
    _check_target(target)
    with replace_folder(target) as folder:
        manifest = _write_files(checkpoint, folder)
        _write_json(folder / BUNDLE_FILE, {**manifest, "checksum": checksum(manifest)})
        engine = OnnxEngine(Bundle.open(folder), "cpu")
        comparisons = run_gate(
            checkpoint.model, checkpoint.tokenizer, engine, "fp32", steps, progress
        )
        check(comparisons)
        manifest["parity"] = [comparison.to_dict() for comparison in comparisons]
        _write_json(folder / BUNDLE_FILE, {**manifest, "checksum": checksum(manifest)})
        write_atomic(folder / "README.md", model_card(target.name, manifest).encode())
    return comparisons


def _check_target(target: Path) -> None:
    """Only a bundle, or nothing, may be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target} is not a folder; choose another --out")
    names = {entry.name for entry in target.iterdir()}
    foreign = sorted(names - _FILES)
    if names and (BUNDLE_FILE not in names or foreign):
        what = f"has other files in it ({', '.join(foreign[:3])})" if foreign else "is no bundle"
        raise UsageError(f"{target} {what} and will not be replaced; choose another --out")


def _write_files(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """Write all files but ``bundle.json`` and the card; return the manifest."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    config = model.config
    write_atomic(folder / "tokenizer.json", tokenizer.source.encode())
    _write_json(folder / "generation_config.json", _generation_config(tokenizer))
    weights = weights_sha256(model)
    tokenizer_hash = sha256_bytes(tokenizer.source.encode())
    graphs = {}
    for kind, build in (("decode", decode_graph), ("prefill", prefill_graph)):
        graph = build(model)
        write_metadata(graph, kind, config, weights, tokenizer_hash)
        path = folder / f"{kind}.onnx"
        onnx.save(graph, str(path))
        graphs[kind] = {"file": path.name, "sha256": sha256_file(path)}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "precision": "fp32",
        "model": config.to_dict(),
        "state": state_table_json(state_table(config)),
        "graphs": graphs,
        "files": {
            name: sha256_file(folder / name)
            for name in ("tokenizer.json", "generation_config.json")
        },
        "weights_sha256": weights,
        "tokenizer_sha256": tokenizer_hash,
        "exporter": exporter_versions(),
        "training": checkpoint.training,
        "golden": _golden(model, tokenizer),
    }


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    start = tokenizer.encode("\n") or tokenizer.encode(" ") or [0]
    return {
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": 200,
        "bos_token_id": start[0],
    }


@torch.no_grad()
def _golden(model: DualCNN, tokenizer: Tokenizer) -> dict[str, Any]:
    """What PyTorch generates greedily: lets a device check itself without PyTorch."""
    prompt = gate_tokens(tokenizer, _GOLDEN)
    logits, state = model(torch.from_numpy(prompt), model.zero_state())
    last = logits[0, -1].numpy()
    likeliest = np.argsort(-last, kind="stable")[:10]
    greedy = []
    for _ in range(_GOLDEN):
        greedy.append(int(logits[0, -1].argmax()))
        logits, state = model(torch.tensor([[greedy[-1]]]), state, torch.zeros(1))
    return {
        "prompt": prompt[0].tolist(),
        "logits_after_prompt": {str(token): round(float(last[token]), 6) for token in likeliest},
        "greedy": greedy,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
