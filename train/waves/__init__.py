"""Waves for inspection: read, hold and save what the first CNN emits."""
