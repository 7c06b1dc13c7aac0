"""Export a trained model to ONNX graphs and a bundle."""
