"""ONNX graphs, built from the PyTorch model."""
