"""Checks that every graph and engine computes what the PyTorch model computes."""
