"""Bundles of lower precision: how they are made, and what each costs."""
