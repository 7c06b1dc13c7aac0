"""Corpora, tokenizers and token streams for training."""
