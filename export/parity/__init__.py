"""Holding every graph and engine to the PyTorch model."""
