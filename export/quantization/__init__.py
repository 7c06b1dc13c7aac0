"""Bundles in lower precision: how they are made and what each one costs."""
