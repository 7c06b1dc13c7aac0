"""Activations of a bundle while it reads a text."""
