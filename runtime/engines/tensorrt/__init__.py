"""TensorRT itself, without ONNX Runtime."""
