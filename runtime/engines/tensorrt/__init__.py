"""The engine on TensorRT itself, without ONNX Runtime, and how its plans are built and kept."""
