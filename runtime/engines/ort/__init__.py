"""Engines on ONNX Runtime: state in the host's memory, or in a GPU's."""
