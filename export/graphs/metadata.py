"""The metadata of a graph, which makes a copy without its bundle usable."""

from __future__ import annotations

import json

import onnx
import onnxscript
import torch

from ...runtime.state_table import (
    FORMAT,
    FORMAT_VERSION,
    STEP_CONTRACT,
    StateTensor,
    state_table_json,
)
from ...train.config.model_config import DualCNNConfig
from ...train.model.state import state_shapes

__all__ = ["exporter_versions", "state_table", "write_metadata"]


def state_table(config: DualCNNConfig) -> list[StateTensor]:
    """Build a model's state table: a row per tensor, in order."""
    return [
        StateTensor(name, shape, str(dtype).removeprefix("torch."))
        for name, (shape, dtype) in state_shapes(config).items()
    ]


def exporter_versions() -> dict[str, str]:
    """Versions of the libraries that write the graphs."""
    return {
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxscript": onnxscript.__version__,
    }


def write_metadata(
    graph: onnx.ModelProto, kind: str, config: DualCNNConfig, weights: str, tokenizer: str
) -> None:
    """Write the metadata properties into a graph.

    Args:
        graph: Modified in place.
        kind: Name of the graph in the manifest, such as ``decode`` or ``prefill``.
        config: The model's configuration.
        weights: SHA-256 of the weights.
        tokenizer: SHA-256 of the tokenizer file.
    """
    opset = next(entry.version for entry in graph.opset_import if entry.domain == "")
    properties = {
        "rillet.format": FORMAT,
        "rillet.format_version": FORMAT_VERSION,
        "rillet.graph": kind,
        "rillet.step_contract": STEP_CONTRACT,
        "rillet.state": json.dumps(state_table_json(state_table(config))),
        "rillet.opset": str(opset),
        "rillet.exporter": json.dumps(exporter_versions()),
        "rillet.weights_sha256": weights,
        "rillet.tokenizer_sha256": tokenizer,
    }
    onnx.helper.set_model_props(graph, properties)
