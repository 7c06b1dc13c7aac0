"""Inference engines behind one protocol: one folder each, and what chooses between them."""
