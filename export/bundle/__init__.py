"""Bundles on disk: their files, their model card, and the writer."""
