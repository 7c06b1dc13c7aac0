"""ONNX Runtime, on the processor and on NVIDIA GPUs."""
