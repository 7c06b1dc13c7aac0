"""Configurations: of a model, of a training run, by name, and chosen for a corpus."""
