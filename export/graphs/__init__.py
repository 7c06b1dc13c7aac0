"""From the PyTorch model to ONNX graphs."""
